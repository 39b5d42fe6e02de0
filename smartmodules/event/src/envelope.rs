//! The envelope: which fields there are, and the two names of the time.

use std::borrow::Cow;

use crate::{Error, Field, pick, time};

/// The names that belong to the envelope. A step that adds a field to an event takes another name.
pub const ENVELOPE_FIELDS: [&str; 8] =
    ["eventId", "eventType", "bizId", "occurredAt", "timestamp", "source", "correlationId", "payload"];

/// One event, its fields unread until they are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a, 'n> {
    /// Unique; the key of idempotency.
    pub event_id: Field<'a, 'n>,
    /// The entity the event is about.
    pub biz_id: Field<'a, 'n>,
    /// What happened.
    pub payload: Field<'a, 'n>,
    event_type: Field<'a, 'n>,
    occurred_at: Field<'a, 'n>,
}

impl<'a, 'n> Event<'a, 'n> {
    /// Reads the envelope of a record's value.
    pub fn parse(value: &'a [u8]) -> Result<Self, Error> {
        let [event_id, event_type, biz_id, occurred_at, timestamp, payload] =
            pick(utf8(value)?, "", ["eventId", "eventType", "bizId", "occurredAt", "timestamp", "payload"])?;
        Ok(Self { event_id, event_type, biz_id, occurred_at: occurred_at.or(timestamp), payload })
    }

    /// Reads the envelope and the field `extra` that a step before this one has put beside the envelope's own.
    pub fn parse_with(value: &'a [u8], extra: &'n str) -> Result<(Self, Field<'a, 'n>), Error> {
        let [event_id, event_type, biz_id, occurred_at, timestamp, payload, extra] = pick(
            utf8(value)?,
            "",
            ["eventId", "eventType", "bizId", "occurredAt", "timestamp", "payload", extra],
        )?;
        let event = Self { event_id, event_type, biz_id, occurred_at: occurred_at.or(timestamp), payload };
        Ok((event, extra))
    }

    /// `eventType`, which must be there: `{domain}.{entity}.{action}.v{version}`.
    pub fn event_type(&self) -> Result<Cow<'a, str>, Error> {
        self.event_type.text()
    }

    /// Refuses the event for its type.
    pub fn wrong_type(&self, want: impl Into<String>) -> Error {
        Error::wrong(self.event_type.path(), want)
    }

    /// When it happened, in ms since 1970: `occurredAt`, or else `timestamp`.
    pub fn occurred_at_ms(&self) -> Result<u64, Error> {
        time::rfc3339_ms(&self.occurred_at.text()?)
            .ok_or_else(|| Error::wrong(self.occurred_at.path(), "an RFC 3339 time not before 1970"))
    }
}

/// The text of a record's value.
pub fn utf8(value: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(value).map_err(|e| Error::NotUtf8 { byte: e.valid_up_to() })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_time_has_two_names() {
        let at =
            |json: &str| Event::parse(json.as_bytes()).unwrap().occurred_at_ms().map_err(|e| e.to_string());
        assert_eq!(at(r#"{"occurredAt":"1970-01-01T00:00:01Z"}"#), Ok(1000));
        assert_eq!(at(r#"{"timestamp":"1970-01-01T00:00:02Z"}"#), Ok(2000));
        assert_eq!(at(r#"{"timestamp":"x","occurredAt":"1970-01-01T00:00:03Z"}"#), Ok(3000));
        assert_eq!(
            at(r#"{"timestamp":"yesterday"}"#),
            Err("timestamp must be an RFC 3339 time not before 1970".into())
        );
        assert_eq!(at("{}"), Err("occurredAt is missing".into()));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let error = Event::parse(b"{\"a\":\"\xff\"}").unwrap_err();
        assert_eq!(error.to_string(), "event is not UTF-8 at byte 6");
    }

    #[test]
    fn a_field_beside_the_envelope_is_found() {
        let (event, extra) =
            Event::parse_with(br#"{"eventType":"a.b.c.v1","followers":[]}"#, "followers").unwrap();
        assert_eq!(event.event_type().unwrap(), "a.b.c.v1");
        assert_eq!(extra.raw(), Some("[]"));
    }
}
