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

#[test]
fn a_turn_leads_to_the_next_copy_and_the_last_to_the_first() {
    let body = "(br_if 1 (local.get 0)) (br_table 0 1 2 (local.get 0))";
    // As many blocks more as there are copies, and one less with each.
    let copy = |more: u32| {
        let (one, two) = (1 + more, 2 + more);
        format!("(br_if {one} (local.get 0)) (br_table 0 {one} {two} (local.get 0))")
    };
    let [first, second, third, last] = [4, 3, 2, 1].map(copy);
    let copies = format!(
        "(block (loop (block (block (block {first} (br 4)) {second} (br 3)) {third} (br 2)) {last}))"
    );
    assert_eq!(
        unrolled(&function(&format!("(block (loop {body}))"))),
        function(&format!("(block {copies})"))
    );
}

#[test]
fn what_is_within_a_loop_keeps_its_labels() {
    let body = "(if (local.get 0) (then (block (br 2) (br 3))) (else (br 1) (br 2)))";
    let copy = |more: u32| {
        let (two, three) = (2 + more, 3 + more);
        format!("(if (local.get 0) (then (block (br 2) (br {three}))) (else (br 1) (br {two})))")
    };
    let [first, second, third, last] = [4, 3, 2, 1].map(copy);
    let copies = format!(
        "(block (loop (block (block (block {first} (br 4)) {second} (br 3)) {third} (br 2)) {last}))"
    );
    assert_eq!(unrolled(&function(&format!("(loop {body})"))), function(&copies));
}

#[test]
fn of_nested_loops_the_innermost_is_written_out() {
    let inner = "(br_if 0 (local.get 0))";
    let copies = format!(
        "(block (loop (block (block (block {inner} (br 4)) {inner} (br 3)) {inner} (br 2)) {inner}))"
    );
    let around = |inner: &str| function(&format!("(loop (loop {inner}) (br 0)) (loop {inner})"));
    let outer = |inner: &str| function(&format!("(loop {inner} (br 0)) {inner}"));
    assert_eq!(unrolled(&around(inner)), outer(&copies));
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
fn a_large_module_becomes_twice_as_large_at_the_most() {
    let loops = "(loop (br_if 0 (local.get 0)))".repeat(40_000);
    let wasm = function(&loops);
    let unrolled = unrolled(&wasm);
    assert!((wasm.len() * 19 / 10..wasm.len() * 2 + 20).contains(&unrolled.len()), "{}", unrolled.len());
}

#[test]
fn modules_whose_labels_stand_elsewhere_too_are_left() {
    let caught = "(block (loop (try_table (catch_all 1) (br 1))))";
    let reference = "(block (loop (br_on_null 1 (local.get 0)) drop))";
    let wasm = wat::parse_str(format!(
        "(module (func {caught}) (func (param funcref) {reference}) (func (loop (br 0))))"
    ))
    .unwrap();
    assert_eq!(unrolled(&wasm), wasm);
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
    Return,
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let leaf = prop_oneof![
        4 => any::<u8>().prop_map(Piece::Step),
        1 => any::<u8>().prop_map(Piece::Br),
        4 => any::<u8>().prop_map(Piece::BrIf),
        2 => prop::collection::vec(any::<u8>(), 1..4).prop_map(Piece::BrTable),
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
        Piece::Return => "(return (local.get $seen))".to_owned(),
    };
    pieces.iter().map(piece).collect()
}

fn seen(wasm: &[u8], turns: i32) -> i32 {
    // What is wrongly endless fails.
    let engine = Engine::new(Config::new().consume_fuel(true)).unwrap();
    let mut store = Store::new(&engine, ());
    store.set_fuel(1_000_000).unwrap();
    let instance = Instance::new(&mut store, &Module::new(&engine, wasm).unwrap(), &[]).unwrap();
    instance.get_typed_func::<i32, i32>(&mut store, "f").unwrap().call(&mut store, turns).unwrap()
}

proptest! {
    #[test]
    fn what_is_done_is_the_same(pieces in pieces(), turns in 0..60_i32) {
        let wasm = wat::parse_str(format!(
            r#"(module (func (export "f") (param $turns i32) (result i32) (local $seen i32)
                (block {}) (local.get $seen)))"#,
            text(&pieces, 1)
        ))
        .unwrap();
        prop_assert_eq!(seen(&unrolled(&wasm), turns), seen(&wasm, turns));
    }
}
