//! The identity of an effect: what makes the second delivery of an event recognisable to a ledger.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::message::Message;

/// A sink of a pipeline, as the ids in the YAML name it. Part of ledgers, progress and dead letters:
/// renaming one is a planned change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SinkId {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The sink's id within the pipeline.
    pub sink: Arc<str>,
}

impl std::fmt::Display for SinkId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.pipeline, self.sink)
    }
}

/// 128 bits of SHA-256 over pipeline, sink, effect key, event id and ordinal, as 22 characters of base64url.
///
/// Hashed, because an event id is the producer's text and a ledger entry must be small. Without an event id
/// the record's place in the log stands for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EffectIdentity(String);

impl EffectIdentity {
    /// The identity of the effect that `message` has on `key` through `sink`; `ordinal` counts the outputs of
    /// one event for one key, from 0.
    pub fn of(sink: &SinkId, key: &str, message: &Message, ordinal: u32) -> Self {
        let mut hash = Sha256::new();
        for part in [&*sink.pipeline, &*sink.sink, key] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let record = &message.origin.record;
        match &message.origin.envelope.event_id {
            Some(id) => {
                hash.update([1]);
                hash.update(id);
            }
            None => {
                hash.update([0]);
                hash.update(record.partition.to_be_bytes());
                hash.update(record.offset.to_be_bytes());
                hash.update(record.topic.as_bytes());
            }
        }
        hash.update(ordinal.to_be_bytes());
        EffectIdentity(URL_SAFE_NO_PAD.encode(&hash.finalize()[..16]))
    }

    /// An identity that was written as text, as into the parts of a call. None when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        (bytes.len() == 16).then(|| EffectIdentity(text.to_owned()))
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
