//! Loops before and after, by their code and by what they do.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use wasmparser::{Parser, Payload};
use wasmtime::{Config, Engine, Instance, Module, Store};

use super::*;

/// Nothing but what is done to loops.
fn unrolled(wasm: &[u8]) -> Vec<u8> {
    let (mut unroll, mut module) = (Unroll::of(wasm), wasm_encoder::Module::new());
    let mut code = wasm_encoder::CodeSection::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.unwrap() {
            Payload::CodeSectionStart { .. } => {}
            Payload::CodeSectionEntry(body) => {
                code.raw(&unroll.function(&body).unwrap());
            }
            other => {
                if let Some((id, range)) = other.as_section() {
                    module.section(&wasm_encoder::RawSection { id, data: &wasm[range] });
                }
            }
        }
    }
    module.section(&code);
    module.finish()
}

fn function(body: &str) -> Vec<u8> {
    wat::parse_str(format!("(module (func (param i32) {body}))")).unwrap()
}

/// A small loop written out, by the text of a copy with so many more blocks around it.
fn copies(copy: impl Fn(u32) -> String) -> String {
    let [first, second, third, last] = [4, 3, 2, 1].map(copy);
    format!("(block (loop (block (block (block {first} (br 4)) {second} (br 3)) {third} (br 2)) {last}))")
}

#[test]
fn a_turn_leads_to_the_next_copy_and_the_last_to_the_first() {
    let body = "(br_if 1 (local.get 0)) (br_table 0 1 2 (local.get 0))";
    let copy = |more: u32| {
        let (one, two) = (1 + more, 2 + more);
        format!("(br_if {one} (local.get 0)) (br_table 0 {one} {two} (local.get 0))")
    };
    assert_eq!(
        unrolled(&function(&format!("(block (loop {body}))"))),
        function(&format!("(block {})", copies(copy)))
    );
}

#[test]
fn what_is_within_a_loop_keeps_its_labels() {
    let body = "(if (local.get 0) (then (block (br 2) (br 3))) (else (br 1) (br 2)))";
    let copy = |more: u32| {
        let (two, three) = (2 + more, 3 + more);
        format!("(if (local.get 0) (then (block (br 2) (br {three}))) (else (br 1) (br {two})))")
    };
    assert_eq!(unrolled(&function(&format!("(loop {body})"))), function(&copies(copy)));
}

#[test]
fn of_nested_loops_the_innermost_is_written_out() {
    let inner = "(br_if 0 (local.get 0))";
    let around = |inner: &str| function(&format!("(loop (loop {inner}) (br 0)) (loop {inner})"));
    let outer = |inner: &str| function(&format!("(loop {inner} (br 0)) {inner}"));
    assert_eq!(unrolled(&around(inner)), outer(&copies(|_| inner.to_owned())));
}

#[test]
fn large_loops_have_fewer_copies_or_none() {
    let copies = |bytes: usize| {
        let code = unrolled(&function(&format!("(loop {})", "nop ".repeat(bytes))));
        code.iter().filter(|byte| **byte == 0x01).count() / bytes
    };
    assert_eq!([120, 128, 129, 170, 171, 256, 257].map(copies), [4, 4, 3, 3, 2, 2, 1]);
}

#[test]
fn loops_with_parameters_or_several_results_are_left() {
    for around in [
        "(drop (i32.const 1) (loop (param i32) (result i32) (br_if 0 (local.get 0))))",
        "(drop (loop (result i32 i32) (br_if 0 (local.get 0)) (i32.const 1) (i32.const 2))) drop",
    ] {
        let wasm = function(around);
        assert_eq!(unrolled(&wasm), wasm, "{around}");
    }
}

