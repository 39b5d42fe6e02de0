//! Where results go: pure encoding apart from effectful sending.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    identity::Ordinals,
    message::Message,
    transaction::Transactor,
};

/// The part of a call that one message asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The message's place in the encoded batch.
    pub message: u32,
    /// In the order of the system's protocol: a script's keys and arguments, a bulk action and its source.
    pub parts: Vec<Bytes>,
}

/// One call to the system: it succeeds or fails as a whole. Holds at least one op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What the system is asked to do; the sink's own vocabulary.
    pub kind: &'static str,
    /// For which messages, in order.
    pub ops: Vec<Op>,
}

impl Call {
    /// A call for a single message.
    pub fn single(kind: &'static str, message: u32, parts: Vec<Bytes>) -> Self {
        Call { kind, ops: vec![Op { message, parts }] }
    }

    /// The same work as one call per op: how the runtime finds the message that a rejected call failed for.
    pub fn split(&self) -> impl Iterator<Item = Call> + '_ {
        self.ops.iter().map(|op| Call { kind: self.kind, ops: vec![op.clone()] })
    }

    /// Bytes of all parts.
    pub fn size_bytes(&self) -> usize {
        self.ops.iter().flat_map(|op| &op.parts).map(Bytes::len).sum()
    }
}

/// The calls for a batch, in the order they are to be sent. A message in neither list needs no call.
#[derive(Debug, Default)]
pub struct Encoded {
    /// To be sent in order.
    pub calls: Vec<Call>,
    /// Messages that cannot be encoded, by their place in the batch; errors of class Reject.
    pub rejected: Vec<(u32, Error)>,
}

/// What became of a call.
#[derive(Debug)]
pub enum Answer {
    /// The effect is durable, or was there already.
    Done,
    /// Not done, by the class of the error. A rejected call with several ops is sent again op by op.
    Failed(Error),
}

/// Writes to one system. Shared by the workers of a pipeline: `encode` and `send` run concurrently.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Makes the system ready for the first record: indexes, mappings, scripts. Called before the first
    /// `send` and again after a restart; idempotent, cancel-safe.
    ///
    /// # Errors
    /// Retry when the system is away, Fatal when it refuses.
    async fn prepare(&self) -> Result<()>;

    /// What [`Sink::prepare`] would change in the system now, a line each, in a fixed order. Changes nothing.
    ///
    /// # Errors
    /// As [`Sink::prepare`].
    async fn lacks(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Which calls these messages ask for. Pure: equal input gives equal calls, whatever the system holds.
    fn encode(&self, messages: &[Message]) -> Encoded;

    /// As [`Sink::encode`], where the messages' records may have more outputs in other parts of the same batch: a
    /// sink that tells effects apart by an identity counts them through `ordinals`. Pure as well: `ordinals` is
    /// part of the input.
    fn encode_part(&self, messages: &[Message], ordinals: &mut Ordinals) -> Encoded {
        let _ = ordinals;
        self.encode(messages)
    }

    /// Sends calls in order, pipelined, and answers for each. Every effect must be harmless when it is
    /// repeated, or sent late by a former owner. Cancelled only at shutdown; what was in flight then is
    /// repeated after the restart.
    async fn send(&self, calls: &[Call]) -> Vec<Answer>;

    /// The same sink, appending within a worker's transaction; none for a sink that does not append to the log
    /// its pipeline reads.
    fn within(&self, _transactor: &Arc<dyn Transactor>) -> Option<Arc<dyn Sink>> {
        None
    }

    /// The most calls handed to one `send`: for a sink that makes them one by one, so that a `send` ends within its
    /// time-out.
    fn calls_max(&self) -> usize {
        usize::MAX
    }

    /// A call as `millrace test` prints it: what the system would see.
    fn describe(&self, call: &Call) -> Value {
        let ops: Vec<Value> = call
            .ops
            .iter()
            .map(|op| {
                op.parts.iter().map(|part| Value::from(String::from_utf8_lossy(part).into_owned())).collect()
            })
            .collect();
        json!({ call.kind: ops })
    }
}
