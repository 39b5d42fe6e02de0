//! Entries that several versions of the program read and write: JSON with the number of its format.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What an entry was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// This.
    Entry(T),
    /// Something in a format that is newer than this program, and its number.
    Newer(u64),
}

#[derive(Serialize)]
struct Written<'a, T> {
    format: u64,
    entry: &'a T,
}

#[derive(Deserialize)]
struct Numbered {
    format: u64,
}

#[derive(Deserialize)]
struct Read<T> {
    entry: T,
}

/// Writes an entry in a format.
pub fn encode<T: Serialize>(format: u64, entry: &T) -> Bytes {
    let written = Written { format, entry };
    serde_json::to_vec(&written).expect("invariant: entries can be written as JSON").into()
}

/// Reads an entry of the format `newest` or an older one.
///
/// # Errors
/// It is damaged, and of no newer format.
pub fn decode<T: DeserializeOwned>(newest: u64, entry: &[u8]) -> Result<Found<T>, serde_json::Error> {
    let Numbered { format } = serde_json::from_slice(entry)?;
    if format > newest {
        return Ok(Found::Newer(format));
    }
    serde_json::from_slice(entry).map(|Read { entry }| Found::Entry(entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_formats_are_told_from_damage() {
        let newer = br#"{"format": 3, "entry": {"of": "another time"}}"#;
        assert!(matches!(decode::<u8>(2, newer), Ok(Found::Newer(3))));
        for damaged in
            [r#"{"format": 2, "entry": "7"}"#, r#"{"entry": 7}"#, r#"{"format": 2}"#, "no json", ""]
        {
            assert!(decode::<u8>(2, damaged.as_bytes()).is_err(), "{damaged}");
        }
    }

    #[test]
    fn what_is_written_is_read_also_by_newer_programs() {
        for newest in [1, 2] {
            assert!(matches!(decode(newest, &encode(1, &7_u8)), Ok(Found::Entry(7_u8))));
        }
    }
}
