//! Modules of others in a pipeline: one built with `fluvio-smartmodule` alone runs, and one that misbehaves hurts
//! only the records it misbehaves on.

use crate::support::millrace::Millrace;

/// Loops on `loop`, traps on `trap`, eats memory on `eats`, answers a bad pointer on `liar`; keeps the rest. It looks at
/// the first byte of a record's value only.
const MISBEHAVES: &str = r#"(module
  (import "env" "copy_records" (func $copy (param i32 i32)))
  (memory (export "memory") 17)
  (func (export "alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "dealloc") (param i32 i32))
  (func (export "filter") (param $at i32) (param $len i32) (param i32) (result i32)
    (local $count i32) (local $first i32)
    ;; The input: base offset (8), length of the records (4), their count (4), then the records.
    (local.set $count (i32.load8_u offset=15 (local.get $at)))
    ;; One record without a key: length, attributes, timestamp, offset, no key, length of the value, value.
    (local.set $first (i32.load8_u offset=22 (local.get $at)))
    (if (i32.eq (local.get $count) (i32.const 1)) (then
      (if (i32.eq (local.get $first) (i32.const 108)) (then (loop $ever (br $ever))))
      (if (i32.eq (local.get $first) (i32.const 116)) (then (unreachable)))
      (if (i32.eq (local.get $first) (i32.const 101)) (then (loop $more (drop (memory.grow (i32.const 64))) (br $more))))
      (if (i32.eq (local.get $first) (i32.const 112)) (then (call $copy (i32.const -16) (i32.const 2147483647)) (return (i32.const 1))))
      ;; The answer: the same records, no error.
      (memory.copy (i32.const 524288) (i32.add (local.get $at) (i32.const 12)) (i32.load8_u offset=11 (local.get $at)))
      (i32.store8 (i32.add (i32.const 524288) (i32.load8_u offset=11 (local.get $at))) (i32.const 0))
      (call $copy (i32.const 524288) (i32.add (i32.load8_u offset=11 (local.get $at)) (i32.const 1)))
      (return (i32.const 1))))
    (unreachable)))"#;

fn pipelines(module: &str, limits: &str) -> String {
    format!(
        r"version: 1
brokers: {{ main: {{ embedded: {{ dir: data }} }} }}
smartmodules: {{ under-test: {{ file: {module} }} }}
topics: {{ lines: {{ broker: main, partitions: 1 }} }}
pipelines:
  through:
    from: {{ topic: lines, format: bytes }}
    steps: [ {{ id: step, uses: under-test{limits} }} ]
    to: {{ out: {{ stdout: {{}} }} }}
"
    )
}

fn run(millrace: &Millrace, lines: &str) -> Vec<String> {
    millrace.write("lines.ndjson", lines);
    millrace.ok(&["topic", "create", "--all"]);
    millrace.ok(&["topic", "produce", "lines", "--file", "lines.ndjson"]);
    millrace.ok(&["run", "--until-end", "--listen", "off"]).stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_module_of_fluvio_alone_runs() {
    let millrace = Millrace::new();
    let wasm = include_bytes!("../smartmodules/dist/testing/plain-filter.wasm");
    millrace.write("plain.wasm", wasm);
    millrace.write("pipelines.yaml", pipelines("plain.wasm", ""));
    let kept = run(&millrace, "an apple\nthe rest\nbanana\n");
    assert_eq!(kept, ["an apple", "banana"]);
}

#[test]
fn a_module_that_misbehaves_hurts_its_own_records_only() {
    let millrace = Millrace::new();
    millrace.write("evil.wasm", wat::parse_str(MISBEHAVES).unwrap());
    millrace.write("pipelines.yaml", pipelines("evil.wasm", ", limits: { timeout: 50ms, memory: 4MiB }"));
    let kept = run(&millrace, "good 1\nloop\ngood 2\ntrap\ngood 3\neats\ngood 4\npointer\ngood 5\n");
    assert_eq!(kept, ["good 1", "good 2", "good 3", "good 4", "good 5"]);
    let tail = ["topic", "tail", "lines.dlq", "--from", "beginning", "--until-end", "--json"];
    let letters = millrace.ok(&tail).stdout;
    let reasons: Vec<(String, String)> = letters
        .lines()
        .map(|line| {
            let letter: serde_json::Value = serde_json::from_str(line).unwrap();
            let reason = letter["headers"]["millrace-reason"].as_str().unwrap().to_owned();
            (letter["value"].as_str().unwrap().to_owned(), reason)
        })
        .collect();
    let expected = [("loop", "50 ms"), ("trap", "trap"), ("eats", "memory"), ("pointer", "")];
    assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
    for ((value, reason), (line, part)) in reasons.iter().zip(expected) {
        assert!(value == line && reason.contains("under-test") && reason.contains(part), "{reasons:?}");
    }
}
