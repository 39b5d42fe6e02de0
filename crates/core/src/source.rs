//! Where records come from.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::{
    error::Result,
    lease::Lease,
    record::{Batch, TopicPartition},
    transaction::Transactor,
};

/// A partition this process may work on.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Which one.
    pub partition: TopicPartition,
    /// Where reading starts: the committed offset, or the start of the log.
    pub next_offset: i64,
    /// The right to write for it.
    pub lease: Arc<Lease>,
}

/// What a source yields.
#[derive(Debug)]
pub enum SourceEvent {
    /// Partitions were added. Comes before their first batch.
    Assigned(Vec<Assignment>),
    /// Records of one assigned partition.
    Batch(Batch),
    /// The end of a partition was reached: all records below `next_offset` have been yielded. Comes again
    /// each time the end is reached, and covers control records that are never yielded.
    CaughtUp {
        /// Which one.
        partition: TopicPartition,
        /// The offset the next record will have.
        next_offset: i64,
    },
    /// Partitions were taken away. Finish or drop what is in flight, commit, then drop `done`; the source
    /// waits for it, for less than half of the session.
    Revoked {
        /// Which ones.
        partitions: Vec<TopicPartition>,
        /// Lost, not handed over: nothing may be committed.
        lost: bool,
        /// Dropped or sent when their work has ended.
        done: oneshot::Sender<()>,
    },
    /// The committed offset is below the start of the log: records `from..to` are gone.
    Gap {
        /// Which one.
        partition: TopicPartition,
        /// The first lost offset.
        from: i64,
        /// The first offset that is still there.
        to: i64,
    },
}

/// Reads records in order. Dropping it leaves the group.
#[async_trait]
pub trait Source: Send {
    /// The next event; none when the source has ended for good. Cancel-safe: nothing is lost when the future
    /// is dropped. While it is not called, the source holds back: it goes on polling its group, but fetches
    /// no more than its prefetch bound.
    ///
    /// # Errors
    /// Retry: call again, the source is reconnecting. Fatal: the source is of no more use.
    async fn next(&mut self) -> Result<Option<SourceEvent>>;

    /// The handle to commit and to hold back single partitions, usable while `next` is pending.
    fn control(&self) -> Arc<dyn Control>;
}

/// Commits progress and holds partitions back. Usable from any task.
#[async_trait]
pub trait Control: Send + Sync {
    /// Stores next-to-read offsets for the group. A partition that is not this process's any more is
    /// ignored, not an error.
    ///
    /// # Errors
    /// Retry when the broker is away, Fatal when it refuses.
    async fn commit(&self, offsets: &[(TopicPartition, i64)]) -> Result<()>;

    /// Stops fetching from these partitions; batches already fetched may still be yielded.
    fn pause(&self, partitions: &[TopicPartition]);

    /// Fetches from them again.
    fn resume(&self, partitions: &[TopicPartition]);

    /// For a worker of this assignment whose outputs are to be as exact as its progress; none where the log cannot,
    /// or there is no group. Connects to nothing yet.
    fn transactor(&self, _assignment: &Assignment) -> Option<Arc<dyn Transactor>> {
        None
    }
}
