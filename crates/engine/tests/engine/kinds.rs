//! What each kind answers and where its outputs come from.

#![allow(clippy::unwrap_used, clippy::panic)]

use millrace_core::{Message, Step};
use millrace_engine::{Limits, ModuleOptions};

use crate::{
    sins::{module_with, passes, sinner},
    support::{apply, batch, load, message, open, read, run, tight},
};

/// A refusal of the first record of the call, with the hint "no".
const REFUSES: &str = r#"
  (i64.store (i32.const 16) (i64.const 0))
  (i32.store8 (i32.const 20) (i32.const 1))
  (i32.store8 (i32.const 22) (i32.const 2))
  (i32.store8 (i32.const 23) (i32.const 110))
  (i32.store8 (i32.const 24) (i32.const 111))
  (i64.store (i32.const 25) (i64.load (local.get $p)))
  (i64.store (i32.const 33) (i64.const 0))
  (call $copy_records (i32.const 16) (i32.const 20))
  (i32.const 0)"#;

/// An aggregate whose accumulator is a counter of calls, one letter a call; its outputs are its inputs.
const COUNTS: &str = r#"
  (local.set $n (call $be32 (i32.add (local.get $raw) (i32.add (local.get $len) (i32.const 15)))))
  (local.set $version (i32.add (local.get $raw) (i32.add (local.get $len) (i32.const 1))))
  (memory.copy
    (i32.add (local.get $version) (i32.const 4))
    (i32.add (local.get $raw) (i32.add (local.get $len) (i32.const 19)))
    (local.get $n))
  (call $put32 (local.get $version) (i32.add (local.get $n) (i32.const 1)))
  (i32.store8 (i32.add (i32.add (local.get $version) (i32.const 4)) (local.get $n)) (i32.const 120))
  (call $copy_records (local.get $raw) (i32.add (i32.add (local.get $len) (local.get $n)) (i32.const 6)))
  (call $be32 (local.get $raw))"#;

fn offsets(messages: &[Message]) -> Vec<i64> {
    messages.iter().map(Message::offset).collect()
}

#[test]
fn every_kind_keeps_the_origin() {
    for kind in ["filter", "map", "filter_map", "array_map"] {
        let mut step = open(&load(&passes(kind, ""), &tight()));
        let input = vec![
            message(5, 10, Some("k"), b"a"),
            message(9, 7, None, b""),
            message(9, 7, Some(""), b"b"),
            message(4, 7, None, b"c"),
        ];
        let outcome = step.apply(input.clone()).unwrap();
        assert_eq!(offsets(&outcome.passed), [5, 9, 9, 4], "{kind}");
        for (output, input) in outcome.passed.iter().zip(&input) {
            assert_eq!((&output.key, &output.value), (&input.key, &input.value), "{kind}");
            assert!(std::sync::Arc::ptr_eq(&output.origin, &input.origin), "{kind}");
        }
    }
}

#[test]
fn a_filter_passes_the_message_itself_on() {
    let mut step = open(&load(&passes("filter", ""), &tight()));
    let input = message(1, 1, None, b"{\"a\":1}");
    input.json().unwrap();
    let outcome = step.apply(vec![input.clone()]).unwrap();
    assert_eq!(outcome.passed[0].value.as_ptr(), input.value.as_ptr(), "no copy is made");
}

#[test]
fn an_empty_batch_is_no_call() {
    let mut step = open(&load(&sinner("map", "(unreachable)"), &tight()));
    let result = apply(&mut *step, Vec::new());
    assert_eq!((result.passed.len(), result.rejected.len()), (0, 0));
}

#[test]
fn a_user_error_rejects_its_record_and_the_batch_goes_on() {
    for kind in ["filter", "map", "filter_map", "array_map"] {
        let result = run(&sinner(kind, REFUSES), &tight(), &["!", "a", "b", "!", "c"]);
        assert_eq!(result.rejected, [(100, "no".to_owned()), (103, "no".to_owned())], "{kind}");
        let passed = [(101, "a".to_owned()), (102, "b".to_owned()), (104, "c".to_owned())];
        assert_eq!(result.passed, passed, "{kind}");
    }
}

