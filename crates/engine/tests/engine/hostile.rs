//! Modules named by their sin. A sin hurts the record that provokes it, and no other.

#![allow(clippy::panic)]

use millrace_core::Class;
use millrace_engine::{Limits, ModuleOptions};

use crate::{
    sins::{MARK, answers, bad_alloc, passes, sinner, sinner_with},
    support::{FIRST_OFFSET, apply, batch, load, open, refused, run, tight},
};

const LOOPS: &str = "(loop $l (br $l)) (unreachable)";
const TRAPS: &str = "(unreachable)";
/// A record of offset delta 0 without a key, whose value is "a".
const RECORD_OF_A: &str = "0e00000000026100";

/// Runs twenty records with marks at 3 and 17; the others must pass, in order and once, the marked be rejected.
fn hurts_only_its_own_record(wat: &str, options: &ModuleOptions, why: &str) {
    let values: Vec<String> =
        (0..20).map(|n| if n == 3 || n == 17 { format!("bad{MARK}") } else { format!("good-{n}") }).collect();
    let values: Vec<_> = values.iter().map(String::as_str).collect();
    let mut step = open(&load(wat, options));
    // Twice: the second batch finds the step as the first left it.
    for _ in 0..2 {
        let result = apply(&mut *step, batch(&values));
        let good: Vec<_> = (FIRST_OFFSET..)
            .zip(&values)
            .filter(|(_, value)| !value.contains(MARK))
            .map(|(offset, value)| (offset, (*value).to_owned()))
            .collect();
        assert_eq!(result.passed, good, "{why}");
        assert_eq!(
            result.rejected,
            [(FIRST_OFFSET + 3, why.to_owned()), (FIRST_OFFSET + 17, why.to_owned())]
        );
    }
}

#[test]
fn loops() {
    hurts_only_its_own_record(&sinner("filter", LOOPS), &tight(), "ran longer than 100 ms");
}

#[test]
fn loops_in_array_map() {
    let result = run(&sinner("array_map", LOOPS), &tight(), &["a", "b!", "c"]);
    assert_eq!(result.passed, [(100, "a".to_owned()), (102, "c".to_owned())]);
    assert_eq!(result.rejected, [(101, "ran longer than 100 ms".to_owned())]);
}

#[test]
fn works_long_without_a_loop() {
    // Each calls the next one twice: 2^40 calls and no turn of a loop.
    let mut tree = "(func $f40)".to_owned();
    for n in 0..40 {
        tree.push_str(&format!("(func $f{n} (call $f{next}) (call $f{next}))", next = n + 1));
    }
    let wat = sinner_with("filter", &tree, "(call $f0) (i32.const 0)");
    hurts_only_its_own_record(&wat, &tight(), "ran longer than 100 ms");
    // Instructions that are work for milliseconds each, one after the other.
    let fill = "(memory.fill (i32.const 131072) (i32.const 1) (i32.const 6000000))";
    let sin = format!("(drop (memory.grow (i32.const 100))) {} (i32.const 0)", fill.repeat(20_000));
    hurts_only_its_own_record(&sinner("filter", &sin), &tight(), "ran longer than 100 ms");
    // Calls of the host that do the same.
    let random =
        r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))"#;
    let asks = "(drop (call $random (i32.const 131072) (i32.const 6000000)))".repeat(20_000);
    let sin = format!("(drop (memory.grow (i32.const 100))) {asks} (i32.const 0)");
    let wat = sinner("filter", &sin).replacen("(module", &format!("(module {random}"), 1);
    hurts_only_its_own_record(&wat, &tight(), "ran longer than 100 ms");
    // Tables are filled without a call.
    let fill = "(table.fill $t (i32.const 0) (ref.null func) (i32.const 90000))".repeat(50_000);
    let wat = sinner_with("filter", "(table $t 90000 funcref)", &format!("{fill} (i32.const 0)"));
    hurts_only_its_own_record(&wat, &tight(), "ran longer than 100 ms");
}

/// What comes after a loop is no reason for a compiler to leave the loop's checks out.
#[test]
fn loops_before_something_else() {
    let after =
        "(memory.fill (i32.const 0) (i32.const 0) (local.get $len)) (loop $m (br_if $m (local.get $len)))";
    for forever in [
        "(loop $l (br_if $l (i32.ge_s (local.get $len) (i32.const 0))))",
        "(loop $o (loop $l (br_if $l (i32.ge_s (local.get $len) (i32.const 0)))) (br_if $o (local.get $len)))",
        "(loop $o (loop $l (br_if $l (i32.lt_s (local.get $len) (i32.const 0)))) (br_if $o (local.get $len)))",
    ] {
        let sin = format!("{forever} {after} (i32.const 0)");
        hurts_only_its_own_record(&sinner("filter", &sin), &tight(), "ran longer than 100 ms");
    }
}

