//! The event envelope: the few fields of a record that delivery and routing need, read once per record.

use std::borrow::Cow;

use serde::Deserialize;

use crate::record::Record;

/// Longest event id, type or correlation id that is accepted, in bytes.
const FIELD_BYTES_MAX: usize = 512;

/// The envelope of a domain event, as far as Millrace itself reads it. All fields are optional: a pipeline
/// that lists event types or counts effects asks for what it needs.
///
/// Read from the JSON envelope (`eventId`, `eventType`, `bizId`, `occurredAt` or `timestamp`, `correlationId`),
/// from a structured CloudEvent (`id`, `type`, `subject`, `time`) or from `ce_*` headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Unique id of the event, the key of idempotency.
    pub event_id: Option<String>,
    /// `{domain}.{entity}.{action}.v{version}`.
    pub event_type: Option<String>,
    /// The business object's id.
    pub biz_id: Option<String>,
    /// When it happened, in milliseconds since 1970.
    pub occurred_at_ms: Option<i64>,
    /// Ties together what one request caused.
    pub correlation_id: Option<String>,
}

/// Why a value is not an envelope.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// The record has no value.
    #[error("the record has no value")]
    Tombstone,
    /// The bytes are not JSON, or a field of the envelope has the wrong type.
    #[error("not a JSON event: {0}")]
    Json(String),
    /// The value is JSON but no object.
    #[error("not a JSON object")]
    NotAnObject,
    /// A field is longer than accepted.
    #[error("{field} is {bytes} bytes long, at most {max} are accepted", max = FIELD_BYTES_MAX)]
    TooLong {
        /// The field's name on the wire.
        field: &'static str,
        /// Its length in bytes.
        bytes: usize,
    },
    /// The time is not RFC 3339.
    #[error("{field} is not an RFC 3339 time")]
    Time {
        /// The field's name on the wire.
        field: &'static str,
    },
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, rename = "eventId")]
    event_id: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "eventType")]
    event_type: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "bizId")]
    biz_id: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "occurredAt")]
    occurred_at: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: Option<Scalar<'a>>,
    #[serde(borrow, rename = "correlationId")]
    correlation_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    specversion: Option<Scalar<'a>>,
    #[serde(borrow)]
    id: Option<Scalar<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Scalar<'a>>,
    #[serde(borrow)]
    subject: Option<Scalar<'a>>,
    #[serde(borrow)]
    time: Option<Scalar<'a>>,
}

/// A field that belongs to the envelope only in some forms: anything is accepted, a string is kept.
#[derive(Deserialize)]
#[serde(transparent)]
struct Scalar<'a>(#[serde(borrow)] &'a serde_json::value::RawValue);

impl Envelope {
    /// Reads the envelope of a record that holds JSON.
    pub fn of_json(record: &Record) -> Result<Self, EnvelopeError> {
        let value = record.value.as_deref().ok_or(EnvelopeError::Tombstone)?;
        if value.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            serde_json::from_slice::<serde::de::IgnoredAny>(value).map_err(|error| json_error(&error))?;
            return Err(EnvelopeError::NotAnObject);
        }
        let wire: Wire<'_> = serde_json::from_slice(value).map_err(|error| json_error(&error))?;
        if record.header("ce_specversion").is_some() {
            return Self::of_headers(record, &wire);
        }
        if wire.specversion.is_some() && wire.event_id.is_none() {
            return Self::of_cloud_event(&wire);
        }
        let (time_field, time) = match wire.occurred_at {
            Some(time) => ("occurredAt", Some(time.into_owned())),
            None => ("timestamp", wire.timestamp.as_ref().and_then(Scalar::text)),
        };
        Self::checked(
            wire.event_id.map(Cow::into_owned),
            wire.event_type.map(Cow::into_owned),
            wire.biz_id.map(Cow::into_owned),
            (time_field, time),
            wire.correlation_id.map(Cow::into_owned),
        )
    }

    fn of_cloud_event(wire: &Wire<'_>) -> Result<Self, EnvelopeError> {
        let text = |field: &Option<Scalar<'_>>| field.as_ref().and_then(Scalar::text);
        let correlation = wire.correlation_id.as_ref().map(|id| id.clone().into_owned());
        Self::checked(
            text(&wire.id),
            text(&wire.kind),
            text(&wire.subject),
            ("time", text(&wire.time)),
            correlation,
        )
    }

    fn of_headers(record: &Record, wire: &Wire<'_>) -> Result<Self, EnvelopeError> {
        let header = |name: &str| record.header(name).map(|v| String::from_utf8_lossy(v).into_owned());
        let correlation = header("ce_correlationid")
            .or_else(|| wire.correlation_id.as_ref().map(|id| id.clone().into_owned()));
        Self::checked(
            header("ce_id"),
            header("ce_type"),
            header("ce_subject"),
            ("ce_time", header("ce_time")),
            correlation,
        )
    }

    fn checked(
        event_id: Option<String>,
        event_type: Option<String>,
        biz_id: Option<String>,
        (time_field, time): (&'static str, Option<String>),
        correlation_id: Option<String>,
    ) -> Result<Self, EnvelopeError> {
        let fields = [
            ("eventId", &event_id),
            ("eventType", &event_type),
            ("bizId", &biz_id),
            ("correlationId", &correlation_id),
        ];
        for (field, value) in fields {
            let bytes = value.as_ref().map_or(0, String::len);
            if bytes > FIELD_BYTES_MAX {
                return Err(EnvelopeError::TooLong { field, bytes });
            }
        }
        let occurred_at_ms = match time {
            None => None,
            Some(text) => Some(parse_time(&text).ok_or(EnvelopeError::Time { field: time_field })?),
        };
        let event_id = event_id.filter(|id| !id.is_empty());
        Ok(Envelope { event_id, event_type, biz_id, occurred_at_ms, correlation_id })
    }
}