#[test]
fn an_array_map_sees_one_record_a_call() {
    let body = "(if (i32.ne (call $be32 (local.get $raw)) (i32.const 1)) (then (unreachable)))
                (call $pass (local.get $raw) (local.get $len))";
    let alloc = r#"(func (export "alloc") (param i32) (result i32) (i32.const 65536))"#;
    let result = run(&module_with("array_map", alloc, body), &tight(), &["a", "b", "c"]);
    assert_eq!(result.passed.len(), 3);
}

/// An array map that says that it keeps provenance, and then does this.
fn telling(body: &str) -> String {
    let fields = r#"(func (export "millrace_provenance_v1"))
                    (func (export "alloc") (param i32) (result i32) (i32.const 65536))"#;
    module_with("array_map", fields, body)
}

#[test]
fn an_array_map_that_tells_where_its_outputs_came_from_sees_whole_batches() {
    // It traps for a single record, so they must have come together.
    let body = "(if (i32.eq (call $be32 (local.get $raw)) (i32.const 1)) (then (unreachable)))
                (call $pass (local.get $raw) (local.get $len))";
    let factory = load(&telling(body), &tight());
    assert!(factory.info().provenance);
    let input = vec![message(5, 10, None, b"a"), message(9, 7, None, b"b"), message(9, 7, None, b"c")];
    let outcome = open(&factory).apply(input).unwrap();
    assert_eq!(offsets(&outcome.passed), [5, 9, 9]);
    assert!(!load(&passes("array_map", ""), &tight()).info().provenance);
}

/// Three outputs of one byte each with these offsets, whatever came in; alone, a record passes.
fn claims(offsets: [u8; 3]) -> String {
    let record = |index: usize, offset: u8| {
        // Length 7 and its parts: attributes, time, offset, no key, a value of one byte, headers.
        let at = 20 + index * 8;
        let bytes = [14, 0, 0, offset * 2, 0, 2, 97, 0];
        let stores = bytes.iter().enumerate();
        stores
            .map(|(n, byte)| format!("(i32.store8 (i32.const {}) (i32.const {byte}))", at + n))
            .collect::<String>()
    };
    let records: String =
        offsets.into_iter().enumerate().map(|(index, offset)| record(index, offset)).collect();
    telling(&format!(
        "(if (i32.eq (call $be32 (local.get $raw)) (i32.const 1))
           (then (return (call $pass (local.get $raw) (local.get $len)))))
         (call $put32 (i32.const 16) (i32.const 3)) {records} (i32.store8 (i32.const 44) (i32.const 0))
         (call $copy_records (i32.const 16) (i32.const 29))
         (i32.const 3)"
    ))
}

#[test]
fn what_an_array_map_tells_is_checked_and_nothing_of_a_lie_counts() {
    let of = |offsets| run(&claims(offsets), &tight(), &["x", "y", "z"]);
    let told = of([0, 0, 2]);
    assert_eq!(told.passed, [100, 100, 102].map(|offset| (offset, "a".to_owned())));
    // Out of order or of a record it was not given: the records go alone, and are answered for one by one.
    for lie in [[1, 0, 2], [0, 1, 3]] {
        let result = of(lie);
        let alone = [(100, "x".to_owned()), (101, "y".to_owned()), (102, "z".to_owned())];
        assert_eq!((result.passed, result.rejected.len()), (alone.to_vec(), 0), "{lie:?}");
    }
}

#[test]
fn the_fan_out_of_each_record_of_a_call_is_bounded() {
    let mut options = tight();
    options.limits.fan_out_max = 2;
    let within = run(&claims([0, 0, 1]), &options, &["x", "y"]);
    assert_eq!(within.passed.len(), 3);
    let beyond = run(&claims([1, 1, 1]), &options, &["x", "y"]);
    let alone = [(100, "x".to_owned()), (101, "y".to_owned())];
    assert_eq!(beyond.passed, alone, "the call does not count, and alone they fit");
}

