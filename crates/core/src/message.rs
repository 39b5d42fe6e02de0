//! A record on its way through a pipeline, and the origin it never loses.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

use crate::{envelope::Envelope, error::Error, record::Record};

/// Where a message came from: the record as it lies in the log, and its envelope.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The record as read: original bytes, headers and offset, for dead letters and trace context.
    pub record: Record,
    /// The envelope read from it; empty for raw records.
    pub envelope: Envelope,
}

/// What steps transform and sinks write. Cloning shares the bytes and the origin.
///
/// The parsed JSON is kept beside the bytes, so that several templates and sinks parse a value once.
#[derive(Clone, Debug)]
pub struct Message {
    /// The record it came from; many messages of a fan-out share one.
    pub origin: Arc<Origin>,
    /// The key, as the last step left it.
    pub key: Option<Bytes>,
    /// The value, as the last step left it.
    pub value: Bytes,
    json: OnceLock<Option<Arc<Value>>>,
}

impl Message {
    /// The message a record starts as.
    pub fn first(origin: Arc<Origin>) -> Self {
        let key = origin.record.key.clone();
        let value = origin.record.value.clone().unwrap_or_default();
        Message { origin, key, value, json: OnceLock::new() }
    }

    /// A message that a step made out of one of `origin`.
    pub fn derived(origin: Arc<Origin>, key: Option<Bytes>, value: Bytes) -> Self {
        Message { origin, key, value, json: OnceLock::new() }
    }

    /// The value as JSON, parsed at the first call.
    ///
    /// # Errors
    /// [`crate::Class::Reject`] when the value is not JSON.
    pub fn json(&self) -> Result<&Value, Error> {
        self.json
            .get_or_init(|| serde_json::from_slice(&self.value).ok().map(Arc::new))
            .as_deref()
            .ok_or_else(|| Error::reject("message", "the value is not JSON, or holds a number out of range"))
    }

    /// The source offset all effects of this message are committed with.
    pub fn offset(&self) -> i64 {
        self.origin.record.offset
    }

    /// Bytes of key and value, for batch limits.
    pub fn size_bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.value.len() + 64
    }
}
