//! What is a SmartModule, and what is refused before anything runs.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use millrace_core::{LookBack, StepContext, StepFactory};
use millrace_engine::{EngineOptions, Kind, Limits, ModuleOptions, SmartEngine};

use crate::{
    sins::{passes, sinner},
    support::{apply, batch, engine, open, refused, tight},
};

fn load_bytes(bytes: &[u8]) -> String {
    engine().load("m", bytes, &tight()).err().expect("the module loads").chain()
}

#[test]
fn says_what_a_module_is() {
    let fields = r#"(func (export "init") (param i32 i32 i32) (result i32) (i32.const 0))"#;
    let wasm = wat::parse_str(passes("filter_map", fields)).unwrap();
    let info = engine().inspect("m", &wasm).unwrap();
    assert_eq!((info.kind, info.init, info.look_back), (Kind::FilterMap, true, false));
    assert_eq!(info.imports, ["env.copy_records"]);
    assert_eq!(info.exports, ["memory", "alloc", "init", "filter_map"]);
    assert_eq!((info.size_bytes, info.sha256.len()), (wasm.len(), 64));
}

#[test]
fn the_first_transform_exported_is_the_kind() {
    let aggregate = r#"(func (export "aggregate") (param i32 i32 i32) (result i32) (i32.const 0))"#;
    let wasm = wat::parse_str(passes("map", aggregate)).unwrap();
    assert_eq!(engine().inspect("m", &wasm).unwrap().kind, Kind::Map);
}

#[test]
fn bytes_of_another_kind_are_called_by_their_name() {
    assert_eq!(load_bytes(b""), "module 'm': is not a WebAssembly module");
    assert_eq!(load_bytes(b"\x7fELF"), "module 'm': is not a WebAssembly module");
    assert_eq!(load_bytes(b"(module)"), "module 'm': is WebAssembly text; a compiled module is needed");
    let component = b"\0asm\x0d\0\x01\0";
    assert!(
        load_bytes(component)
            .starts_with("module 'm': is a WebAssembly component; a SmartModule is a core module")
    );
    assert!(load_bytes(b"\0asm\x01\0\0\0\xff\xff").starts_with("module 'm': is not a valid module: "));
    let whole = wat::parse_str(passes("filter", "")).unwrap();
    // Without its names, which come last, it would be whole.
    let names = whole.windows(5).position(|window| window == b"\x04name").unwrap();
    for length in 8..names - 3 {
        assert!(load_bytes(&whole[..length]).starts_with("module 'm': is no"), "cut at {length}");
    }
}

#[test]
fn too_large_is_said_before_it_is_compiled() {
    let options = EngineOptions { wasm_bytes_max: 1_000, ..EngineOptions::default() };
    let error = SmartEngine::new(options).unwrap().load("m", &[0; 1_001], &tight()).err().unwrap();
    assert_eq!(error.to_string(), "module 'm': is 1001 bytes large, at most 1000 are accepted");
}

#[test]
fn a_module_that_takes_long_to_compile_is_not_waited_for() {
    // Many functions, so that the compiler has something to do.
    let functions = "(func (param i32) (result i32) (i32.popcnt (i32.ctz (local.get 0))))".repeat(5_000);
    let wasm = wat::parse_str(passes("filter", &functions)).unwrap();
    let options = EngineOptions { compile_timeout_ms: 0, ..EngineOptions::default() };
    let error = SmartEngine::new(options).unwrap().load("m", &wasm, &tight()).err().unwrap();
    assert_eq!(error.to_string(), "module 'm': cannot be compiled within 0 ms");
}

