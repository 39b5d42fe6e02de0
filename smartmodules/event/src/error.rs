//! Why an event or a parameter is refused. The text becomes the hint of a dead letter, so it names the field and
//! says what is wanted; it holds nothing of the event, which may be secret or very large.

use std::fmt;

/// A refusal. Field names are as on the wire, with dots: `payload.post_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The value is not UTF-8; `byte` is where it stops to be.
    NotUtf8 {
        /// Offset of the first bad byte.
        byte: usize,
    },
    /// The field (or `event`, the whole) is not JSON.
    NotJson {
        /// The field, or `event`.
        field: String,
        /// Line, counted from 1 at the start of the field.
        line: usize,
        /// Column, counted from 1.
        column: usize,
    },
    /// The field is not there, or null.
    Missing {
        /// The field.
        field: String,
    },
    /// The field has another type or range than is needed.
    Wrong {
        /// The field.
        field: String,
        /// What it must be, with its article.
        want: String,
    },
    /// The same field stands twice in one object, and readers would not agree which one counts.
    Twice {
        /// The field.
        field: String,
    },
    /// A parameter of the module is missing or has a bad value.
    Param {
        /// The parameter.
        name: String,
        /// What is wrong with it, following the name.
        why: String,
    },
    /// A parameter that the module does not have.
    UnknownParam {
        /// The parameter as given.
        name: String,
        /// Those it has.
        known: String,
    },
}

impl Error {
    /// A field that must be something else.
    pub fn wrong(field: impl Into<String>, want: impl Into<String>) -> Self {
        Self::Wrong { field: field.into(), want: want.into() }
    }

    /// A parameter with a bad value; `why` follows the name in the message.
    pub fn param(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Param { name: name.into(), why: why.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 { byte } => write!(f, "event is not UTF-8 at byte {byte}"),
            Self::NotJson { field, line, column } => {
                write!(f, "{field} is not valid JSON at line {line} column {column}")
            }
            Self::Missing { field } => write!(f, "{field} is missing"),
            Self::Wrong { field, want } => write!(f, "{field} must be {want}"),
            Self::Twice { field } => write!(f, "{field} is there twice"),
            Self::Param { name, why } => write!(f, "parameter `{name}` {why}"),
            Self::UnknownParam { name, known } => write!(f, "unknown parameter `{name}`, known are {known}"),
        }
    }
}

impl std::error::Error for Error {}
