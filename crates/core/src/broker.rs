//! A system that holds topics: reading, appending, administration.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    error::Result,
    record::{Header, Record},
    source::Source,
};

/// Where a reader without committed progress starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The oldest record. What every new group does.
    Beginning,
    /// Only records appended from now on.
    End,
    /// This offset, in each partition read.
    Offset(i64),
}

/// What to read, as whom.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The topic.
    pub topic: String,
    /// The consumer group; none reads alone and keeps no progress.
    pub group: Option<String>,
    /// These partitions only, without sharing them in the group; none is all, shared.
    pub partitions: Option<Vec<i32>>,
    /// Where to start when the group has no progress.
    pub start: Start,
    /// The most bytes held fetched and not yet yielded, over all partitions.
    pub prefetch_bytes_max: usize,
    /// The most records in a yielded batch.
    pub batch_records_max: usize,
}

/// A record to append.
#[derive(Clone, Debug, Default)]
pub struct NewRecord {
    /// The key; decides the partition unless one is given.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Vec<Header>,
    /// Append to this partition; none: by murmur2 of the key, spread where there is no key.
    pub partition: Option<i32>,
    /// In a transaction: the offset of the record it was made of.
    pub source_offset: Option<i64>,
}

impl NewRecord {
    /// The same record again, to another topic: key, value and headers.
    pub fn copy_of(record: &Record) -> Self {
        NewRecord {
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.to_vec(),
            ..NewRecord::default()
        }
    }
}

/// Where a record was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// Appends records. Shared by tasks.
#[async_trait]
pub trait Producer: Send + Sync {
    /// Appends in order, per partition, stamped with the time of the append, and answers for each record when
    /// it is durable on all in-sync replicas. Not cancel-safe: a dropped call may have appended a prefix.
    ///
    /// # Errors
    /// Per record. Retry: not appended as far as known, append again. Reject: it can never be appended (too
    /// large). Fatal: the topic does not exist or may not be written.
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<Position>>;
}

/// A topic as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// How long records are kept; none: as the broker does.
    pub retention_ms: Option<u64>,
    /// How many bytes a partition keeps; none: as the broker does.
    pub retention_bytes: Option<u64>,
    /// The largest record accepted, key and headers included.
    pub record_bytes_max: usize,
    /// Copies of each partition; none: as the broker does.
    pub replication: Option<u16>,
    /// Keeps the newest record of each key, for as long as the topic lives, and soon or late none of the older
    /// ones. A tombstone goes too, after a day. A record without a key is rejected.
    pub compact: bool,
}

/// What creating a topic came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateOutcome {
    /// It was made.
    Created,
    /// It was there, with this many partitions.
    Exists {
        /// How many it has.
        partitions: u32,
    },
}

/// The offsets a partition holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionSpan {
    /// The oldest offset still there.
    pub start: i64,
    /// The offset the next record will have.
    pub end: i64,
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Its partitions' spans, by number.
    pub partitions: BTreeMap<i32, PartitionSpan>,
}

/// Topics and groups. All calls are idempotent; Retry when the broker is away, Fatal when it refuses.
#[async_trait]
pub trait Admin: Send + Sync {
    /// Creates the topic unless it is there; never changes one that is.
    async fn create_topic(&self, spec: &TopicSpec) -> Result<CreateOutcome>;

    /// All topics but the broker's internal ones, by name, with spans.
    async fn topics(&self) -> Result<Vec<TopicInfo>>;

    /// One topic; none if it does not exist.
    async fn topic(&self, name: &str) -> Result<Option<TopicInfo>>;

    /// The group's committed next offsets in a topic; partitions without a commit are absent.
    async fn progress(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>>;

    /// Of each partition, the first offset whose record was appended at this time (ms since 1970) or later; its end
    /// where there is none.
    ///
    /// # Errors
    /// As all, and Fatal when the topic does not exist.
    async fn offsets_at(&self, topic: &str, at_ms: i64) -> Result<BTreeMap<i32, i64>>;

    /// Sets next offsets of a group that nobody reads as, whatever they were: what is read again is processed again,
    /// and its outputs are appended again. The states that steps had there are forgotten.
    ///
    /// # Errors
    /// As all, and Fatal where it can be seen that somebody reads as the group.
    async fn set_progress(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<()>;

    /// Forgets all of a group's progress in a topic, as if it had never read there.
    ///
    /// # Errors
    /// As [`Admin::set_progress`].
    async fn forget_progress(&self, group: &str, topic: &str) -> Result<()>;
}

/// A connected log. Connecting may be lazy: the first call fails with Retry when the system is away.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Starts reading. The source joins its group in the background.
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Source>>;

    /// A producer; one is shared by all callers.
    async fn producer(&self) -> Result<Arc<dyn Producer>>;

    /// Topics and groups.
    fn admin(&self) -> Arc<dyn Admin>;

    /// Whether assignments of a group's source have a [`crate::Transactor`].
    fn has_transactions(&self) -> bool {
        false
    }
}
