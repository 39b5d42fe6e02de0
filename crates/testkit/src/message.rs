//! Messages and records for tests, without ceremony.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{Envelope, Message, Origin, Record};

/// A record of topic `test`, partition 0, at `offset`.
pub fn record(offset: i64, value: &str) -> Record {
    Record {
        topic: "test".into(),
        partition: 0,
        offset,
        timestamp_ms: 1_700_000_000_000 + offset,
        key: None,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Arc::new([]),
    }
}

/// A message whose value is `value` and whose origin is an event with this id, at `offset`.
pub fn message(offset: i64, event_id: &str, value: &str) -> Message {
    let envelope = Envelope {
        event_id: Some(event_id.to_owned()),
        occurred_at_ms: Some(1_700_000_000_000 + offset),
        ..Envelope::default()
    };
    Message::first(Arc::new(Origin { record: record(offset, value), envelope }))
}