#[test]
fn imports_that_nobody_has_are_named() {
    let wat = passes("filter", "").replacen(
        "(module",
        r#"(module (import "pipeline_v1" "lookup" (func (param i32))) (import "env" "abort" (func))"#,
        1,
    );
    assert_eq!(
        refused(&wat, &tight()),
        "module 'm': is no SmartModule: it imports what this host does not have: pipeline_v1.lookup, env.abort"
    );
    let memory = passes("filter", "").replacen("(module", r#"(module (import "env" "m" (memory 1))"#, 1);
    let error = engine().load("m", &wat::parse_str(memory).unwrap(), &tight()).err().unwrap().chain();
    assert!(error.starts_with("module 'm': is not a valid module: "), "two memories: {error}");
}

#[test]
fn what_the_host_adds_is_neither_to_be_taken_nor_seen() {
    let taken = passes("filter", r#"(func (export "millrace:start"))"#);
    assert_eq!(
        refused(&taken, &tight()),
        "module 'm': is not a valid module: it exports 'millrace:start', and names that begin with 'millrace:' are the \
         host's own"
    );
    let started = wat::parse_str(passes("filter", "(func $begin) (start $begin)")).unwrap();
    let info = engine().inspect("m", &started).unwrap();
    assert_eq!(info.exports, ["memory", "alloc", "filter"]);
    // The second memory is there once it is compiled, and still not the module's.
    let reaches = r#"(func (i32.store 1 (i32.const 0) (i32.const 0)))"#;
    assert!(refused(&passes("filter", reaches), &tight()).contains("is not a valid module: "));
}

#[test]
fn all_that_is_missing_is_said_at_once() {
    assert_eq!(
        refused("(module)", &tight()),
        "module 'm': is no SmartModule: it does not import copy_records, so it cannot answer; it does not export \
         memory; it does not export alloc; it exports no transform (filter, map, filter_map, array_map, aggregate)"
    );
    assert_eq!(
        refused(
            r#"(module (import "x" "copy_records" (func (param i64))) (memory i64 1) (export "memory" (memory 0))
               (func (export "alloc") (param i64) (result i32) (i32.const 0)) (global (export "map") i32 (i32.const 0)))"#,
            &tight()
        )
        .split(": ")
        .nth(1)
        .unwrap(),
        "is not a valid module",
        "memories of 64 bits are off"
    );
    let wrong = r#"(module (import "x" "copy_records" (func (param i64)))
      (func (export "memory")) (func (export "alloc") (param i64) (result i32) (i32.const 0))
      (func (export "init")) (global (export "map") i32 (i32.const 0)))"#;
    assert_eq!(
        refused(wrong, &tight()),
        "module 'm': is no SmartModule: its import copy_records is not (i32, i32); its export memory is not a plain \
         32-bit memory; its export alloc is not (i32) -> i32; its export map is not (i32, i32, i32) -> i32; its \
         export init is not (i32, i32, i32) -> i32"
    );
}

#[test]
fn options_a_module_has_no_use_for_are_mistakes() {
    let params = BTreeMap::from([("topic".to_owned(), "x".to_owned())]);
    let options = ModuleOptions { params, ..tight() };
    assert_eq!(refused(&passes("map", ""), &options), "module 'm': takes no parameters, but is given topic");
    let options = ModuleOptions { look_back: Some(LookBack { records_max: 1, age_max: None }), ..tight() };
    assert_eq!(refused(&passes("map", ""), &options), "module 'm': has no look_back to show records to");
    let options = ModuleOptions { limits: Limits { timeout_ms: 0, ..Limits::default() }, ..tight() };
    assert_eq!(refused(&passes("map", ""), &options), "module 'm': its limits cannot hold: a limit is 0");
}

#[test]
fn unknown_wasi_functions_load_and_answer_an_errno() {
    // Keeps a batch only if path_open answers 8 (bad descriptor) and clock_nothing 52 (not there).
    let wat = passes("filter", "")
        .replacen(
            "(module",
            r#"(module
               (import "wasi_snapshot_preview1" "path_open"
                 (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
               (import "wasi_snapshot_preview1" "clock_nothing" (func $nothing (result i32)))"#,
            1,
        )
        .replacen(
            "(call $pass",
            "(if (i32.ne (i32.const 852) (i32.add (i32.mul (i32.const 100) (call $open
               (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 0) (i64.const 0)
               (i32.const 0) (i32.const 0))) (call $nothing))) (then (unreachable)))
             (call $pass",
            1,
        );
    let factory = crate::support::load(&wat, &tight());
    assert_eq!(apply(&mut *open(&factory), batch(&["a"])).passed.len(), 1);
}