/// A few functions that are inlined into each other until nothing is left of the machine's memory.
#[test]
fn grows_while_it_is_compiled() {
    let sets = "(global.set $g (local.get 0))".repeat(50_000);
    // Values that count for nothing: nobody leaves the block, so what is behind it is not reached.
    let dead = format!("(block (return)) {}", "(drop (i32.const 1))".repeat(7_000));
    let mut functions =
        format!("(global $g (mut i32) (i32.const 0)) (func $large (param i32) {sets} {dead})");
    for n in 0..200 {
        let calls = "(call $large (local.get 0))".repeat(150);
        functions.push_str(&format!("(func $f{n} (param i32) {calls})"));
    }
    let mut chain = "(func $c0 (param i32) (global.set $g (local.get 0)))".to_owned();
    for n in 0..100 {
        let calls = format!("(call $c{n} (local.get 0))").repeat(100);
        chain.push_str(&format!("(func $c{} (param i32) {calls})", n + 1));
    }
    let wat =
        sinner_with("filter", &format!("{functions} {chain}"), "(call $f1 (i32.const 1)) (i32.const -22)");
    hurts_only_its_own_record(&wat, &tight(), "answered code -22: cannot decode the records");
}

#[test]
fn traps() {
    let why = "trapped: wasm `unreachable` instruction executed";
    hurts_only_its_own_record(&sinner("filter", TRAPS), &tight(), why);
    hurts_only_its_own_record(&sinner("map", TRAPS), &tight(), why);
    hurts_only_its_own_record(&sinner("array_map", TRAPS), &tight(), why);
    let divides = "(i32.div_u (i32.const 1) (i32.const 0))";
    hurts_only_its_own_record(&sinner("filter_map", divides), &tight(), "trapped: integer divide by zero");
}

#[test]
fn recurses() {
    let wat = sinner_with(
        "filter",
        "(func $down (result i32) (i32.add (call $down) (i32.const 1)))",
        "(call $down)",
    );
    hurts_only_its_own_record(&wat, &tight(), "recursed too deeply");
}

#[test]
fn burns_fuel() {
    let options = |fuel_max| {
        let limits = Limits { fuel_max, timeout_ms: 10_000, ..tight().limits };
        ModuleOptions { limits, ..tight() }
    };
    hurts_only_its_own_record(
        &sinner("filter", LOOPS),
        &options(Some(100_000)),
        "used more fuel than 100000",
    );
    // What twenty records need together is more than a call may use: they go in smaller calls.
    let values: Vec<String> = (0..20).map(|n| format!("{n:0100}")).collect();
    let values: Vec<_> = values.iter().map(String::as_str).collect();
    let looks = "(drop (call $marked (local.get $raw) (local.get $len))) (call $pass";
    let wat = passes("filter", "").replace("(call $pass", looks);
    let result = run(&wat, &options(Some(10_000)), &values);
    assert_eq!((result.passed.len(), result.rejected), (20, Vec::new()));
}

#[test]
fn eats_memory() {
    let eats = "(loop $l (drop (memory.grow (i32.const 16))) (br $l)) (unreachable)";
    hurts_only_its_own_record(&sinner("filter", eats), &tight(), "memory limit of 8 MiB reached");
    let at_once = "(memory.grow (i32.const 65000))";
    hurts_only_its_own_record(&sinner("filter", at_once), &tight(), "memory limit of 8 MiB reached");
}

#[test]
fn eats_tables() {
    let wat = sinner_with(
        "filter",
        "(table $t 1 funcref)",
        "(table.grow $t (ref.null func) (i32.const 100000000))",
    );
    hurts_only_its_own_record(&wat, &tight(), "table limit of 100000 elements reached");
}

#[test]
fn answers_codes() {
    hurts_only_its_own_record(
        &sinner("filter", "(i32.const -22)"),
        &tight(),
        "answered code -22: cannot decode the records",
    );
    hurts_only_its_own_record(
        &sinner("map", "(i32.const -2147483648)"),
        &tight(),
        "answered code -2147483648: unknown error",
    );
}

#[test]
fn gives_no_output() {
    hurts_only_its_own_record(&sinner("filter", "(i32.const 1)"), &tight(), "gave no output");
}

#[test]
fn answers_garbage_pointers() {
    for (pointer, length) in [("-1", "1"), ("131072", "1"), ("0", "-1"), ("100000", "100000"), ("-1", "-1")] {
        let sin = format!("(call $copy_records (i32.const {pointer}) (i32.const {length})) (i32.const 0)");
        let unsigned = |text: &str| text.parse::<i32>().map(i32::cast_unsigned).expect("a number");
        let why = format!(
            "its output of {} bytes at {} is outside its memory",
            unsigned(length),
            unsigned(pointer)
        );
        hurts_only_its_own_record(&sinner("filter", &sin), &tight(), &why);
    }
}

