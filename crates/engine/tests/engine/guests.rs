//! Modules built by `fluvio-smartmodule` alone: the shipped ones by their cases, those made for these tests by hand.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use millrace_core::{Class, LookBack, Message};
use millrace_engine::{ModuleFactory, ModuleOptions};
use serde::Deserialize;
use serde_json::Value;

use crate::support::{apply, batch, engine, message, open};

/// `smartmodules/<name>/cases/*.json`: records in, records out, up to the first error as Fluvio has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    kind: String,
    params: BTreeMap<String, String>,
    records: Vec<KeyValue>,
    expect: Expected,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct KeyValue {
    key: Option<String>,
    /// A string is the bytes of the value; anything else their JSON.
    value: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    records: Vec<KeyValue>,
    error: Option<ExpectedError>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedError {
    /// The record at fault; none when `init` refuses the parameters.
    record: Option<usize>,
    hint: String,
}

fn smartmodules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../smartmodules")
}

fn load(file: &str, options: &ModuleOptions) -> ModuleFactory {
    let wasm = fs::read(smartmodules().join("dist").join(file)).unwrap();
    engine().load("m", &wasm, options).unwrap_or_else(|error| panic!("{}", error.chain()))
}

fn bytes_of(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        json => serde_json::to_vec(json).unwrap(),
    }
}

/// An output in the form of the case: JSON where it is expected to be.
fn shown(message: &Message, like: Option<&KeyValue>) -> KeyValue {
    let text = || Value::String(String::from_utf8(message.value.to_vec()).unwrap());
    let as_text = like.is_some_and(|like| like.value.is_string());
    let value = if as_text { text() } else { message.json().cloned().unwrap_or_else(|_| text()) };
    let key = message.key.as_ref().map(|key| String::from_utf8(key.to_vec()).unwrap());
    KeyValue { key, value }
}

fn check(case: &Case, wasm: &[u8], what: &str) {
    let options = ModuleOptions { params: case.params.clone(), ..ModuleOptions::default() };
    let factory = match (engine().load("m", wasm, &options), &case.expect.error) {
        (Ok(factory), _) => factory,
        (Err(error), Some(ExpectedError { record: None, hint })) => {
            assert!(error.chain().contains(hint), "{what}: {}", error.chain());
            return;
        }
        (Err(error), _) => panic!("{what}: {}", error.chain()),
    };
    assert_eq!(factory.info().kind.name(), case.kind, "{what}");
    let input = (0..).zip(&case.records);
    let input =
        input.map(|(n, record)| message(n, 1_000 + n, record.key.as_deref(), &bytes_of(&record.value)));
    let outcome = open(&factory).apply(input.collect()).unwrap();
    let mut until = i64::MAX;
    if let Some(error) = &case.expect.error {
        let rejected = outcome.rejected.first().unwrap_or_else(|| panic!("{what}: nothing is rejected"));
        until = rejected.origin.record.offset;
        assert_eq!(error.record.map(i64::try_from), Some(Ok(until)), "{what}");
        assert!(rejected.error.why().contains(&error.hint), "{what}: {}", rejected.error.why());
    } else {
        assert!(outcome.rejected.is_empty(), "{what}: {}", outcome.rejected[0].error);
    }
    // Fluvio ends a batch at its first error; this host goes on after it.
    let passed: Vec<_> = outcome.passed.iter().filter(|message| message.offset() < until).collect();
    let passed: Vec<_> =
        passed.iter().enumerate().map(|(n, message)| shown(message, case.expect.records.get(n))).collect();
    assert_eq!(passed, case.expect.records, "{what}");
}

#[test]
fn shipped_modules_pass_their_cases() {
    let mut cases = 0;
    for module in fs::read_dir(smartmodules()).unwrap() {
        let module = module.unwrap().path();
        let Ok(files) = fs::read_dir(module.join("cases")) else { continue };
        let name = module.file_name().unwrap().to_str().unwrap();
        let builds: Vec<_> = [
            format!("{name}.wasm"),
            format!("testing/{name}-fluvio.wasm"),
            format!("testing/{name}-lean.wasm"),
        ]
        .into_iter()
        .filter_map(|file| Some((fs::read(smartmodules().join("dist").join(&file)).ok()?, file)))
        .collect();
        assert_eq!(builds.len(), 2, "{name}: one build with either SDK");
        for file in files {
            let path = file.unwrap().path();
            for (wasm, build) in &builds {
                let what = format!("{build}, {}", path.file_name().unwrap().to_str().unwrap());
                let case: Case = serde_json::from_slice(&fs::read(&path).unwrap())
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                check(&case, wasm, &what);
                cases += 1;
            }
        }
    }
    assert!(cases >= 60, "only {cases} cases were found");
}

