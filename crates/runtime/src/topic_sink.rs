//! The sink that writes to a topic of any broker.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use millrace_core::{
    Answer, Call, Encoded, Header, Message, NewRecord, Producer, Result, Sink, Template, Transactor,
};
use serde_json::{Value, json};

use crate::appender::Appender;

/// Appends each message's value under its key, with the headers of the record it came from.
#[derive(Clone)]
pub struct TopicSink {
    topic: String,
    key: Option<Template>,
    appender: Appender,
    joins: bool,
}

const APPEND: &str = "append";

/// The first part of an op is the offset of the source's record, the second whether the third is a key.
const WITH_KEY: Bytes = Bytes::from_static(b"key");
const WITHOUT_KEY: Bytes = Bytes::from_static(b"");

impl TopicSink {
    /// Writes to `topic`; without a key template the message's own key is kept.
    pub fn new(topic: String, key: Option<Template>, producer: Arc<dyn Producer>) -> Self {
        TopicSink { topic, key, appender: Appender::Log(producer), joins: false }
    }

    /// Its topic lies on the broker that its pipeline reads, so that what it appends can be part of the worker's
    /// transaction.
    #[must_use]
    pub fn joining(mut self) -> Self {
        self.joins = true;
        self
    }
}

#[async_trait]
impl Sink for TopicSink {
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    fn encode(&self, messages: &[Message]) -> Encoded {
        let mut encoded = Encoded::default();
        for (index, message) in (0u32..).zip(messages) {
            let key = match &self.key {
                None => Ok(message.key.clone()),
                Some(template) => template.render_id(message).map(|key| Some(key.into())),
            };
            match key {
                Err(error) => encoded.rejected.push((index, error)),
                Ok(key) => {
                    let mark = if key.is_some() { WITH_KEY } else { WITHOUT_KEY };
                    let source_offset = Bytes::copy_from_slice(&message.offset().to_be_bytes());
                    let mut parts = vec![source_offset, mark, key.unwrap_or_default(), message.value.clone()];
                    for header in message.origin.record.headers.iter().filter(|h| h.value.is_some()) {
                        parts.push(Bytes::copy_from_slice(header.name.as_bytes()));
                        parts.push(header.value.clone().unwrap_or_default());
                    }
                    encoded.calls.push(Call::single(APPEND, index, parts));
                }
            }
        }
        encoded
    }

    async fn send(&self, calls: &[Call]) -> Vec<Answer> {
        let records = calls.iter().flat_map(|call| &call.ops).map(|op| record(&op.parts)).collect();
        let answers = self.appender.append(&self.topic, records).await;
        answers.into_iter().map(|answer| answer.map_or_else(Answer::Failed, |()| Answer::Done)).collect()
    }

    fn within(&self, transactor: &Arc<dyn Transactor>) -> Option<Arc<dyn Sink>> {
        let appender = Appender::Transaction(transactor.clone());
        self.joins.then(|| Arc::new(TopicSink { appender, ..self.clone() }) as Arc<dyn Sink>)
    }

    fn describe(&self, call: &Call) -> Value {
        let record = call.ops.first().map(|op| record(&op.parts)).unwrap_or_default();
        let text = |bytes: &Option<Bytes>| bytes.as_ref().map(|b| String::from_utf8_lossy(b).into_owned());
        json!({ "append": self.topic, "key": text(&record.key), "value": text(&record.value) })
    }
}

fn record(parts: &[Bytes]) -> NewRecord {
    let part = |index: usize| parts.get(index).cloned().unwrap_or_default();
    let headers = parts.get(4..).unwrap_or_default().chunks_exact(2);
    NewRecord {
        key: (part(1) == WITH_KEY).then(|| part(2)),
        value: Some(part(3)),
        headers: headers
            .map(|pair| Header {
                name: String::from_utf8_lossy(&pair[0]).into(),
                value: Some(pair[1].clone()),
            })
            .collect(),
        source_offset: part(0).as_ref().try_into().ok().map(i64::from_be_bytes),
        ..NewRecord::default()
    }
}
