//! Modules before and after.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use wasmtime::{Config, Engine, Instance, Module, Store};

use super::*;

fn text(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap()
}

/// As the engine has it done.
fn instrument(wasm: &[u8]) -> Instrumenting<Vec<u8>> {
    super::instrument(wasm, may_inline(wasm))
}

/// The code of all functions of a module, one after the other.
fn code(wasm: &[u8]) -> impl Iterator<Item = Operator<'_>> {
    let bodies = Parser::new(0).parse_all(wasm).filter_map(|payload| match payload.unwrap() {
        Payload::CodeSectionEntry(body) => Some(body),
        _ => None,
    });
    bodies.flat_map(|body| body.get_operators_reader().unwrap().into_iter().map(Result::unwrap))
}

/// How many stores to the added memory a module holds.
fn checks(wasm: &[u8]) -> usize {
    code(wasm).filter(|one| matches!(one, Operator::I32Store { memarg } if memarg.memory == 1)).count()
}

fn sum(wasm: &[u8], n: i32) -> i32 {
    let engine = Engine::new(&Config::new()).unwrap();
    let mut store = Store::new(&engine, ());
    let instance = Instance::new(&mut store, &Module::new(&engine, wasm).unwrap(), &[]).unwrap();
    if let Ok(start) = instance.get_typed_func::<(), ()>(&mut store, START) {
        start.call(&mut store, ()).unwrap();
    }
    instance.get_typed_func::<i32, i32>(&mut store, "sum").unwrap().call(&mut store, n).unwrap()
}

const SUMS: &str = r#"(module
    (memory (export "memory") 1)
    (global $start (mut i32) (i32.const 0))
    (data (i32.const 8) "\02\00\00\00")
    (func $begin (global.set $start (i32.load (i32.const 8))))
    (start $begin)
    (func (export "sum") (param $n i32) (result i32) (local $sum i32)
        (local.set $sum (global.get $start))
        (block $done (loop $next
            (br_if $done (i32.eqz (local.get $n)))
            (local.set $sum (i32.add (local.get $sum) (local.get $n)))
            (memory.fill (i32.const 16) (i32.const 1) (local.get $n))
            (local.set $n (i32.sub (local.get $n) (i32.const 1)))
            (br $next)))
        (local.get $sum)))"#;

#[test]
fn every_function_turn_and_bulk_instruction_is_checked() {
    let wasm = instrument(&text(SUMS)).unwrap();
    assert_eq!(checks(&text(SUMS)), 0);
    // Two functions, one loop, and what fills memory in each copy of its turn.
    assert_eq!(checks(&wasm), 2 + 1 + 4);
}

#[test]
fn the_start_function_waits_for_the_host() {
    let engine = Engine::new(&Config::new()).unwrap();
    let module = Module::new(&engine, instrument(&text(SUMS)).unwrap()).unwrap();
    assert!(module.get_export(START).is_some());
    let mut store = Store::new(&engine, ());
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let sum = instance.get_typed_func::<i32, i32>(&mut store, "sum").unwrap();
    assert_eq!(sum.call(&mut store, 0).unwrap(), 0, "it has run already");
}

#[test]
fn what_was_not_valid_does_not_become_so() {
    for invalid in [
        r#"(module (memory 1) (export "memory" (memory 1)))"#,
        "(module (memory 1) (func (i32.store 1 (i32.const 0) (i32.const 0))))",
        r#"(module (memory 1) (data (memory 1) (i32.const 0) "a"))"#,
        "(module (memory 1) (memory 1))",
        "(module (func (result i32)))",
    ] {
        assert!(matches!(instrument(&text(invalid)), Err(InstrumentError::Invalid(_))), "{invalid}");
    }
}

#[test]
fn names_of_the_host_are_not_to_be_had() {
    let taken = r#"(module (memory (export "millrace:deadline") 1))"#;
    let error = instrument(&text(taken)).unwrap_err().to_string();
    assert_eq!(
        error,
        "it exports 'millrace:deadline', and names that begin with 'millrace:' are the host's own"
    );
}

#[test]
fn neighbouring_checks_store_to_different_places() {
    let loops = "(loop $l (br_if $l (i32.const 0)))".repeat(3_000);
    let wasm = instrument(&text(&format!("(module (memory 1) (func {loops}))"))).unwrap();
    let place = |operator| match operator {
        Operator::I32Store { memarg } => Some(memarg.offset),
        _ => None,
    };
    let places: Vec<u64> = code(&wasm).filter_map(place).collect();
    assert_eq!(places.len(), 3_001);
    assert!(places.windows(2).all(|pair| pair[0] != pair[1]) && places.iter().all(|place| *place < 4_096));
}

/// What the compiler counts when it decides what to inline: values; setting a global makes none.
#[test]
fn functions_look_as_large_as_they_are_where_they_may_be_inlined() {
    // What it has of its own is not counted: it may not be reached.
    let large = format!(
        "(func (param i32) {} (return) {})",
        "(global.set $g (local.get 0))".repeat(10_000),
        "(drop (i32.const 1))".repeat(20_000)
    );
    let module = |others: u32| {
        let others = "(func)".repeat(others as usize);
        text(&format!("(module (memory 1) (global $g (mut i32) (i32.const 0)) {large} {others})"))
    };
    let values = |wasm: &[u8]| code(wasm).filter(|one| matches!(one, Operator::I32Const { .. })).count();
    let (few, many) = (module(0), module(INLINED_FUNCTIONS_MAX));
    assert!(may_inline(&few) && !may_inline(&many));
    assert!(values(&instrument(&few).unwrap()) > 20_000 + 10_000 / WORK_PER_VALUE);
    let of_checks = 2 * (INLINED_FUNCTIONS_MAX as usize + 1);
    assert_eq!(values(&instrument(&many).unwrap()), values(&many) + of_checks);
}

/// The largest functions that are written out, of what grows most by it, in a module that leaves room for all of it.
#[test]
fn functions_stay_below_the_bound_on_them() {
    let room = "x".repeat(10 << 20);
    for (turn, bytes) in
        [("(loop)".to_owned(), 3), (format!("(loop i32.const 0 {} drop)", "memory.grow ".repeat(62)), 130)]
    {
        let loops = turn.repeat((256 << 10) / bytes - 10);
        let wasm = text(&format!("(module (memory 1) (func {loops}) (data \"{room}\"))"));
        let instrumented = instrument(&wasm).unwrap();
        assert!(instrumented.len() > wasm.len() + (2 << 20), "it is written out");
        Validator::new().validate_all(&instrumented).unwrap();
    }
}

proptest! {
    #[test]
    fn what_comes_out_is_valid_if_what_came_in_was(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut wasm = text(SUMS);
        let at = at.index(wasm.len() - 8) + 8;
        wasm[at] = byte;
        if let Ok(instrumented) = instrument(&wasm) {
            prop_assert!(Validator::new().validate_all(&instrumented).is_ok());
        }
    }

    #[test]
    fn results_are_the_same(n in 0..1_000_i32) {
        prop_assert_eq!(sum(&instrument(&text(SUMS)).unwrap(), n), 2 + n * (n + 1) / 2);
    }

    #[test]
    fn any_bytes_come_to_a_module_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let wasm = [b"\0asm\x01\0\0\0", &bytes[..]].concat();
        let _ = instrument(&wasm);
    }
}