#[test]
fn labels_become_as_long_as_they_must() {
    let body = "(br_if 126 (local.get 0)) (br_table 0 125 127 (local.get 0))";
    let copy = |more: u32| {
        let [one, two, three] = [125, 126, 127].map(|label| label + more);
        format!("(br_if {two} (local.get 0)) (br_table 0 {one} {three} (local.get 0))")
    };
    let within = |inner: &str| function(&format!("{} {inner} {}", "(block ".repeat(130), ")".repeat(130)));
    assert_eq!(unrolled(&within(&format!("(loop {body})"))), within(&copies(copy)));
}

/// Labels in five bytes each, which is allowed: the copies together are smaller than what they are copies of.
#[test]
fn labels_may_come_longer_than_they_must_be() {
    const ZERO: [u8; 5] = [0x80, 0x80, 0x80, 0x80, 0];
    let table = [&[0x41, 0, 0x0e, 48 | 0x80, 0x80, 0x80, 0x80, 0][..], &ZERO.repeat(49)].concat();
    let body = [&[0, 0x03, 0x40][..], &table, &[0x0b, 0x0b]].concat();
    let mut unroll = Unroll { left_bytes: 1_000 };
    let code = unroll.function(&FunctionBody::new(BinaryReader::new(&body, 0))).unwrap();
    assert_eq!(code.iter().filter(|byte| **byte == 0x0e).count(), 2);
    assert!(code.len() < body.len() && unroll.left_bytes == 1_000);
    // Also where nothing may be done.
    let code = Unroll::default().function(&FunctionBody::new(BinaryReader::new(&body, 0))).unwrap();
    assert_eq!(code, body);
}

#[test]
fn a_module_becomes_twice_as_large_at_the_most_or_by_a_bound() {
    let size = |functions: usize| {
        let function = format!("(func (param i32) {})", "(loop (br_if 0 (local.get 0)))".repeat(100));
        let wasm = wat::parse_str(format!("(module {})", function.repeat(functions))).unwrap();
        (wasm.len(), unrolled(&wasm).len() - wasm.len())
    };
    let (before, growth) = size(400);
    assert!(before > GROWTH_BYTES_MIN && (before * 9 / 10..=before * 11 / 10).contains(&growth), "{growth}");
    let (before, growth) = size(40);
    let bound = GROWTH_BYTES_MIN * 9 / 10..=GROWTH_BYTES_MIN * 11 / 10;
    assert!(before < GROWTH_BYTES_MIN / 2 && bound.contains(&growth), "{growth}");
}

#[test]
fn large_functions_are_left() {
    let grows = |bytes: usize| {
        let wasm = function(&format!("(loop (br_if 0 (local.get 0))) {}", "nop ".repeat(bytes)));
        unrolled(&wasm).len() > wasm.len()
    };
    assert!(grows(FUNCTION_BYTES_MAX - 100) && !grows(FUNCTION_BYTES_MAX));
}

#[test]
fn modules_whose_labels_stand_elsewhere_too_are_left() {
    for names_labels in [
        "(func (block (loop (try_table (catch_all 1) (br 1)))))",
        "(func (param funcref) (block (loop (br_on_null 1 (local.get 0)) drop)))",
    ] {
        let wasm = wat::parse_str(format!("(module {names_labels} (func (loop (br 0))))")).unwrap();
        assert_eq!(unrolled(&wasm), wasm, "{names_labels}");
    }
}

/// A piece of a function. Labels are taken modulo those there are.
#[derive(Clone, Debug)]
enum Piece {
    /// Something happens, which is remembered.
    Step(u8),
    Block(Vec<Piece>),
    Loop(Vec<Piece>),
    /// A loop that is left with a value.
    Gives(Vec<Piece>),
    If(Vec<Piece>, Vec<Piece>),
    Br(u8),
    BrIf(u8),
    BrTable(Vec<u8>),
    /// Memory is told what has happened.
    Store,
    Trap,
    Return,
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let leaf = prop_oneof![
        4 => any::<u8>().prop_map(Piece::Step),
        1 => any::<u8>().prop_map(Piece::Br),
        4 => any::<u8>().prop_map(Piece::BrIf),
        2 => prop::collection::vec(any::<u8>(), 1..4).prop_map(Piece::BrTable),
        2 => Just(Piece::Store),
        1 => Just(Piece::Trap),
        1 => Just(Piece::Return),
    ];
    let piece = leaf.prop_recursive(5, 40, 6, |piece| {
        let some = || prop::collection::vec(piece.clone(), 0..6);
        prop_oneof![
            1 => some().prop_map(Piece::Block),
            3 => some().prop_map(Piece::Loop),
            1 => some().prop_map(Piece::Gives),
            1 => (some(), some()).prop_map(|(then, other)| Piece::If(then, other)),
        ]
    });
    prop::collection::vec(piece, 1..6)
}

