//! What a log holds: records, their headers, and batches of them.

use std::sync::Arc;

use bytes::Bytes;

/// One record header. Names may repeat; a value may be absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The header's name.
    pub name: Arc<str>,
    /// Its bytes, or none.
    pub value: Option<Bytes>,
}

/// A record's headers in their order, shared.
pub type Headers = Arc<[Header]>;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A record as it lies in the log. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The topic it was read from.
    pub topic: Arc<str>,
    /// The partition it was read from.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// The log's timestamp in milliseconds since 1970, or -1 when the log keeps none.
    pub timestamp_ms: i64,
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

impl Record {
    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|header| &*header.name == name).and_then(|header| header.value.as_deref())
    }

    /// What the record occupies in memory, about: bytes of key, value and headers.
    pub fn size_bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|h| h.name.len() + h.value.as_ref().map_or(0, Bytes::len) + 32).sum();
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len) + headers + 96
    }
}

/// Records of one partition in ascending offsets. Never empty; gaps are normal (compaction, control records).
#[derive(Clone, Debug)]
pub struct Batch {
    /// The topic of all of them.
    pub topic: Arc<str>,
    /// The partition of all of them.
    pub partition: i32,
    /// The records.
    pub records: Vec<Record>,
}

impl Batch {
    /// The offset after the last record: what to commit when all are done. 0 for an empty batch.
    pub fn next_offset(&self) -> i64 {
        self.records.last().map_or(0, |record| record.offset + 1)
    }

    /// The sum of the records' sizes in bytes.
    pub fn size_bytes(&self) -> usize {
        self.records.iter().map(Record::size_bytes).sum()
    }

    /// The partition the batch is of.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition: self.partition }
    }
}
