//! Templates: text with holes that name a field of the message, as `feed:{follower}`.
//!
//! A hole is a dotted path into the JSON value, or `@name` for what the log and the envelope know. `{{` and
//! `}}` are literal braces. A hole renders strings and integers; anything else rejects the message: a key made
//! of `null` or of a float is a defect that would stay unseen for long.

use std::{borrow::Cow, fmt};

use serde_json::Value;

use crate::{error::Error, message::Message};

/// Rendered keys and ids hold at most this many bytes.
pub const ID_BYTES_MAX: usize = 512;

/// The `@` fields and what they are.
pub const META_FIELDS: &[(&str, &str)] = &[
    ("@event_id", "the envelope's event id"),
    ("@event_type", "the envelope's event type"),
    ("@biz_id", "the envelope's business id"),
    ("@occurred_at", "when the event happened, ms since 1970"),
    ("@correlation_id", "the envelope's correlation id"),
    ("@key", "the message's key"),
    ("@topic", "the topic the record was read from"),
    ("@partition", "the partition it was read from"),
    ("@offset", "its offset"),
    ("@timestamp", "the log's timestamp, ms since 1970"),
];

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Path(Vec<String>),
    Meta(Meta),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meta {
    EventId,
    EventType,
    BizId,
    OccurredAt,
    CorrelationId,
    Key,
    Topic,
    Partition,
    Offset,
    Timestamp,
}

/// A template that cannot be parsed, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at character {at}")]
pub struct TemplateError {
    /// What is wrong.
    pub kind: TemplateErrorKind,
    /// The character it begins at, from 1.
    pub at: usize,
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateErrorKind {
    /// A `{` without its `}`.
    #[error("'{{' without '}}'; write '{{{{' for a brace")]
    Unclosed,
    /// A `}` without its `{`.
    #[error("'}}' without '{{'; write '}}}}' for a brace")]
    Unopened,
    /// `{}` or `{a..b}`.
    #[error("empty field name")]
    EmptyField,
    /// `{@x}` that is none of [`META_FIELDS`].
    #[error("unknown field '{0}'")]
    UnknownMeta(String),
}

impl Template {
    /// Parses the text of a template.
    ///
    /// # Errors
    /// The first mistake and its place.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = source.chars().enumerate().peekable();
        while let Some((index, c)) = chars.next() {
            let at = index + 1;
            let doubled = chars.peek().is_some_and(|(_, next)| *next == c);
            match c {
                '{' | '}' if doubled => {
                    chars.next();
                    literal.push(c);
                }
                '}' => return Err(TemplateError { kind: TemplateErrorKind::Unopened, at }),
                '{' => {
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    let mut name = String::new();
                    loop {
                        match chars.next() {
                            None | Some((_, '{')) => {
                                return Err(TemplateError { kind: TemplateErrorKind::Unclosed, at });
                            }
                            Some((_, '}')) => break,
                            Some((_, c)) => name.push(c),
                        }
                    }
                    parts.push(Part::parse(&name).map_err(|kind| TemplateError { kind, at })?);
                }
                _ => literal.push(c),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Template { source: source.to_owned(), parts })
    }

    /// The text it was parsed from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The JSON paths of its holes, without the `@` fields.
    pub fn paths(&self) -> impl Iterator<Item = &[String]> {
        self.parts.iter().filter_map(|part| match part {
            Part::Path(path) => Some(path.as_slice()),
            Part::Literal(_) | Part::Meta(_) => None,
        })
    }

    /// The path, if the template is one hole and nothing else.
    pub fn single_path(&self) -> Option<&[String]> {
        match self.parts.as_slice() {
            [Part::Path(path)] => Some(path),
            _ => None,
        }
    }

