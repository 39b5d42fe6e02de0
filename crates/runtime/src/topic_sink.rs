//! The sink that writes to a topic of any broker.

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use millrace_core::{
    Answer, Call, Class, Encoded, Error, Header, Message, NewRecord, Producer, Result, Sink, Template,
    Transactor,
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
        let answers = answers.into_iter().map(|answer| answer.map_or_else(Answer::Failed, |()| Answer::Done));
        match self.appender {
            Appender::Log(_) => self.in_order(calls, answers.collect()),
            Appender::Transaction(_) => answers.collect(),
        }
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

impl TopicSink {
    /// An append that is tried again comes after those of its key that were acknowledged meanwhile. So these are tried
    /// again too: they are in the log a second time then, and the last record of a key is the last all the same.
    fn in_order(&self, calls: &[Call], mut answers: Vec<Answer>) -> Vec<Answer> {
        let mut behind: HashSet<&[Bytes]> = HashSet::new();
        for (call, answer) in calls.iter().zip(&mut answers) {
            let Some(key) = call.ops.first().and_then(|op| op.parts.get(1..3)) else { continue };
            if key[0] != WITH_KEY {
                continue;
            }
            match answer {
                Answer::Failed(error) if error.class() == Class::Retry => {
                    behind.insert(key);
                }
                Answer::Done if behind.contains(key) => {
                    let who = format!("topic {}", self.topic);
                    *answer =
                        Answer::Failed(Error::retry(who, "an earlier record of the key was not appended"));
                }
                Answer::Done | Answer::Failed(_) => {}
            }
        }
        answers
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use millrace_core::Position;
    use millrace_testkit::message::message;

    use super::*;

    /// Keeps what it is sent, but refuses a value the first time it sees it.
    #[derive(Default)]
    struct Unsteady {
        refuses: Mutex<Option<&'static str>>,
        log: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Producer for Unsteady {
        async fn send(&self, _: &str, records: Vec<NewRecord>) -> Vec<Result<Position>> {
            let append = |record: NewRecord| {
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                let mut refuses = self.refuses.lock().unwrap();
                if refuses.is_some_and(|refused| value.contains(refused)) {
                    *refuses = None;
                    return Err(Error::retry("log", "away"));
                }
                self.log.lock().unwrap().push(value);
                Ok(Position { partition: 0, offset: 0 })
            };
            records.into_iter().map(append).collect()
        }
    }

    #[tokio::test]
    async fn the_last_record_of_a_key_is_the_last_after_a_retry() {
        let producer = Arc::new(Unsteady { refuses: Mutex::new(Some("a1")), ..Unsteady::default() });
        let sink = TopicSink::new("t".into(), Template::parse("{k}").ok(), producer.clone());
        let batch = ["a1", "b1", "a2", "b2", "a3"]
            .map(|value| message(1, value, &format!(r#"{{"k":"{}","v":"{value}"}}"#, &value[..1])));
        let mut calls = sink.encode(&batch).calls;
        while !calls.is_empty() {
            let answers = sink.send(&calls).await;
            let again = calls.into_iter().zip(answers).filter(|(_, answer)| !matches!(answer, Answer::Done));
            calls = again.map(|(call, _)| call).collect();
        }
        let log = producer.log.lock().unwrap();
        let of = |key: &str| {
            let values = log.iter().map(|value| value.split('"').nth(7).unwrap());
            values.filter(|value| value.starts_with(key)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of("a"), "a2 a3 a1 a2 a3");
        assert_eq!(of("b"), "b1 b2", "another key is not sent again");
    }
}
