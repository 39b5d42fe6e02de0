//! One record of a spool, and the sum that tells whether it is still what was appended.

use bytes::Bytes;
use crc32fast::Hasher;

/// What a record costs besides its own bytes: its place and sum, and its share of a page.
pub(crate) const OVERHEAD_BYTES: u64 = 64;

/// A record that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Bytes,
    /// Where it came from, for messages: `orders.ndjson:17`.
    pub origin: String,
}

impl Entry {
    /// What it counts towards the bound of a spool.
    pub fn size_bytes(&self) -> u64 {
        let key = self.key.as_ref().map_or(0, Bytes::len);
        (key + self.value.len() + self.origin.len()) as u64 + OVERHEAD_BYTES
    }

    /// The sum over all of it and its place.
    pub(crate) fn sum(&self, place: i64) -> u32 {
        let mut hasher = Hasher::new();
        hasher.update(&place.to_le_bytes());
        let key = self.key.as_deref();
        for part in [key.unwrap_or_default(), &self.value, self.origin.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.update(&[u8::from(key.is_some())]);
        hasher.finalize()
    }
}
