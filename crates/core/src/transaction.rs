//! Outputs, the states of steps and progress of one partition's worker, as one.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    broker::NewRecord,
    error::{Error, Result},
};

/// What steps carry from batch to batch, by the step's id.
pub type States = BTreeMap<Arc<str>, Bytes>;

/// What became of a transaction.
#[derive(Debug)]
pub enum CommitOutcome {
    /// Its records are there, and so are the states and the progress.
    Committed,
    /// Nothing of it is there and nothing will be; why. Its batch is to be processed again.
    Aborted(Error),
}

/// Appends to the log that a partition is read from, so that what came of a batch becomes visible together with
/// the batch's progress, or not at all. Of one assignment of one partition; all of the group's progress there goes
/// through it. A transaction begins with the first `send` after a `commit`. Dropping it aborts what is open.
///
/// Shared by the sinks of one worker; `commit` is never called beside another call.
#[async_trait]
pub trait Transactor: Send + Sync {
    /// The states that were stored with the progress this assignment starts from. Called once, before anything
    /// else, and again after Retry; whatever a former owner left undecided is settled when it returns. A call may be
    /// dropped before it has answered; the next one waits for what it has begun.
    ///
    /// # Errors
    /// Retry when the log is away; Fatal when it refuses.
    async fn restore(&self) -> Result<States>;

    /// Adds records to the transaction, in order, and answers for each whether it is part of it. Cancel-safe: a
    /// dropped call has added nothing.
    ///
    /// # Errors
    /// Per record. Retry: not added, add it again. Reject: it can never be appended (too large). Fatal: the topic
    /// does not exist or may not be written. What fails later aborts the transaction.
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<()>>;

    /// Makes all of it visible: what was sent, the states that have changed, and that every record below
    /// `next_offset` is done. A former owner of the partition commits nothing.
    ///
    /// # Errors
    /// Retry: it is not known what became of it, or the log is away; call again with the same arguments.
    /// Fatal: the log refuses.
    async fn commit(&self, next_offset: i64, changed: &States) -> Result<CommitOutcome>;
}