#[test]
fn a_plain_fluvio_filter_runs_on_either_target() {
    for file in ["testing/plain-filter.wasm", "testing/plain-filter-wasip1.wasm"] {
        let mut step = open(&load(file, &ModuleOptions::default()));
        let mut input = batch(&["abc", "xyz", "?", "bar"]);
        input[2] = message(102, 1_000, Some("k"), b"\xff\xfe");
        let result = apply(&mut *step, input);
        assert_eq!(result.passed, [(100, "abc".to_owned()), (103, "bar".to_owned())], "{file}");
        let [(102, why)] = &result.rejected[..] else { panic!("{file}: {result:?}") };
        assert_eq!(why, "invalid utf-8 sequence of 1 bytes from index 0", "{file}");
    }
}

#[test]
fn wasi_gives_time_randomness_and_output_and_nothing_else() {
    let mut step = open(&load("testing/wasi-filter-wasip1.wasm", &ModuleOptions::default()));
    let result =
        apply(&mut *step, batch(&["clock", "random", "stdout", "stderr", "file", "environment", "else"]));
    let passed: Vec<_> = result.passed.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(passed, ["clock", "random", "stdout", "stderr"]);
    assert_eq!(result.rejected, [(106, "not a request".to_owned())]);
}

fn dedup(count: u32) -> ModuleOptions {
    ModuleOptions {
        params: BTreeMap::from([("count".to_owned(), count.to_string())]),
        look_back: Some(LookBack { records_max: count, age_max: None }),
        ..ModuleOptions::default()
    }
}

#[test]
fn parameters_are_proven_at_load() {
    let wasm = fs::read(smartmodules().join("dist/testing/look-back-dedup.wasm")).unwrap();
    let refused = |params: &[(&str, &str)]| {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let options = ModuleOptions { params, ..ModuleOptions::default() };
        let error = engine().load("dedup", &wasm, &options).err().unwrap();
        assert_eq!(error.class(), Class::Fatal);
        error.chain()
    };
    let error = refused(&[]);
    assert!(error.starts_with("module 'dedup': init refused its parameters: "), "{error}");
    assert!(error.contains("count"), "{error}");
    assert_eq!(
        refused(&[("count", "0")]),
        "module 'dedup': init refused its parameters: parameter `count` is not an integer from 1 to 100000"
    );
}

#[test]
fn look_back_fills_the_state_of_a_module() {
    let mut step = open(&load("testing/look-back-dedup.wasm", &dedup(10)));
    // One record that look_back refuses: it is left out, the others are remembered.
    step.prime(batch(&["a", "refuse", "b"])).unwrap();
    let result = apply(&mut *step, batch(&["b", "c", "a", "d", "d"]));
    assert_eq!(result.passed, [(101, "c".to_owned()), (103, "d".to_owned())]);
}

#[test]
fn the_state_of_a_module_outlives_its_instances() {
    let mut step = open(&load("testing/look-back-dedup.wasm", &dedup(100)));
    step.prime(Vec::new()).unwrap();
    let padding = "x".repeat(2_000);
    let value = |n: i64| format!("{n}-{padding}");
    // 60 MB of output that the guest leaks, twice what makes the host replace it. Each batch begins with the last
    // record of the one before, which only an instance that was shown the history knows.
    for round in 0..60_i64 {
        let first = round * 500;
        let records = (first..=first + 500).map(|n| message(n, 1_000, None, value(n).as_bytes())).collect();
        let outcome = step.apply(records).unwrap();
        let expected = if round == 0 { 501 } else { 500 };
        assert_eq!((outcome.passed.len(), outcome.rejected.len()), (expected, 0), "round {round}");
    }
}
