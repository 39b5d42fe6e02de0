//! The identity of an effect: what makes the second delivery of an event recognisable to a ledger.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Weak},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::message::{Message, Origin};

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
    /// one event for one key, from 0. [`Ordinals`] count.
    pub fn of(sink: &SinkId, key: &str, message: &Message, ordinal: u32) -> Self {
        EffectIdentity(URL_SAFE_NO_PAD.encode(digest(sink, key, message, ordinal)))
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

/// Counts the outputs of each event for each key, for one sink and the batch that one worker has in hand.
///
/// A record's outputs may come in several parts, chunk by chunk and page by page, mixed with those of other
/// records. What is counted of a record is forgotten when its last message is gone, so that it takes room for
/// what is under way only.
#[derive(Debug, Default)]
pub struct Ordinals {
    /// By offset: a worker has one partition.
    of_record: HashMap<i64, Counted>,
}

#[derive(Debug)]
struct Counted {
    origin: Weak<Origin>,
    /// By the beginning of the identity of the first output for a key: how many more there were.
    of_key: HashMap<u64, u32>,
}

impl Ordinals {
    /// Keys remembered from part to part, about 32 MB. When there are more, the record with the most is forgotten: its
    /// outputs for one key are then told apart within a part, and not from part to part.
    pub const KEYS_MAX: usize = 1 << 20;

    /// Begins another part: makes room for it.
    pub fn begin_part(&mut self) {
        self.of_record.retain(|_, counted| counted.origin.strong_count() > 0);
        let mut keys: usize = self.of_record.values().map(|counted| counted.of_key.len()).sum();
        while keys > Self::KEYS_MAX {
            let size = |(offset, counted): (&i64, &Counted)| (counted.of_key.len(), *offset);
            let Some((size, offset)) = self.of_record.iter().map(size).max() else { return };
            self.of_record.remove(&offset);
            keys -= size;
        }
    }

    /// The identity of the next effect that an output of the message's event has on `key`.
    pub fn next(&mut self, sink: &SinkId, key: &str, message: &Message) -> EffectIdentity {
        let first = digest(sink, key, message, 0);
        let mut tag = [0; 8];
        tag.copy_from_slice(&first[..8]);
        let counted = self
            .of_record
            .entry(message.offset())
            .or_insert_with(|| Counted { origin: Arc::downgrade(&message.origin), of_key: HashMap::new() });
        match counted.of_key.entry(u64::from_be_bytes(tag)) {
            Entry::Vacant(entry) => {
                entry.insert(0);
                EffectIdentity(URL_SAFE_NO_PAD.encode(first))
            }
            Entry::Occupied(mut entry) => {
                *entry.get_mut() += 1;
                EffectIdentity::of(sink, key, message, *entry.get())
            }
        }
    }
}

fn digest(sink: &SinkId, key: &str, message: &Message, ordinal: u32) -> [u8; 16] {
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
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Envelope, Record};

    fn origin(offset: i64) -> Arc<Origin> {
        let record = Record {
            topic: "t".into(),
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: Arc::new([]),
        };
        let envelope = Envelope { event_id: Some(format!("e{offset}")), ..Envelope::default() };
        Arc::new(Origin { record, envelope })
    }

    #[test]
    fn outputs_are_counted_from_part_to_part_while_their_record_is_under_way() {
        let id = SinkId { pipeline: "p".into(), sink: "s".into() };
        let (one, two) = (Message::first(origin(1)), Message::first(origin(2)));
        let mut ordinals = Ordinals::default();
        let mut part = |messages: &[&Message]| -> Vec<EffectIdentity> {
            ordinals.begin_part();
            messages.iter().map(|message| ordinals.next(&id, "k", message)).collect()
        };
        let of = |message: &Message, ordinal| EffectIdentity::of(&id, "k", message, ordinal);
        assert_eq!(part(&[&one, &two, &one]), [of(&one, 0), of(&two, 0), of(&one, 1)]);
        assert_eq!(part(&[&two, &one]), [of(&two, 1), of(&one, 2)]);
        drop(one);
        let again = Message::first(origin(1));
        assert_eq!(part(&[&again, &two]), [of(&again, 0), of(&two, 2)], "read again, counted again");
    }

    #[test]
    fn the_record_with_the_most_keys_is_forgotten_when_there_are_too_many() {
        let id = SinkId { pipeline: "p".into(), sink: "s".into() };
        let (wide, small) = (Message::first(origin(1)), Message::first(origin(2)));
        let mut ordinals = Ordinals::default();
        ordinals.next(&id, "k", &small);
        for key in 0..Ordinals::KEYS_MAX {
            ordinals.next(&id, &key.to_string(), &wide);
        }
        ordinals.begin_part();
        assert_eq!(ordinals.of_record.len(), 1);
        assert_eq!(ordinals.next(&id, "k", &small), EffectIdentity::of(&id, "k", &small, 1));
    }
}
