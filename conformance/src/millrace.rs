//! Our host.

use std::sync::Arc;

use millrace_core::{Envelope, LookBack, Message, Origin, Record, Step, StepContext, StepFactory};
use millrace_engine::{EngineOptions, ModuleOptions, SmartEngine};

use crate::host::{Answer, Guest, Host, Input, Output, Usage, first_line};

/// See the module's documentation.
pub struct Millrace(SmartEngine);

struct Open(Box<dyn Step>);

impl Millrace {
    /// Starts the engine.
    pub fn start() -> Self {
        Millrace(SmartEngine::new(EngineOptions::default()).expect("the engine starts"))
    }
}

impl Host for Millrace {
    fn name(&self) -> &'static str {
        "millrace-engine"
    }

    fn open(&self, wasm: &[u8], usage: &Usage) -> Result<Box<dyn Guest>, String> {
        let look_back = usage.history.as_ref().map(|_| LookBack { records_max: 1_000, age_max: None });
        let options = ModuleOptions { params: usage.params.clone(), look_back, ..ModuleOptions::default() };
        let factory = self.0.load("module", wasm, &options).map_err(|error| error.chain())?;
        let context = StepContext { pipeline: "conformance".into(), partition: 0, lane: None };
        let mut step = factory.open(&context).map_err(|error| error.chain())?;
        if let Some(history) = &usage.history {
            step.prime(history.iter().map(message).collect()).map_err(|error| error.chain())?;
        }
        Ok(Box::new(Open(step)))
    }
}

impl Guest for Open {
    fn call(&mut self, batch: &[Input]) -> Result<Answer, String> {
        let outcome = self.0.apply(batch.iter().map(message).collect()).map_err(|error| error.chain())?;
        let error = outcome
            .rejected
            .first()
            .map(|rejected| (rejected.origin.record.offset, first_line(rejected.error.why())));
        // This host goes on after an error.
        let end = error.as_ref().map_or(i64::MAX, |(offset, _)| *offset);
        let outputs = outcome.passed.iter().filter(|message| message.offset() < end).map(|message| Output {
            offset: Some(message.offset()),
            key: message.key.as_deref().map(<[u8]>::to_vec),
            value: message.value.to_vec(),
        });
        Ok(Answer { outputs: outputs.collect(), error })
    }
}

/// A record as it comes from a source.
pub fn message(input: &Input) -> Message {
    let record = Record {
        topic: "t".into(),
        partition: 0,
        offset: input.offset,
        timestamp_ms: input.timestamp_ms,
        key: input.key.clone().map(Into::into),
        value: Some(input.value.clone().into()),
        headers: [].into(),
    };
    Message::first(Arc::new(Origin { record, envelope: Envelope::default() }))
}
