//! A pipeline without its log: the records given go through all stages, nothing is committed or buried.

use std::sync::Arc;

use millrace_core::{Error, Lease, Record, Result};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    dead_letter::{DeadLetter, Place},
    decode::Decoded,
    flow::{Context, Flow, Halt},
    health::Health,
    metrics::Metrics,
    pipeline::Pipeline,
};

/// What came of the records, apart from what the sinks were sent.
#[derive(Debug, Default)]
pub struct Rehearsal {
    /// Records of event types that the pipeline does not list.
    pub skipped: u64,
    /// What would have become dead letters, by offset.
    pub rejected: Vec<DeadLetter>,
}

/// Runs records of one partition through a pipeline as one batch. Its broker is not used.
///
/// # Errors
/// Fatal when a step, a lookup or a sink cannot work at all.
pub async fn rehearse(pipeline: Arc<Pipeline>, records: Vec<Record>) -> Result<Rehearsal> {
    let context = Context {
        pipeline: pipeline.clone(),
        metrics: Metrics::new(),
        health: Health::default(),
        clock: Clock::fixed(0),
        lease: Arc::new(Lease::unbounded()),
        drain: CancellationToken::new(),
        partition: 0,
    };
    let mut flow = Flow::open(context)?;
    let mut rehearsal = Rehearsal::default();
    let mut messages = Vec::with_capacity(records.len());
    for record in records {
        match pipeline.decode.decode(record) {
            Decoded::Message(message) => messages.push(message),
            Decoded::Skipped => rehearsal.skipped += 1,
            Decoded::Rejected(origin, error) => flow.reject(origin, Place::Decode, &error, None),
        }
    }
    match flow.run(0, messages).await {
        Ok(()) => {}
        Err(Halt::Fatal(error)) => return Err(error),
        Err(Halt::Stopped) => return Err(Error::fatal("rehearsal", "was stopped")),
    }
    rehearsal.rejected = flow.take_failures();
    Ok(rehearsal)
}
