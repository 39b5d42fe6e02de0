//! Cases as data: the kit's own, and the golden cases of the shipped modules.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use crate::host::{Input, Usage};

/// The offset and the time of a case's first record; the history lies before it.
const FIRST_OFFSET: i64 = 100;
const FIRST_TIMESTAMP_MS: i64 = 1_000;

/// A module, its builds, and what it is held to.
pub struct Subject {
    /// The module.
    pub name: String,
    /// Its files, below `smartmodules/dist`.
    pub builds: Vec<PathBuf>,
    /// What has to hold for each build in each host.
    pub cases: Vec<Case>,
}

/// Batches in, answers out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    #[serde(default)]
    params: BTreeMap<String, String>,
    history: Option<Vec<Record>>,
    #[serde(default)]
    batches: Vec<Vec<Record>>,
    /// For each batch. A case whose module keeps state may have an error in its last batch only.
    #[serde(default)]
    pub answers: Vec<Expected>,
    /// Words about why the module is not opened.
    pub refused: Option<String>,
}

/// What has to become of a batch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The outputs up to the first error.
    pub records: Vec<Record>,
    /// The first record that is refused.
    pub error: Option<ExpectedError>,
}

/// The author's words about a record.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedError {
    /// Its index in the batch; none when it is the parameters.
    pub record: Option<usize>,
    /// Part of the first line.
    pub hint: String,
}

/// A record of a case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    #[serde(default)]
    key: Option<String>,
    value: Value,
    /// Of an output: the index in the batch of the record it was made of.
    pub of: Option<usize>,
}

/// A case as it lies beside the source of a shipped module.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    #[serde(rename = "kind")]
    _kind: String,
    params: BTreeMap<String, String>,
    records: Vec<Record>,
    expect: Expected,
}

/// The kit's modules and cases.
///
/// # Panics
/// When a file is not what it should be.
pub fn kit() -> Vec<Subject> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let subjects = files(&folder).into_iter().map(|path| {
        let name = stem(&path);
        let builds = ["fluvio", "lean"]
            .map(|sdk| dist().join(format!("testing/kit-{}-{sdk}.wasm", name.replace('_', "-"))));
        Subject { builds: builds.into(), cases: parsed(&path), name }
    });
    subjects.collect()
}

/// The shipped modules and their golden cases.
///
/// # Panics
/// When a file is not what it should be.
pub fn shipped() -> Vec<Subject> {
    let mut subjects = Vec::new();
    for folder in files(&dist().join("..")).into_iter().filter(|folder| folder.join("cases").is_dir()) {
        let name = stem(&folder);
        let builds = [
            dist().join(format!("{name}.wasm")),
            dist().join(format!("testing/{name}-fluvio.wasm")),
            dist().join(format!("testing/{name}-lean.wasm")),
        ];
        let cases = files(&folder.join("cases")).into_iter().map(|path| {
            let golden: Golden = parsed(&path);
            let Golden { params, records, expect, .. } = golden;
            let (refused, answers) = match expect.error {
                Some(ExpectedError { record: None, hint }) => (Some(hint), Vec::new()),
                error => (None, vec![Expected { error, ..expect }]),
            };
            let batches = if refused.is_some() { Vec::new() } else { vec![records] };
            Case { name: stem(&path), params, history: None, batches, answers, refused }
        });
        let cases = cases.collect();
        subjects.push(Subject {
            builds: builds.into_iter().filter(|path| path.exists()).collect(),
            cases,
            name,
        });
    }
    subjects
}

impl Case {
    /// How the module is used.
    pub fn usage(&self) -> Usage {
        let history = self.history.as_ref().map(|records| inputs(records, 0));
        Usage { params: self.params.clone(), history }
    }

    /// The records by batch, with offsets and times that go on from batch to batch.
    pub fn batches(&self) -> Vec<Vec<Input>> {
        let mut next = FIRST_OFFSET;
        let batches = self.batches.iter().map(|records| {
            let batch = inputs(records, next);
            // A gap, as a compacted topic has them.
            next += i64::try_from(batch.len()).expect("invariant: a length fits") + 3;
            batch
        });
        batches.collect()
    }
}

impl Record {
    /// The key.
    pub fn key(&self) -> Option<Vec<u8>> {
        self.key.clone().map(String::into_bytes)
    }

    /// Whether two values are the same: bytes where this one is text, JSON otherwise.
    pub fn has_value(&self, value: &[u8]) -> bool {
        match &self.value {
            Value::String(_) => self.bytes() == value,
            Value::Object(fields) if fields.contains_key("$repeat") => self.bytes() == value,
            json => serde_json::from_slice::<Value>(value).is_ok_and(|value| value == *json),
        }
    }

    /// A text is its bytes, `{"$repeat": [TEXT, TIMES]}` that text so many times, anything else its JSON.
    fn bytes(&self) -> Vec<u8> {
        match &self.value {
            Value::String(text) => text.clone().into_bytes(),
            json => match json.get("$repeat").map(|repeat| (repeat[0].as_str(), repeat[1].as_u64())) {
                Some((Some(text), Some(times))) => {
                    text.repeat(usize::try_from(times).expect("a number of times")).into()
                }
                _ => serde_json::to_vec(json).expect("invariant: JSON is written to memory"),
            },
        }
    }
}

fn inputs(records: &[Record], first_offset: i64) -> Vec<Input> {
    let inputs = (0_i64..).zip(records).map(|(index, record)| Input {
        offset: first_offset + index,
        timestamp_ms: FIRST_TIMESTAMP_MS + (first_offset + index) * 10,
        key: record.key(),
        value: record.bytes(),
    });
    inputs.collect()
}

/// Where the built modules are.
pub fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../smartmodules/dist")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn parsed<T: for<'de> Deserialize<'de>>(path: &Path) -> T {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
