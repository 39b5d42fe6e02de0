//! The first thing that happens to a record: is it an event, and one that this pipeline listens to?

use std::{collections::HashSet, sync::Arc};

use millrace_core::{Envelope, Error, Message, Origin, Record};

/// What the records of a topic hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON event; anything else is a malformed record.
    Json,
    /// Bytes that only the modules understand; nothing is decoded.
    Bytes,
}

/// How a pipeline decodes.
#[derive(Clone, Debug)]
pub struct Decode {
    /// What the records hold.
    pub format: Format,
    /// The event types it listens to; none is all.
    pub events: Option<HashSet<String>>,
}

/// What became of a record.
pub(crate) enum Decoded {
    Message(Message),
    /// An event type that the pipeline does not list.
    Skipped,
    Rejected(Arc<Origin>, Error),
}

impl Decode {
    pub(crate) fn decode(&self, record: Record) -> Decoded {
        if self.format == Format::Bytes {
            return Decoded::Message(Message::first(Arc::new(Origin {
                record,
                envelope: Envelope::default(),
            })));
        }
        let envelope = match Envelope::of_json(&record) {
            Ok(envelope) => envelope,
            Err(error) => {
                let origin = Arc::new(Origin { record, envelope: Envelope::default() });
                return Decoded::Rejected(origin, Error::reject("decode", error.to_string()));
            }
        };
        match (&self.events, envelope.event_type.as_deref()) {
            (None, _) => {}
            (Some(listed), Some(event_type)) if listed.contains(event_type) => {}
            (Some(_), Some(_)) => return Decoded::Skipped,
            (Some(_), None) => {
                let origin = Arc::new(Origin { record, envelope });
                return Decoded::Rejected(origin, Error::reject("decode", "the event has no eventType"));
            }
        }
        Decoded::Message(Message::first(Arc::new(Origin { record, envelope })))
    }
}
