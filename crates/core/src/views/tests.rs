//! Views: settings in, effects out.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use super::*;
use crate::{
    Envelope, Message, Ordinals, Origin, Record, SinkId,
    settings::{Key, Location, Node, NodeKind},
};

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let at = Location { line: 1, column: 1 };
    let scalar = |text: &str| Node { at, kind: NodeKind::Scalar { text: text.into(), plain: true } };
    let entries = pairs.iter().map(|(k, v)| (Key { at, text: (*k).into() }, scalar(v))).collect();
    Settings::new(Node { at, kind: NodeKind::Map(entries) }, "sink")
}

fn message(json: &str, event_id: &str) -> Message {
    let record = Record {
        topic: "t".into(),
        partition: 0,
        offset: 7,
        timestamp_ms: 0,
        key: None,
        value: Some(json.to_owned().into()),
        headers: Arc::new([]),
    };
    let envelope =
        Envelope { event_id: Some(event_id.into()), occurred_at_ms: Some(5), ..Envelope::default() };
    Message::first(Arc::new(Origin { record, envelope }))
}

#[test]
fn a_remove_needs_no_score() {
    let given = settings(&[("key", "feed:{f}"), ("op", "{op}"), ("member", "{m}"), ("score", "{s}")]);
    let timeline = Timeline::read(&given, &mut Problems::default()).unwrap();
    let removed = timeline.effect(&message(r#"{"op":"remove","f":"u","m":"p"}"#, "1")).unwrap();
    assert_eq!(removed.op, TimelineOp::Remove);
    let nan = timeline.effect(&message(r#"{"op":"add","f":"u","m":"p","s":"NaN"}"#, "1")).unwrap_err();
    assert_eq!(nan.to_string(), "template '{s}': is a string, not a number");
    let unknown = timeline.effect(&message(r#"{"op":"drop","f":"u","m":"p","s":1}"#, "1")).unwrap_err();
    assert!(unknown.to_string().contains("unknown operation"));
}

#[test]
fn a_document_keeps_numbers_as_written() {
    let given = settings(&[("key", "post:{id}"), ("document", "{doc}"), ("version", "{v}")]);
    let document = Document::read(&given, &mut Problems::default()).unwrap();
    let effect = document.effect(&message(r#"{"id":"p","v":2,"doc":{"n":1.10,"tags":[]}}"#, "1")).unwrap();
    let Change::Put { fields, versions } = effect.change else { panic!("a put") };
    assert_eq!((fields["n"].as_str(), fields["tags"].as_str()), ("1.10", "[]"));
    assert_eq!(versions.of("n"), 2);
    assert!(document.effect(&message(r#"{"id":"p","v":-1,"doc":{"n":1}}"#, "1")).is_err());
    assert!(document.effect(&message(r#"{"id":"p","v":1,"doc":[]}"#, "1")).is_err());
}

#[test]
fn counter_identities_differ_by_event_and_ordinal_only() {
    let sink = SinkId { pipeline: "p".into(), sink: "s".into() };
    let counter =
        Counter::read(&settings(&[("key", "unread:{u}"), ("by", "{n}")]), &mut Problems::default()).unwrap();
    let batch = [
        message(r#"{"u":"a","n":1}"#, "1"),
        message(r#"{"u":"a","n":1}"#, "1"),
        message(r#"{"u":"a","n":0}"#, "2"),
    ];
    let effects = || -> Vec<_> {
        let effects = counter.effects(&sink, &batch, &mut Ordinals::default());
        effects.into_iter().map(Result::unwrap).collect()
    };
    let (effects, again) = (effects(), effects());
    assert_eq!(effects, again);
    assert_ne!(effects[0].as_ref().unwrap().identity, effects[1].as_ref().unwrap().identity);
    assert_eq!(effects[2], None);
}
