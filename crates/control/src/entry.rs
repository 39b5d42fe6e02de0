//! An entry of the board as it lies in the topic: a numbered one.

use bytes::Bytes;
use millrace_core::{
    Error, Result,
    numbered::{self, Found},
};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

/// The newest format this program reads, and the one it writes.
pub const FORMAT: u64 = 1;

/// What the board holds under a key. Its content is looked at when somebody asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    bytes: Bytes,
}

impl Entry {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Entry { bytes }
    }

    /// An entry that says this, as it is read when it was written.
    pub fn of(entry: &Value) -> Self {
        Entry::new(Entry::encode(entry))
    }

    /// The bytes of an entry.
    pub(crate) fn encode(entry: &Value) -> Bytes {
        numbered::encode(FORMAT, entry)
    }

    /// What it says.
    ///
    /// # Errors
    /// Fatal: its format is newer than this program, or it is damaged.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        match numbered::decode(FORMAT, &self.bytes).map_err(damaged)? {
            Found::Entry(entry) => Ok(entry),
            Found::Newer(format) => Err(newer(format)),
        }
    }

    /// Whether this program may write another one in its place: also where it is damaged.
    ///
    /// # Errors
    /// Fatal: its format is newer than this program.
    pub(crate) fn replaceable(&self) -> Result<()> {
        match numbered::decode::<IgnoredAny>(FORMAT, &self.bytes) {
            Ok(Found::Newer(format)) => Err(newer(format)),
            Ok(Found::Entry(_)) | Err(_) => Ok(()),
        }
    }
}

fn newer(format: u64) -> Error {
    let why = format!(
        "an entry has format {format}, this program knows formats up to {FORMAT}: use the program that wrote it"
    );
    Error::fatal("control topic", why)
}

fn damaged(error: serde_json::Error) -> Error {
    Error::fatal("control topic", "an entry is damaged").with_source(error)
}
