//! The sink `index`: prepares its index, and writes to it in one of two modes.

use std::sync::Arc;

use async_trait::async_trait;
use millrace_core::{
    Answer, Call, Encoded, Error, Message, Result, Sink,
    views::{Index, IndexFields, IndexMode},
};
use serde_json::Value;

use crate::{
    bulk::{Bulk, Written},
    client::Client,
    encode::{self, Work},
    mapping,
    merge::merge,
    prepare::Preparation,
    replace::replace,
};

/// Writes one index.
pub(crate) struct IndexSink {
    client: Arc<Client>,
    who: String,
    index: Index,
    fields: IndexFields,
    bulk_bytes_max: usize,
}

impl IndexSink {
    /// A sink for an index; connects to nothing.
    ///
    /// # Errors
    /// Fatal when a name cannot be served.
    pub(crate) fn new(
        client: Arc<Client>,
        index: Index,
        fields: IndexFields,
        bulk_bytes_max: usize,
    ) -> Result<Self> {
        let who = format!("{}, index {}", client.who(), index.name);
        mapping::check_names(&who, &index.name, &fields)?;
        Ok(IndexSink { client, who, index, fields, bulk_bytes_max })
    }

    fn preparation(&self) -> Preparation<'_> {
        Preparation {
            client: &self.client,
            who: &self.who,
            alias: &self.index.name,
            fields: &self.fields,
            mode: self.index.mode,
        }
    }

    async fn write(&self, works: &[Work<'_>]) -> Vec<Written> {
        let bulk = Bulk {
            client: &self.client,
            who: &self.who,
            alias: &self.index.name,
            bytes_max: self.bulk_bytes_max,
        };
        match self.index.mode {
            IndexMode::Replace => replace(&bulk, works).await,
            IndexMode::Merge => merge(&bulk, works).await,
        }
    }
}

#[async_trait]
impl Sink for IndexSink {
    async fn prepare(&self) -> Result<()> {
        self.preparation().run().await
    }

    async fn lacks(&self) -> Result<Vec<String>> {
        self.preparation().lacks().await
    }

    fn encode(&self, messages: &[Message]) -> Encoded {
        encode::encode(&self.index, messages)
    }

    async fn send(&self, calls: &[Call]) -> Vec<Answer> {
        let mut answers: Vec<Answer> = calls.iter().map(|_| Answer::Done).collect();
        let (mut works, mut call_of) = (Vec::with_capacity(calls.len()), Vec::with_capacity(calls.len()));
        for (place, op) in
            calls.iter().enumerate().flat_map(|(n, call)| call.ops.iter().map(move |op| (n, op)))
        {
            match Work::of(op) {
                Ok(work) => {
                    works.push(work);
                    call_of.push(place);
                }
                Err(error) => fail(&mut answers[place], error),
            }
        }
        for (place, written) in call_of.into_iter().zip(self.write(&works).await) {
            match written {
                Written::Yes => {}
                Written::Conflict => {
                    fail(&mut answers[place], Error::retry(&self.who, "others changed the document"));
                }
                Written::Failed(error) => fail(&mut answers[place], error),
            }
        }
        answers
    }

    fn describe(&self, call: &Call) -> Value {
        encode::describe(&self.index, call)
    }
}

/// A call fails with the first failure of its ops.
fn fail(answer: &mut Answer, error: Error) {
    if matches!(answer, Answer::Done) {
        *answer = Answer::Failed(error);
    }
}

#[cfg(test)]
mod tests;
