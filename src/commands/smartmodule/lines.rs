//! Lines of a file as the records that a module is tried on.

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use millrace_core::{Envelope, Message, Origin, Record};
use serde_json::{Value, json};

use crate::{json_bytes, report::Failure};

/// Each line as a record without a key; its offset is the line's number from 0.
pub fn read(path: &Path) -> Result<Vec<Message>, Failure> {
    let text = fs::read(path).map_err(|error| Failure::input(format!("{}: {error}", path.display())))?;
    let lines = text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    Ok(lines.map(|(number, line)| message(number, None, Bytes::copy_from_slice(line))).collect())
}

/// Events like those of the reference pipelines, for modules that nobody has given records for.
pub fn generated(count: usize) -> Vec<Message> {
    let event = |number: usize| {
        let event = json!({
            "eventId": format!("e{number}"), "eventType": "content.post.created.v1", "bizId": format!("p{number}"),
            "occurredAt": "2026-01-01T00:00:00Z", "source": "generated", "correlationId": format!("c{number}"),
            "payload": {
                "post_id": format!("p{number}"), "user_id": format!("u{}", number % 100), "type": "TEXT",
                "content": "hello from a generated post, as long as posts usually are", "visibility": "PUBLIC",
                "tags": ["generated"], "created_at": 1_767_225_600_000_u64 + number as u64, "version": 1,
            },
        });
        message(number, Some(format!("u{}", number % 100).into()), event.to_string().into())
    };
    (0..count).map(event).collect()
}

/// A value as a case shows it: JSON where it is some, else text or base64.
pub fn value_json(value: &Bytes) -> Value {
    serde_json::from_slice(value).unwrap_or_else(|_| json_bytes::to_json(Some(value)))
}

fn message(number: usize, key: Option<Bytes>, value: Bytes) -> Message {
    let record = Record {
        topic: "lines".into(),
        partition: 0,
        offset: i64::try_from(number).unwrap_or(i64::MAX),
        timestamp_ms: 0,
        key,
        value: Some(value),
        headers: Arc::new([]),
    };
    Message::first(Arc::new(Origin { record, envelope: Envelope::default() }))
}