/// A turn takes of what there is for all of them, so that none is endless.
const TURN: &str = "(if (i32.eqz (local.get $turns)) (then (return (local.get $seen))))
    (local.set $turns (i32.sub (local.get $turns) (i32.const 1)))";

/// The text of pieces within so many labels, of which every one takes nothing.
fn text(pieces: &[Piece], labels: u32) -> String {
    let to = |label: u8| u32::from(label) % labels;
    let seen = |bits: u32| format!("(i32.and (local.get $seen) (i32.const {bits}))");
    let piece = |piece: &Piece| match piece {
        Piece::Step(step) => format!(
            "(local.set $seen (i32.rotl (i32.add (i32.mul (local.get $seen) (i32.const 31))
                (i32.const {step})) (i32.const 5)))"
        ),
        Piece::Block(pieces) => format!("(block {})", text(pieces, labels + 1)),
        Piece::Loop(pieces) => format!("(loop {TURN} {})", text(pieces, labels + 1)),
        // Only to the loop: its label takes nothing, although what it gives is a value.
        Piece::Gives(pieces) => format!(
            "(local.set $seen (i32.xor (i32.const 77) (loop (result i32) {TURN} {} (local.get $seen))))",
            text(pieces, labels + 1)
        ),
        Piece::If(then, other) => {
            format!("(if {} (then {}) (else {}))", seen(4), text(then, labels + 1), text(other, labels + 1))
        }
        Piece::Br(label) => format!("(br {})", to(*label)),
        Piece::BrIf(label) => format!("(br_if {} {})", to(*label), seen(1)),
        Piece::BrTable(table) => {
            let table: Vec<String> = table.iter().map(|label| to(*label).to_string()).collect();
            format!("(br_table {} {})", table.join(" "), seen(3))
        }
        Piece::Store => format!("(i32.store {} (local.get $seen))", seen(0xffc)),
        Piece::Trap => format!("(if {} (then unreachable))", seen(64)),
        Piece::Return => "(return (local.get $seen))".to_owned(),
    };
    pieces.iter().map(piece).collect()
}

/// What a module answers, if it does not trap, and leaves in memory.
fn run(wasm: &[u8], turns: i32) -> (Option<i32>, Vec<u8>) {
    // What is wrongly endless traps.
    let engine = Engine::new(Config::new().consume_fuel(true)).unwrap();
    let mut store = Store::new(&engine, ());
    store.set_fuel(1_000_000).unwrap();
    let instance = Instance::new(&mut store, &Module::new(&engine, wasm).unwrap(), &[]).unwrap();
    let f = instance.get_typed_func::<i32, i32>(&mut store, "f").unwrap();
    let answer = f.call(&mut store, turns).ok();
    let memory = instance.get_memory(&mut store, "memory").unwrap();
    (answer, memory.data(&store)[..4_096].to_vec())
}

proptest! {
    #[test]
    fn what_is_done_is_the_same(pieces in pieces(), turns in 0..60_i32) {
        let wasm = wat::parse_str(format!(
            r#"(module (memory (export "memory") 1) (func (export "f") (param $turns i32) (result i32) (local $seen i32)
                (block {}) (local.get $seen)))"#,
            text(&pieces, 1)
        ))
        .unwrap();
        prop_assert_eq!(run(&unrolled(&wasm), turns), run(&wasm, turns));
    }
}
