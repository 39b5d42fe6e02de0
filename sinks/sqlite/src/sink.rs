//! The sink that all views share: what differs between them is how they encode and what they do in a
//! transaction.

use std::sync::Arc;

use async_trait::async_trait;
use millrace_core::{Answer, Call, Encoded, Message, Op, Ordinals, Result, Sink};
use millrace_sqlite_file::Failure;
use serde_json::{Value, json};

use crate::{
    calls::{Calls, Parts},
    writer::{Tx, Writer},
};

/// How one view is written.
pub(crate) trait Writes: Send + Sync + 'static {
    /// The view's name in calls.
    fn kind(&self) -> &'static str;

    /// Encodes a batch in its order.
    fn encode(&self, messages: &[Message], ordinals: &mut Ordinals, calls: &mut Calls);

    /// Makes what the view needs beyond the tables every file has.
    fn prepare(&self, _tx: &Tx<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// What it would change.
    fn lacks(&self, _tx: &Tx<'_>) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }

    /// Does the operations of one call; the caller undoes them when it fails.
    fn apply(&self, tx: &Tx<'_>, ops: &[Op]) -> Result<(), Failure>;

    /// What an operation does, for people.
    fn describe(&self, op: Parts<'_>) -> Result<Value, Failure>;
}

/// Writes one view.
pub(crate) struct SqliteSink<W> {
    writer: Writer,
    writes: Arc<W>,
}

impl<W: Writes> SqliteSink<W> {
    pub(crate) fn new(writer: Writer, writes: W) -> Self {
        SqliteSink { writer, writes: Arc::new(writes) }
    }
}

#[async_trait]
impl<W: Writes> Sink for SqliteSink<W> {
    async fn prepare(&self) -> Result<()> {
        let writes = self.writes.clone();
        self.writer.run(move |tx| writes.prepare(tx)).await.map_err(|failure| self.writer.error(failure))
    }

    async fn lacks(&self) -> Result<Vec<String>> {
        let writes = self.writes.clone();
        self.writer.run(move |tx| writes.lacks(tx)).await.map_err(|failure| self.writer.error(failure))
    }

    fn encode(&self, messages: &[Message]) -> Encoded {
        self.encode_part(messages, &mut Ordinals::default())
    }

    fn encode_part(&self, messages: &[Message], ordinals: &mut Ordinals) -> Encoded {
        let mut calls = Calls::new(self.writes.kind());
        self.writes.encode(messages, ordinals, &mut calls);
        calls.done()
    }

    async fn send(&self, calls: &[Call]) -> Vec<Answer> {
        let count = calls.len();
        let (writes, calls) = (self.writes.clone(), calls.to_vec());
        let apply = move |tx: &Tx<'_>| {
            let results = calls.iter().map(|call| tx.attempt(|| writes.apply(tx, &call.ops)));
            Ok(results.collect::<Vec<_>>())
        };
        let results = match self.writer.run(apply).await {
            Ok(results) => results,
            Err(failure) => vec![Err(failure); count],
        };
        let answer = |result: Result<(), Failure>| match result {
            Ok(()) => Answer::Done,
            Err(failure) => Answer::Failed(self.writer.error(failure)),
        };
        results.into_iter().map(answer).collect()
    }

    fn describe(&self, call: &Call) -> Value {
        let describe = |op: &Op| {
            let parts = Parts::of(op);
            let verb = parts.text(0).unwrap_or_default();
            let what = self.writes.describe(parts).unwrap_or(Value::Null);
            json!({ format!("{}.{verb}", call.kind): what })
        };
        match call.ops.as_slice() {
            [only] => describe(only),
            ops => ops.iter().map(describe).collect(),
        }
    }
}