#[test]
fn a_compiled_module_is_read_back_from_the_cache() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("cache");
    let wasm = wat::parse_str(passes("filter", "")).unwrap();
    let run = || {
        let options = EngineOptions { cache_dir: Some(dir.clone()), ..EngineOptions::default() };
        let factory = SmartEngine::new(options).unwrap().load("m", &wasm, &tight()).unwrap();
        assert_eq!(apply(&mut *open(&factory), batch(&["a"])).passed.len(), 1);
        let file = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap();
        file.metadata().unwrap().modified().unwrap()
    };
    assert_eq!(run(), run(), "the second did not write it again");
}

#[test]
fn metered_code_is_kept_apart() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("cache");
    let options = EngineOptions { cache_dir: Some(dir.clone()), ..EngineOptions::default() };
    let engine = SmartEngine::new(options).unwrap();
    let wasm = wat::parse_str(passes("filter", "")).unwrap();
    for (fuel_max, files) in [(None, 1), (Some(1_000_000), 2), (None, 2), (Some(2_000_000), 2)] {
        let options = ModuleOptions { limits: Limits { fuel_max, ..tight().limits }, ..tight() };
        let factory = engine.load("m", &wasm, &options).unwrap();
        assert_eq!(apply(&mut *open(&factory), batch(&["a"])).passed.len(), 1);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), files);
    }
}

#[test]
fn a_step_says_what_it_has_used() {
    let grows = sinner("filter", "(memory.grow (i32.const 16)) (unreachable)");
    let factory = crate::support::load(&grows, &tight());
    let mut step = open(&factory);
    let opened = step.usage();
    assert_eq!((opened.memory_bytes, opened.recycles), (2 << 16, 0));
    assert_eq!(apply(&mut *step, batch(&["a", "b"])).passed.len(), 2);
    assert_eq!(step.usage().recycles, 0);
    assert_eq!(apply(&mut *step, batch(&["!"])).rejected.len(), 1);
    let used = step.usage();
    assert!(used.memory_bytes >= 18 << 16 && used.recycles >= 1, "{used:?}");
    assert_eq!(apply(&mut *step, batch(&["a"])).passed.len(), 1);
    assert_eq!(step.usage(), used, "the most stays the most");
}

#[test]
fn steps_outlive_engine_and_factory() {
    let mut step = {
        let factory = crate::support::load(&passes("filter", ""), &tight());
        factory.open(&StepContext { pipeline: "p".into(), partition: 3, lane: None }).unwrap()
    };
    assert_eq!(apply(&mut *step, batch(&["a", "b"])).passed.len(), 2);
}

#[test]
fn calls_without_a_version_are_of_an_older_abi() {
    let wat = r#"(module (import "env" "copy_records" (func (param i32 i32))) (memory (export "memory") 1)
        (func (export "alloc") (param i32) (result i32) (i32.const 0))
        (func (export "filter") (param i32 i32) (result i32) (i32.const 0)))"#;
    let error = refused(wat, &tight());
    assert!(error.contains("filter takes no version: it speaks an older ABI"), "{error}");
}

#[test]
fn a_module_is_measured_on_given_records() {
    let factory = crate::support::load(&passes("filter", ""), &tight());
    let seen = factory.measure(&batch(&["a", "b", "c"]), tokio::time::Duration::ZERO).unwrap();
    assert_eq!((seen.records, seen.passed, seen.rejected), (3, 3, 0));
    assert_eq!((seen.opened_bytes, seen.memory_bytes), (2 << 16, seen.memory_bytes.max(2 << 16)));
    assert!(seen.micros_per_record > 0.0);
    assert_eq!(factory.measure(&[], tokio::time::Duration::ZERO).unwrap().records, 0);
}