    /// Whether it has no hole.
    pub fn is_literal(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Literal(_)))
    }

    /// The text for a message.
    ///
    /// # Errors
    /// Reject, naming the field that is missing, empty or of a type that has no text.
    pub fn render(&self, message: &Message) -> Result<String, Error> {
        let mut text = String::with_capacity(self.source.len() + 16);
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Path(path) => text.push_str(&scalar(message, path)?),
                Part::Meta(meta) => text.push_str(&meta.text(message)?),
            }
        }
        Ok(text)
    }

    /// The text for a message, checked as a key or id: not empty, at most [`ID_BYTES_MAX`] bytes, no control
    /// characters.
    ///
    /// # Errors
    /// Reject, as [`Template::render`], and where the bounds do not hold.
    pub fn render_id(&self, message: &Message) -> Result<String, Error> {
        let id = self.render(message)?;
        if id.is_empty() {
            return Err(self.rejected("is empty"));
        }
        if id.len() > ID_BYTES_MAX {
            return Err(
                self.rejected(&format!("gives {} bytes, at most {ID_BYTES_MAX} are allowed", id.len()))
            );
        }
        if id.chars().any(char::is_control) {
            return Err(self.rejected("gives a control character"));
        }
        Ok(id)
    }

    /// A finite number: the template is one hole on a JSON number, or text that reads as an integer.
    ///
    /// # Errors
    /// Reject where it is none.
    pub fn render_number(&self, message: &Message) -> Result<f64, Error> {
        if let [Part::Path(path)] = self.parts.as_slice() {
            return match field(message, path)? {
                Value::Number(number) => number
                    .as_f64()
                    .filter(|n| n.is_finite())
                    .ok_or_else(|| self.rejected("is no finite number")),
                other => Err(self.rejected(&format!("is {}, not a number", type_name(other)))),
            };
        }
        self.render(message)?
            .parse()
            .ok()
            .filter(|n: &f64| n.is_finite())
            .ok_or_else(|| self.rejected("is no number"))
    }

    /// An integer of 64 bits: one hole on a JSON integer or an `@` field, or a literal.
    ///
    /// # Errors
    /// Reject where it is none.
    pub fn render_integer(&self, message: &Message) -> Result<i64, Error> {
        if let [Part::Path(path)] = self.parts.as_slice() {
            let value = field(message, path)?;
            return value
                .as_i64()
                .ok_or_else(|| self.rejected(&format!("is {}, not an integer", type_name(value))));
        }
        self.render(message)?.parse().map_err(|_| self.rejected("is no integer"))
    }

    fn rejected(&self, why: &str) -> Error {
        Error::reject(format!("template '{}'", self.source), why)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl Part {
    fn parse(name: &str) -> Result<Self, TemplateErrorKind> {
        if name.starts_with('@') {
            return Meta::parse(name)
                .map(Part::Meta)
                .ok_or_else(|| TemplateErrorKind::UnknownMeta(name.to_owned()));
        }
        let path: Vec<String> = name.split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            Err(TemplateErrorKind::EmptyField)
        } else {
            Ok(Part::Path(path))
        }
    }
}

impl Meta {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "@event_id" => Meta::EventId,
            "@event_type" => Meta::EventType,
            "@biz_id" => Meta::BizId,
            "@occurred_at" => Meta::OccurredAt,
            "@correlation_id" => Meta::CorrelationId,
            "@key" => Meta::Key,
            "@topic" => Meta::Topic,
            "@partition" => Meta::Partition,
            "@offset" => Meta::Offset,
            "@timestamp" => Meta::Timestamp,
            _ => return None,
        })
    }

    fn text<'a>(self, message: &'a Message) -> Result<Cow<'a, str>, Error> {
        let record = &message.origin.record;
        let envelope = &message.origin.envelope;
        let known = |field: &'a Option<String>, name: &str| {
            field.as_deref().map(Cow::Borrowed).ok_or_else(|| missing(&format!("{name} of the envelope")))
        };
        match self {
            Meta::EventId => known(&envelope.event_id, "eventId"),
            Meta::EventType => known(&envelope.event_type, "eventType"),
            Meta::BizId => known(&envelope.biz_id, "bizId"),
            Meta::CorrelationId => known(&envelope.correlation_id, "correlationId"),
            Meta::OccurredAt => {
                let at = envelope.occurred_at_ms.ok_or_else(|| missing("occurredAt of the envelope"))?;
                Ok(at.to_string().into())
            }
            Meta::Key => {
                let key = message.key.as_deref().ok_or_else(|| missing("the record key"))?;
                let text =
                    std::str::from_utf8(key).map_err(|_| Error::reject("the record key", "is no UTF-8"))?;
                Ok(Cow::Borrowed(text))
            }
            Meta::Topic => Ok(Cow::Borrowed(&record.topic)),
            Meta::Partition => Ok(record.partition.to_string().into()),
            Meta::Offset => Ok(record.offset.to_string().into()),
            Meta::Timestamp => Ok(record.timestamp_ms.to_string().into()),
        }
    }
}

fn missing(field: &str) -> Error {
    Error::reject(field, "is missing")
}

fn field<'a>(message: &'a Message, path: &[String]) -> Result<&'a Value, Error> {
    let mut value = message.json()?;
    for name in path {
        value = value.get(name).ok_or_else(|| missing(&format!("field '{}'", path.join("."))))?;
    }
    Ok(value)
}

fn scalar<'a>(message: &'a Message, path: &[String]) -> Result<Cow<'a, str>, Error> {
    match field(message, path)? {
        Value::String(text) if text.is_empty() => Err(named(path, "is empty")),
        Value::String(text) => Ok(Cow::Borrowed(text)),
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(number.to_string().into()),
        other => Err(named(path, &format!("is {}, not a string or an integer", type_name(other)))),
    }
}

fn named(path: &[String], why: &str) -> Error {
    Error::reject(format!("field '{}'", path.join(".")), why)
}

/// How an error names a JSON type.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[path = "template/tests.rs"]
mod tests;