#[test]
fn a_refusal_in_a_shared_call_keeps_what_came_before() {
    // One output of the first record, then a refusal of the second with the hint "no"; alone, a record passes.
    let body = "(if (i32.eq (call $be32 (local.get $raw)) (i32.const 1))
           (then (return (call $pass (local.get $raw) (local.get $len)))))
         (call $put32 (i32.const 16) (i32.const 1))
         (i64.store (i32.const 20) (i64.const 0x006102000000000e))
         (i32.store8 (i32.const 28) (i32.const 1))
         (i32.store16 (i32.const 29) (i32.const 512)) (i32.store16 (i32.const 31) (i32.const 0x6f6e))
         (i64.store (i32.const 33) (i64.const 0x6500000000000000)) (i32.store (i32.const 41) (i32.const 0))
         (call $copy_records (i32.const 16) (i32.const 28))
         (i32.const 1)";
    let result = run(&telling(body), &tight(), &["x", "y", "z"]);
    assert_eq!(result.rejected, [(101, "no".to_owned())]);
    assert_eq!(result.passed, [(100, "a".to_owned()), (102, "z".to_owned())]);
}

#[test]
fn calls_are_cut_by_records_and_bytes() {
    let alloc = r#"(func (export "alloc") (param i32) (result i32) (i32.const 65536))"#;
    let at_most_two = "(if (i32.gt_u (call $be32 (local.get $raw)) (i32.const 2)) (then (unreachable)))
                       (call $pass (local.get $raw) (local.get $len))";
    let wat = module_with("filter", alloc, at_most_two);
    let limits = Limits { call_records_max: 2, ..Limits::default() };
    let by_records = ModuleOptions { limits, ..ModuleOptions::default() };
    let input = || batch(&["1234567890"; 9]);
    let size = input()[0].size_bytes();
    let limits = Limits { input_bytes_max: 2 * size, ..Limits::default() };
    let by_bytes = ModuleOptions { limits, ..ModuleOptions::default() };
    for options in [by_records, by_bytes] {
        let result = apply(&mut *open(&load(&wat, &options)), input());
        assert_eq!((result.passed.len(), result.rejected.len()), (9, 0));
    }
}

fn counting() -> String {
    module_with(
        "aggregate",
        r#"(func (export "alloc") (param i32) (result i32) (i32.const 65536))"#,
        &format!("(if (call $marked (local.get $raw) (local.get $len)) (then (unreachable))) {COUNTS}"),
    )
}

#[test]
fn an_aggregate_keeps_its_accumulator_in_the_host() {
    let limits = Limits { accumulator_bytes_max: 5, ..Limits::default() };
    let options = ModuleOptions { limits, ..ModuleOptions::default() };
    let mut step = open(&load(&counting(), &options));
    for _ in 0..4 {
        assert_eq!(apply(&mut *step, batch(&["a", "b"])).passed.len(), 2);
    }
    // A trap costs the instance but not the accumulator, and calls that fail do not count: after this one for "b"
    // the accumulator is five long.
    let result = apply(&mut *step, batch(&["a!", "b"]));
    assert_eq!(result.passed, [(101, "b".to_owned())]);
    assert_eq!(result.rejected.len(), 1);
    let result = apply(&mut *step, batch(&["c"]));
    assert_eq!(
        result.rejected,
        [(100, "its accumulator is 6 bytes long, at most 5 bytes are allowed".to_owned())]
    );
}

#[test]
fn a_step_is_sent_to_its_worker() {
    let mut step: Box<dyn Step> = open(&load(&passes("map", ""), &tight()));
    let outcome = std::thread::spawn(move || step.apply(batch(&["a"])).unwrap()).join().unwrap();
    assert_eq!(read(&outcome).passed, [(100, "a".to_owned())]);
}
