//! A sink under test and the messages for it: what the runtime does with a sink, in its simplest form.

use std::sync::Arc;

use millrace_core::{
    Answer, Call, Class, Error, Message, Sink, SinkId, View,
    settings::{Key, Location, Node, NodeKind, Problems, Settings},
    views::{FieldType, Index, IndexFields},
};
use serde_json::{Value, json};
use tokio::time::{Duration, sleep, timeout};

use super::Rig;
use crate::message::message;

/// A case that takes longer is stuck.
const CASE_TIMEOUT: Duration = Duration::from_secs(120);

/// How often calls are sent again while the sink says Retry, and the longest pause before it: a system that has
/// just made an index may need a moment.
const ROUNDS_MAX: u32 = 100;
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// How an index is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Replace,
    Merge,
    /// Merge, with the field `status` by `rank`.
    MergeByRank,
}

/// An opened sink for one index.
pub(super) struct Writer {
    pub(super) index: String,
    pub(super) sink: Arc<dyn Sink>,
}

impl Writer {
    /// A prepared sink for `index`, with the fields that the suite declares.
    pub(super) async fn open(rig: Rig<'_>, index: String, mode: Mode) -> Self {
        let writer = Self::unprepared(rig, index, mode);
        let prepared = timeout(CASE_TIMEOUT, writer.sink.prepare()).await.expect("prepare takes too long");
        prepared.unwrap_or_else(|error| panic!("{}: prepare: {}", writer.index, error.chain()));
        writer
    }

    pub(super) fn unprepared(rig: Rig<'_>, index: String, mode: Mode) -> Self {
        let mut problems = Problems::default();
        let view = Index::read(&settings(&index, mode), &mut problems);
        let view = view.unwrap_or_else(|| panic!("the suite's own settings: {problems:?}"));
        let id = SinkId { pipeline: "index-suite".into(), sink: index.as_str().into() };
        let sink = rig.store.sink(id, View::Index(view, declared()));
        Writer { sink: sink.unwrap_or_else(|error| panic!("{index}: open: {}", error.chain())), index }
    }

    /// Sends all messages in one go and insists that all of them are done.
    pub(super) async fn deliver(&self, messages: &[Message]) {
        for (message, outcome) in self.outcomes(messages).await.into_iter().enumerate() {
            outcome.unwrap_or_else(|error| panic!("{}: message {message}: {}", self.index, error.chain()));
        }
    }

    /// Sends all messages in one go as the runtime does: Retry is sent again, a rejected call op by op.
    pub(super) async fn outcomes(&self, messages: &[Message]) -> Vec<Result<(), Error>> {
        let encoded = self.sink.encode(messages);
        let mut outcomes: Vec<Result<(), Error>> = messages.iter().map(|_| Ok(())).collect();
        for (message, error) in encoded.rejected {
            assert_eq!(error.class(), Class::Reject, "{}: encode rejects with {}", self.index, error.chain());
            outcomes[message as usize] = Err(error);
        }
        let mut calls = encoded.calls;
        let mut last = None;
        for round in 0..ROUNDS_MAX {
            if calls.is_empty() {
                return outcomes;
            }
            if last.is_some() {
                sleep(PAUSE_MAX.min(Duration::from_millis(u64::from(round) * 5))).await;
            }
            let answers = timeout(CASE_TIMEOUT, self.sink.send(&calls)).await.expect("send takes too long");
            assert_eq!(answers.len(), calls.len(), "{}: one answer per call", self.index);
            (calls, last) = self.remaining(&calls, answers, &mut outcomes);
        }
        let last = last.map(|error| error.chain()).unwrap_or_default();
        panic!("{}: still Retry after {ROUNDS_MAX} rounds: {last}", self.index)
    }

    /// The calls to be sent again, and the last error that asks for it.
    fn remaining(
        &self,
        calls: &[Call],
        answers: Vec<Answer>,
        outcomes: &mut [Result<(), Error>],
    ) -> (Vec<Call>, Option<Error>) {
        let (mut again, mut last) = (Vec::new(), None);
        for (call, answer) in calls.iter().zip(answers) {
            let Answer::Failed(error) = answer else { continue };
            match error.class() {
                Class::Retry => {
                    again.push(call.clone());
                    last = Some(error);
                }
                Class::Reject if call.ops.len() > 1 => again.extend(call.split()),
                Class::Reject => outcomes[call.ops[0].message as usize] = Err(error),
                Class::Fatal => panic!("{}: {}", self.index, error.chain()),
            }
        }
        (again, last)
    }
}

/// A message that puts these fields at this version.
pub(super) fn put(id: &str, version: i64, document: &Value) -> Message {
    event(&json!({ "op": "put", "id": id, "v": version, "rank": version, "doc": document }))
}

/// A message that puts these fields at this version, and `status` at this rank.
pub(super) fn put_ranked(id: &str, version: i64, rank: i64, document: &Value) -> Message {
    event(&json!({ "op": "put", "id": id, "v": version, "rank": rank, "doc": document }))
}

/// A message that deletes.
pub(super) fn delete(id: &str, version: i64) -> Message {
    event(&json!({ "op": "delete", "id": id, "v": version, "rank": version }))
}

/// A message with this text as its document, byte for byte.
pub(super) fn put_text(id: &str, version: i64, document: &str) -> Message {
    let id = Value::from(id);
    event_text(&format!(r#"{{"op":"put","id":{id},"v":{version},"rank":{version},"doc":{document}}}"#))
}

fn event(value: &Value) -> Message {
    event_text(&value.to_string())
}

fn event_text(value: &str) -> Message {
    message(0, "event", value)
}

fn settings(index: &str, mode: Mode) -> Settings {
    let mut entries = vec![
        entry("index", scalar(index)),
        entry("mode", scalar(if mode == Mode::Replace { "replace" } else { "merge" })),
        entry("op", scalar("{op}")),
        entry("id", scalar("{id}")),
        entry("version", scalar("{v}")),
        entry("document", scalar("{doc}")),
    ];
    if mode == Mode::MergeByRank {
        entries.push(entry("versions", node(NodeKind::Map(vec![entry("status", scalar("{rank}"))]))));
    }
    Settings::new(node(NodeKind::Map(entries)), "index-suite")
}

fn declared() -> IndexFields {
    let fields = [
        ("title", FieldType::Text),
        ("status", FieldType::Keyword),
        ("tags", FieldType::Keyword),
        ("likes", FieldType::Long),
        ("score", FieldType::Double),
        ("open", FieldType::Boolean),
        ("at", FieldType::Date),
        ("meta", FieldType::Flattened),
    ];
    IndexFields {
        fields: fields.iter().map(|(name, of)| ((*name).to_owned(), *of)).collect(),
        ..IndexFields::default()
    }
}

fn entry(key: &str, value: Node) -> (Key, Node) {
    (Key { at: Location::default(), text: key.to_owned() }, value)
}

fn scalar(text: &str) -> Node {
    node(NodeKind::Scalar { text: text.to_owned(), plain: false })
}

fn node(kind: NodeKind) -> Node {
    Node { at: Location::default(), kind }
}
