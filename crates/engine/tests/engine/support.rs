//! Records in, outcome out, in a form that is easy to compare.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::{Arc, LazyLock};

use millrace_core::{Class, Envelope, Message, Origin, Outcome, Record, Step, StepContext, StepFactory};
use millrace_engine::{EngineOptions, Limits, ModuleFactory, ModuleOptions, SmartEngine};

/// The offset of the first record of [`batch`].
pub const FIRST_OFFSET: i64 = 100;

/// What became of a batch: the values passed with their source offsets, and the errors with theirs.
#[derive(Debug, PartialEq, Eq)]
pub struct Result {
    pub passed: Vec<(i64, String)>,
    pub rejected: Vec<(i64, String)>,
}

/// One for all tests, as in a process: a module that several use is compiled once.
pub fn engine() -> &'static SmartEngine {
    static ENGINE: LazyLock<SmartEngine> =
        LazyLock::new(|| SmartEngine::new(EngineOptions::default()).unwrap());
    &ENGINE
}

/// Limits under which tests of failures are quick.
pub fn tight() -> ModuleOptions {
    let limits =
        Limits { timeout_ms: 100, memory_bytes_max: 8 << 20, output_bytes_max: 1 << 20, ..Limits::default() };
    ModuleOptions { limits, ..ModuleOptions::default() }
}

pub fn load(wat: &str, options: &ModuleOptions) -> ModuleFactory {
    engine()
        .load("m", &wat::parse_str(wat).unwrap(), options)
        .unwrap_or_else(|error| panic!("{}", error.chain()))
}

pub fn open(factory: &ModuleFactory) -> Box<dyn Step> {
    factory.open(&StepContext { pipeline: "p".into(), partition: 0, lane: None }).unwrap()
}

pub fn message(offset: i64, timestamp_ms: i64, key: Option<&str>, value: &[u8]) -> Message {
    let record = Record {
        topic: "t".into(),
        partition: 0,
        offset,
        timestamp_ms,
        key: key.map(|key| key.to_owned().into()),
        value: Some(value.to_vec().into()),
        headers: [].into(),
    };
    Message::first(Arc::new(Origin { record, envelope: Envelope::default() }))
}

/// Records with these values and no key, from [`FIRST_OFFSET`] on.
pub fn batch(values: &[&str]) -> Vec<Message> {
    let offsets = FIRST_OFFSET..;
    values.iter().zip(offsets).map(|(value, offset)| message(offset, 1_000, None, value.as_bytes())).collect()
}

pub fn read(outcome: &Outcome) -> Result {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for rejected in &outcome.rejected {
        assert_eq!(rejected.error.class(), Class::Reject);
        assert_eq!(rejected.error.who(), "module 'm'");
    }
    Result {
        passed: outcome.passed.iter().map(|message| (message.offset(), text(&message.value))).collect(),
        rejected: outcome
            .rejected
            .iter()
            .map(|rejected| (rejected.origin.record.offset, rejected.error.why().to_owned()))
            .collect(),
    }
}

pub fn apply(step: &mut dyn Step, messages: Vec<Message>) -> Result {
    read(&step.apply(messages).unwrap_or_else(|error| panic!("{}", error.chain())))
}

/// One batch through a module of text.
pub fn run(wat: &str, options: &ModuleOptions, values: &[&str]) -> Result {
    apply(&mut *open(&load(wat, options)), batch(values))
}

/// The error of a module that must not load.
pub fn refused(wat: &str, options: &ModuleOptions) -> String {
    let error = engine().load("m", &wat::parse_str(wat).unwrap(), options).err().expect("the module loads");
    assert_eq!(error.class(), Class::Fatal);
    error.chain()
}