#[test]
fn answers_garbage() {
    for (hex, at) in [
        ("", "the record count"),
        ("000000", "the record count"),
        ("ffff", "the record count"),
        ("0000000100", "the record count"),
        ("00000000", "the error's presence"),
        ("0000000007", "the error's presence"),
        ("00000000010005", "the error's hint"),
        ("0000000112deadbeefdeadbeef00", "a record's offset"),
    ] {
        hurts_only_its_own_record(
            &answers("filter", hex),
            &tight(),
            &format!("its output is malformed at {at}"),
        );
    }
}

#[test]
fn lies_about_counts() {
    let why = "its output holds 4294967295 records, at most 100000 are allowed";
    hurts_only_its_own_record(&answers("filter", "ffffffff0000000000"), &tight(), why);
    hurts_only_its_own_record(&answers("array_map", "ffffffff0000000000"), &tight(), why);
    // One record said and none there, and none said.
    hurts_only_its_own_record(
        &answers("filter", "0000000100000000"),
        &tight(),
        "its output is malformed at the record count",
    );
    hurts_only_its_own_record(
        &answers("map", "0000000000"),
        &tight(),
        "its output lacks a record for an input",
    );
}

#[test]
fn alloc_out_of_bounds() {
    let large = "x".repeat(300);
    for (pointer, shown) in [("100000000", "100000000"), ("-100000", "4294867296"), ("131000", "131000")] {
        let result = run(&bad_alloc(pointer), &tight(), &["a", &large, "c"]);
        assert_eq!(result.passed, [(100, "a".to_owned()), (102, "c".to_owned())]);
        let [(101, why)] = &result.rejected[..] else { panic!("{result:?}") };
        assert!(why.starts_with(&format!("alloc answered {shown} for ")), "{why}");
    }
}

/// Record by record, as the output of `array_map` has it: ten million of ten bytes each.
#[test]
fn returns_ten_million_records() {
    let makes = |count: u32| {
        format!(
            "(local.set $n (i32.const 131072))
             (drop (memory.grow (i32.const 64)))
             (call $put32 (local.get $n) (i32.const {count}))
             (call $copy_records (local.get $n) (i32.const 4000000))
             (i32.const {count})"
        )
    };
    let roomy = ModuleOptions {
        limits: Limits { output_bytes_max: 64 << 20, ..Limits::default() },
        ..ModuleOptions::default()
    };
    hurts_only_its_own_record(
        &sinner("array_map", &makes(10_000_000)),
        &roomy,
        "its output holds 10000000 records, at most 100000 are allowed",
    );
    hurts_only_its_own_record(
        &sinner("array_map", &makes(10_000_000)),
        &tight(),
        "its output is 4000000 bytes long, at most 1 MiB are allowed",
    );
}

#[test]
fn fans_out_beyond_its_cap() {
    let options =
        ModuleOptions { limits: Limits { fan_out_max: 2, ..Limits::default() }, ..ModuleOptions::default() };
    let three = format!("00000003{}00", RECORD_OF_A.repeat(3));
    let why = "its output holds 3 records, at most 2 are allowed";
    hurts_only_its_own_record(&answers("array_map", &three), &options, why);
}

#[test]
fn answers_for_records_it_was_not_given() {
    // One record whose offset delta is 1,000. Alone, the base offset is that of the record itself.
    let far = "00000001100000d00f0002610000";
    for kind in ["filter", "map", "filter_map", "aggregate"] {
        let result = run(&answers(kind, far), &tight(), &["!"]);
        let why = match kind {
            "aggregate" => "its output is malformed at the accumulator's length",
            _ => "its output is of offset 1100, which is not of the input or out of order",
        };
        assert_eq!(result.rejected, [(100, why.to_owned())], "{kind}");
    }
    let result = run(&answers("filter", far), &tight(), &["a", "!", "c"]);
    assert_eq!(result.passed, [(100, "a".to_owned()), (102, "c".to_owned())]);
}

#[test]
fn answers_twice_for_a_record() {
    let twice = format!("00000002{}00", RECORD_OF_A.repeat(2));
    for kind in ["filter", "map", "filter_map"] {
        let result = run(&answers(kind, &twice), &tight(), &["a", "!", "c"]);
        assert_eq!(result.passed, [(100, "a".to_owned()), (102, "c".to_owned())], "{kind}");
        let why = "its output is of offset 101, which is not of the input or out of order";
        assert_eq!(result.rejected, [(101, why.to_owned())], "{kind}");
    }
}

#[test]
fn names_an_offset_that_is_not_of_the_input_in_its_error() {
    // No records; an error "no" of offset 7.
    let answer = "00000000".to_owned() + "01" + "00026e6f" + "0000000000000007" + "00" + "00" + "00";
    hurts_only_its_own_record(
        &answers("filter", &answer),
        &tight(),
        "its error is of offset 7, which is not of the input",
    );
}

