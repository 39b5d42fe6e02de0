//! An entry of the board as it lies in the topic: JSON with a format number.

use bytes::Bytes;
use millrace_core::{Error, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The newest format this program reads, and the one it writes.
pub const FORMAT: u64 = 1;

/// What the board holds under a key. Its content is looked at when somebody asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    bytes: Bytes,
}

#[derive(Serialize)]
struct Written<'a> {
    format: u64,
    entry: &'a Value,
}

#[derive(Deserialize)]
struct Numbered {
    format: u64,
}

#[derive(Deserialize)]
struct Read<T> {
    entry: T,
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
        let written = Written { format: FORMAT, entry };
        serde_json::to_vec(&written).expect("invariant: JSON values can be written").into()
    }

    /// What it says.
    ///
    /// # Errors
    /// Fatal: its format is newer than this program, or it is damaged.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        self.replaceable()?;
        let read: Read<T> = serde_json::from_slice(&self.bytes).map_err(damaged)?;
        Ok(read.entry)
    }

    /// Whether this program may write another one in its place: also where it is damaged.
    ///
    /// # Errors
    /// Fatal: its format is newer than this program.
    pub(crate) fn replaceable(&self) -> Result<()> {
        match serde_json::from_slice::<Numbered>(&self.bytes) {
            Ok(Numbered { format }) if format > FORMAT => Err(Error::fatal(
                "control topic",
                format!(
                    "an entry has format {format}, this program knows formats up to {FORMAT}: use the program that wrote it"
                ),
            )),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

fn damaged(error: serde_json::Error) -> Error {
    Error::fatal("control topic", "an entry is damaged").with_source(error)
}