impl Scalar<'_> {
    fn text(&self) -> Option<String> {
        serde_json::from_str(self.0.get()).ok()
    }
}

fn parse_time(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// serde_json's message without the payload it may quote.
fn json_error(error: &serde_json::Error) -> EnvelopeError {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data => "a field of the envelope has the wrong type",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "syntax error",
    };
    EnvelopeError::Json(format!("{what} at line {} column {}", error.line(), error.column()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::record::Header;

    fn record(value: &str, headers: &[(&str, &str)]) -> Record {
        let headers = headers
            .iter()
            .map(|(name, value)| Header { name: (*name).into(), value: Some(value.to_string().into()) })
            .collect();
        Record {
            topic: "t".into(),
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: None,
            value: Some(value.to_string().into()),
            headers,
        }
    }

    #[test]
    fn reads_the_own_form_with_either_name_of_the_time() {
        for field in ["occurredAt", "timestamp"] {
            let json = format!(
                r#"{{"eventId":"1","eventType":"a.b.c.v1","bizId":"x","{field}":"2015-02-16T23:36:00Z","payload":{{"type":7}}}}"#
            );
            let envelope = Envelope::of_json(&record(&json, &[])).unwrap();
            assert_eq!(envelope.event_id.as_deref(), Some("1"));
            assert_eq!(envelope.occurred_at_ms, Some(1_424_129_760_000));
        }
    }

    #[test]
    fn reads_cloud_events_in_both_modes() {
        let structured = r#"{"specversion":"1.0","id":"9","type":"a.b.c.v1","subject":"s","time":"2015-02-16T23:36:00Z","data":{}}"#;
        let envelope = Envelope::of_json(&record(structured, &[])).unwrap();
        assert_eq!(
            (envelope.event_id.as_deref(), envelope.event_type.as_deref()),
            (Some("9"), Some("a.b.c.v1"))
        );
        let binary = record(
            r#"{"post_id":"p"}"#,
            &[("ce_specversion", "1.0"), ("ce_id", "7"), ("ce_type", "t.t.t.v1")],
        );
        assert_eq!(Envelope::of_json(&binary).unwrap().event_id.as_deref(), Some("7"));
    }

    #[test]
    fn names_what_is_wrong() {
        let error = |json: &str| Envelope::of_json(&record(json, &[])).unwrap_err().to_string();
        assert!(error("{\"eventId\":").contains("ends too early"));
        assert!(error("[1]").contains("not a JSON object"));
        assert!(error(r#"{"eventId":5}"#).contains("wrong type"));
        assert!(error(r#"{"occurredAt":"yesterday"}"#).contains("occurredAt is not an RFC 3339 time"));
        let long = format!(r#"{{"eventId":"{}"}}"#, "x".repeat(600));
        assert!(error(&long).contains("600 bytes"));
    }
}
