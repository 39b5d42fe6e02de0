//! Encoding is pure and readable: messages in, calls out, nothing reached.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use millrace_core::{
    Class,
    settings::{Key, Location, Node, NodeKind, Problems, Settings},
    views::FieldType,
};
use millrace_testkit::message::message;
use serde_json::json;

use super::*;
use crate::settings::Options;

fn node(kind: NodeKind) -> Node {
    Node { at: Location::default(), kind }
}

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let scalar = |text: &str| node(NodeKind::Scalar { text: text.into(), plain: true });
    let mut entries: Vec<(Key, Node)> = Vec::new();
    for (name, text) in pairs {
        let value = match name.strip_prefix("versions.") {
            Some(field) => {
                let key = Key { at: Location::default(), text: field.into() };
                node(NodeKind::Map(vec![(key, scalar(text))]))
            }
            None => scalar(text),
        };
        let name = name.split('.').next().unwrap();
        entries.push((Key { at: Location::default(), text: name.into() }, value));
    }
    Settings::new(node(NodeKind::Map(entries)), "sink")
}

fn sink(more: &[(&str, &str)]) -> IndexSink {
    let url = settings(&[("url", "http://localhost:1"), ("timeout", "1s")]);
    let options = Options::read(&url, &mut Problems::default()).unwrap();
    assert_eq!(options.timeout, Duration::from_secs(1));
    let client = Arc::new(Client::open("elasticsearch search".into(), &options).unwrap());
    let mut pairs =
        vec![("index", "posts"), ("id", "{id}"), ("version", "{v}"), ("op", "{op}"), ("document", "{doc}")];
    pairs.extend(more);
    let index = Index::read(&settings(&pairs), &mut Problems::default()).unwrap();
    let fields = IndexFields { fields: vec![("n".into(), FieldType::Long)], ..IndexFields::default() };
    IndexSink::new(client, index, fields, 1 << 20).unwrap()
}

#[test]
fn calls_read_as_what_the_system_would_see() {
    let messages = [
        message(1, "1", r#"{"op":"put","id":"a b","v":3,"rank":7,"doc":{"title":"x","n":5}}"#),
        message(2, "2", r#"{"op":"delete","id":"12","v":4}"#),
    ];
    let replace = sink(&[]);
    let shown: Vec<Value> =
        replace.encode(&messages).calls.iter().map(|call| replace.describe(call)).collect();
    let expected = [
        json!({ "replace": { "index": "posts", "id": "a b", "version": 3, "document": { "title": "x", "n": 5 } } }),
        json!({ "delete": { "index": "posts", "id": "12", "version": 4 } }),
    ];
    assert_eq!(shown, expected);
    let merge = sink(&[("mode", "merge"), ("versions.title", "{rank}")]);
    let shown = merge.describe(&merge.encode(&messages[..1]).calls[0]);
    let expected = json!({ "merge": {
        "index": "posts", "id": "a b", "version": 3, "document": { "title": "x", "n": 5 }, "versions": { "title": 7 },
    } });
    assert_eq!(shown, expected);
}

#[test]
fn one_call_per_message_and_the_rest_is_rejected_by_place() {
    let messages = [
        message(1, "1", r#"{"op":"put","id":"a","v":1,"doc":{"n":1}}"#),
        message(2, "2", r#"{"op":"put","id":"a","v":1,"doc":{"millrace":1}}"#),
        message(3, "3", r#"{"op":"put","id":"a","v":1,"doc":{"millrace.deleted":true}}"#),
        message(4, "4", r#"{"op":"put","id":"a","v":1,"doc":[]}"#),
        message(5, "5", "not json"),
        message(6, "6", r#"{"op":"delete","id":"a","v":1}"#),
    ];
    let encoded = sink(&[("mode", "merge")]).encode(&messages);
    let places: Vec<u32> = encoded.calls.iter().map(|call| call.ops[0].message).collect();
    assert_eq!(places, [0, 5]);
    assert!(encoded.calls.iter().all(|call| call.ops.len() == 1));
    let rejected: Vec<u32> = encoded.rejected.iter().map(|(place, _)| *place).collect();
    assert_eq!(rejected, [1, 2, 3, 4]);
    assert!(encoded.rejected.iter().all(|(_, error)| error.class() == Class::Reject));
    assert!(encoded.rejected[0].1.to_string().starts_with("field 'millrace': documents keep"));
}

#[test]
fn a_document_is_one_line_and_keeps_its_digits() {
    let messages = [message(
        1,
        "1",
        "{\"op\":\"put\",\"id\":\"a\",\"v\":1,\"doc\":{\"o\":{\r\n \"x\": 1.10,\n\"s\":\"\\n\"},\"b\":18446744073709551617}}",
    )];
    let encoded = sink(&[]).encode(&messages);
    let document = std::str::from_utf8(&encoded.calls[0].ops[0].parts[2]).unwrap();
    assert_eq!(document, "{\"o\":{   \"x\": 1.10, \"s\":\"\\n\"},\"b\":18446744073709551617}");
}

#[tokio::test]
async fn a_call_of_another_sink_is_rejected_without_a_request() {
    let answers = sink(&[]).send(&[Call::single("zadd", 0, vec!["key".into()])]).await;
    assert!(matches!(&answers[..], [Answer::Failed(error)] if error.class() == Class::Reject));
}
