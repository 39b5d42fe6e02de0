//! `millrace smartmodule test`: golden cases of one module. A case is `cases/<name>.input.ndjson`, a record a line, beside
//! it `<name>.expected.json` and, where the module takes parameters, `<name>.params.json`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use millrace_core::{StepContext, StepFactory};
use millrace_engine::{ModuleOptions, SmartEngine};
use serde_json::{Value, json};

use super::{author, lines};
use crate::{
    args::TestModuleArgs,
    commands::expectation::{Tally, judge},
    json_bytes, registry,
    report::Failure,
};

const INPUT: &str = ".input.ndjson";

pub fn run(args: &TestModuleArgs) -> Result<(), Failure> {
    let path = match &args.wasm {
        Some(path) => path.clone(),
        None => author::built(&args.folder)?,
    };
    if args.wasm.is_none() && !path.exists() {
        let advice = "compile it with 'millrace smartmodule build'";
        return Err(Failure::input(format!("{}: is not there yet; {advice}", path.display())));
    }
    let wasm = author::wasm(&path)?;
    let engine = registry::engine()?;
    let cases = find(&args.folder.join("cases"))?;
    let mut tally = Tally::new(cases.len(), args.json);
    for case in cases {
        let seen = observe(&engine, &path, &wasm, &case)?;
        tally.note(&case.name, judge(&case.file(".expected.json"), &seen, args.update)?)?;
    }
    tally.conclude()
}

/// A case on disk.
struct Case {
    name: String,
    folder: PathBuf,
}

impl Case {
    fn file(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}{suffix}", self.name))
    }

    fn params(&self) -> Result<BTreeMap<String, String>, Failure> {
        let path = self.file(".params.json");
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(Failure::input(format!("{}: {error}", path.display()))),
            Ok(text) => serde_json::from_str(&text).map_err(|error| {
                Failure::input(format!("{}: expected texts by name: {error}", path.display()))
            }),
        }
    }
}

fn find(folder: &Path) -> Result<Vec<Case>, Failure> {
    let wrong = |error: io::Error| Failure::input(format!("{}: {error}", folder.display()));
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let file = entry.map_err(wrong)?.file_name();
        if let Some(name) = file.to_string_lossy().strip_suffix(INPUT) {
            cases.push(Case { name: name.to_owned(), folder: folder.to_owned() });
        }
    }
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    if cases.is_empty() {
        return Err(Failure::input(format!("no cases in {}; a case is <name>{INPUT}", folder.display())));
    }
    Ok(cases)
}

/// Runs the case: what came out, of which line, and what was rejected.
fn observe(engine: &SmartEngine, path: &Path, wasm: &[u8], case: &Case) -> Result<Value, Failure> {
    let options = ModuleOptions { params: case.params()?, ..ModuleOptions::default() };
    let factory = engine.load(&path.display().to_string(), wasm, &options)?;
    let context = StepContext { pipeline: "test".into(), partition: 0, lane: None };
    let outcome = factory.open(&context)?.apply(lines::read(&case.file(INPUT))?)?;
    let passed = outcome.passed.iter().map(|message| {
        let mut line = json!({ "line": message.offset() + 1, "value": lines::value_json(&message.value) });
        if message.key.is_some() {
            line["key"] = json_bytes::to_json(message.key.as_ref());
        }
        line
    });
    let rejected = outcome
        .rejected
        .iter()
        .map(|rejected| json!({ "line": rejected.origin.record.offset + 1, "reason": rejected.error.why() }));
    Ok(json!({ "passed": passed.collect::<Vec<_>>(), "rejected": rejected.collect::<Vec<_>>() }))
}