#[test]
fn loops_at_its_start() {
    let wat = passes("filter", "(func $forever (loop $l (br $l))) (start $forever)");
    assert_eq!(refused(&wat, &tight()), "module 'm': cannot be started: ran longer than 1000 ms");
    let wat = passes("filter", r#"(func (export "_initialize") (loop $l (br $l)))"#);
    assert_eq!(refused(&wat, &tight()), "module 'm': cannot be started: ran longer than 1000 ms");
}

#[test]
fn loops_or_traps_in_init() {
    let init = |body: &str| {
        passes("filter", &format!(r#"(func (export "init") (param i32 i32 i32) (result i32) {body})"#))
    };
    assert_eq!(refused(&init(LOOPS), &tight()), "module 'm': init failed: ran longer than 1000 ms");
    assert!(refused(&init(TRAPS), &tight()).starts_with("module 'm': init failed: trapped"));
    assert_eq!(
        refused(&init("(i32.const -10)"), &tight()),
        "module 'm': init failed: answered code -10: cannot decode its input"
    );
    // It refuses its parameters and hands over all of its memory as the reason.
    let huge = init("(call $copy_records (i32.const 0) (i32.const 131072)) (i32.const -2)");
    let error = refused(&huge, &tight());
    assert_eq!(error, "module 'm': init refused its parameters: refused the record without a reason");
}

#[test]
fn wants_more_than_it_may_have_from_the_start() {
    let wat = passes("filter", "")
        .replace(r#"(memory (export "memory") 2)"#, r#"(memory (export "memory") 60000)"#);
    assert_eq!(refused(&wat, &tight()), "module 'm': cannot be started: memory limit of 8 MiB reached");
    let wat = passes("filter", "(table 50000000 funcref)");
    assert_eq!(
        refused(&wat, &tight()),
        "module 'm': cannot be started: table limit of 100000 elements reached"
    );
    let wat = passes("filter", &"(table 1 funcref)".repeat(10));
    assert!(refused(&wat, &tight()).starts_with("module 'm': cannot be started: "));
}

#[test]
fn a_record_larger_than_the_memory_is_not_even_tried() {
    let large = "x".repeat(9 << 20);
    let result = run(&passes("filter", ""), &tight(), &["a", &large, "c"]);
    assert_eq!(result.passed.len(), 2);
    assert_eq!(result.rejected, [(101, "a record of 9437184 bytes does not fit its memory".to_owned())]);
}

#[test]
fn all_records_loop() {
    let options =
        ModuleOptions { limits: Limits { timeout_ms: 10, ..Limits::default() }, ..ModuleOptions::default() };
    let mut step = open(&load(&sinner("filter", LOOPS), &options));
    let result = apply(&mut *step, batch(&["x!"; 30]));
    assert_eq!(result.rejected.len(), 30, "dead letters, not the end of the pipeline");
    // A batch that would take minutes ends the pipeline instead.
    let error = step.apply(batch(&["x!"; 5_000])).expect_err("it gives up");
    assert_eq!((error.class(), error.who()), (Class::Fatal, "module 'm'"));
    let why = "fails on too many records and too slowly, last: ran longer than ";
    assert!(error.why().starts_with(why), "{error}");
}

#[test]
fn exits() {
    let wat = sinner("filter", "(call $exit (i32.const 3)) (unreachable)").replacen(
        "(module",
        r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#,
        1,
    );
    hurts_only_its_own_record(&wat, &tight(), "ended itself with code 3");
}

#[test]
fn fails_on_what_came_before() {
    // Traps at its third call, whatever that is: no record is at fault, so none is lost.
    let wat = sinner_with(
        "filter",
        "(global $calls (mut i32) (i32.const 0))",
        "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
         (if (i32.eq (global.get $calls) (i32.const 3)) (then (unreachable)))
         (call $pass (local.get $raw) (local.get $len))",
    );
    let mut step = open(&load(&wat, &tight()));
    for _ in 0..10 {
        let result = apply(&mut *step, batch(&["a!", "b!"]));
        assert_eq!((result.passed.len(), result.rejected.len()), (2, 0));
    }
}

/// A guest that never frees: each call costs it a page, as each output costs a guest of `fluvio-smartmodule`.
#[test]
fn leaks() {
    let wat = sinner(
        "filter",
        "(drop (memory.grow (i32.const 16))) (call $pass (local.get $raw) (local.get $len))",
    );
    let mut step = open(&load(&wat, &tight()));
    for _ in 0..100 {
        let result = apply(&mut *step, batch(&["a!"]));
        assert_eq!((result.passed.len(), result.rejected.len()), (1, 0), "100 MiB leaked, 8 allowed");
    }
}
