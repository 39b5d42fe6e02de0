//! How a worker works in transactions: what a batch appends, the states it leaves and its progress are one.
//!
//! A transaction that is aborted has its batch run again, by new steps that are given what they had at the batch's
//! start. What other sinks have done by then is repeated, which their effects bear.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use millrace_core::{Batch, CommitOutcome, NewRecord, Result, States, Transactor};
use tokio::time::{Instant, sleep_until};

use crate::{
    attempts::Attempts,
    flow::{Context, Flow, Halt},
    partitions::Work,
    worker::{Counts, Stage, Worker},
};

/// Where retries of a commit are counted.
const PLACE: &str = "commit";
/// Where those of taking up states are.
const RESTORE: &str = "restore";

/// A worker's transactions, one after the other.
pub(crate) struct Transactions<'a> {
    worker: &'a Worker,
    transactor: Arc<Watched>,
    /// The worker's, with a pipeline that appends within the transaction.
    context: Context,
    /// As committed.
    states: States,
    committed: i64,
    /// Done, with nothing to be made visible: committed with the next transaction, or by then.
    behind: Option<(i64, Instant)>,
}

/// Knows whether the transaction holds anything.
struct Watched {
    transactor: Arc<dyn Transactor>,
    holds: AtomicBool,
}

#[async_trait]
impl Transactor for Watched {
    async fn restore(&self) -> Result<States> {
        self.transactor.restore().await
    }

    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<()>> {
        self.holds.fetch_or(!records.is_empty(), Ordering::AcqRel);
        self.transactor.send(topic, records).await
    }

    async fn commit(&self, next_offset: i64, changed: &States) -> Result<CommitOutcome> {
        let outcome = self.transactor.commit(next_offset, changed).await?;
        self.holds.store(false, Ordering::Release);
        Ok(outcome)
    }
}

impl<'a> Transactions<'a> {
    /// Takes up the states that the last owner has left.
    pub(crate) async fn open(worker: &'a Worker, transactor: Arc<dyn Transactor>) -> Result<Self, Halt> {
        let transactor = Arc::new(Watched { transactor, holds: AtomicBool::new(false) });
        let joined: Arc<dyn Transactor> = transactor.clone();
        let pipeline = Arc::new(worker.context.pipeline.within(&joined));
        let context = Context { pipeline, ..worker.context.clone() };
        let mut attempts = worker.context.broker_attempts(&RESTORE);
        let states = attempts.call(None, || transactor.restore()).await?.map_err(Halt::Fatal)?;
        let committed = worker.start;
        Ok(Transactions { worker, transactor, context, states, committed, behind: None })
    }

    /// Runs until it is told to drain or fails.
    pub(crate) async fn work(mut self, counts: &mut Counts) -> Result<(), Halt> {
        let mut flow = self.flow(self.committed).await?;
        loop {
            let late = self.behind.map(|(_, deadline)| deadline);
            let work = tokio::select! {
                biased;
                () = self.context.drain.cancelled() => return self.catch_up().await,
                () = until(late) => {
                    self.catch_up().await?;
                    continue;
                }
                work = self.worker.next() => work,
            };
            match work {
                Work::Mark(next_offset) => self.note(next_offset).await,
                Work::Batch(batch) => {
                    let batch = self.worker.fill(batch).await;
                    flow = self.process(flow, batch, counts).await?;
                }
            }
        }
    }

    /// Processes a batch until its transaction is committed; gives the steps as they are then.
    async fn process(&mut self, mut flow: Flow, batch: Batch, counts: &mut Counts) -> Result<Flow, Halt> {
        let (first, next_offset) = (batch.records[0].offset, batch.next_offset());
        let mut attempts = self.worker.context.broker_attempts(&PLACE);
        loop {
            let counted = self.worker.process(&mut flow, batch.clone()).await?;
            let changed = flow.changed_states(&self.states);
            if !self.transactor.holds.load(Ordering::Acquire) && changed.is_empty() {
                counts.add(&self.context, counted);
                self.note(next_offset).await;
                return Ok(flow);
            }
            match self.commit(next_offset, &changed, &mut attempts).await? {
                CommitOutcome::Committed => {
                    counts.add(&self.context, counted);
                    self.states.extend(changed);
                    self.worker.report(next_offset, Stage::Committed).await;
                    return Ok(flow);
                }
                CommitOutcome::Aborted(error) => {
                    attempts.failed(&error, None).await?;
                    flow = self.flow(first).await?;
                }
            }
        }
    }

    /// Everything below is done and leaves nothing to be made visible.
    async fn note(&mut self, next_offset: i64) {
        let is_news = next_offset > self.committed;
        if is_news {
            let deadline = Instant::now() + self.context.pipeline.limits.commit_interval;
            self.behind = Some((next_offset, self.behind.map_or(deadline, |(_, earlier)| earlier)));
        }
        self.worker.report(next_offset, if is_news { Stage::Done } else { Stage::Committed }).await;
    }

    /// Commits what is behind.
    async fn catch_up(&mut self) -> Result<(), Halt> {
        let mut attempts = self.worker.context.broker_attempts(&PLACE);
        while let Some((next_offset, _)) = self.behind {
            match self.commit(next_offset, &States::new(), &mut attempts).await? {
                CommitOutcome::Committed => self.worker.report(next_offset, Stage::Committed).await,
                CommitOutcome::Aborted(error) => {
                    attempts.failed(&error, None).await?;
                }
            }
        }
        Ok(())
    }

    /// The log bounds the time of a commit itself: one that is cut off would be undecided.
    async fn commit(
        &mut self,
        next_offset: i64,
        changed: &States,
        attempts: &mut Attempts<'_>,
    ) -> Result<CommitOutcome, Halt> {
        loop {
            self.context.wait_for_lease().await?;
            match self.transactor.commit(next_offset, changed).await {
                Ok(CommitOutcome::Committed) => {
                    self.committed = next_offset;
                    self.behind = None;
                    self.context.recovered();
                    return Ok(CommitOutcome::Committed);
                }
                Ok(aborted) => return Ok(aborted),
                Err(error) => attempts.failed_or_halt(error).await?,
            }
        }
    }

    /// New steps, as they were when `start` was next.
    async fn flow(&self, start: i64) -> Result<Flow, Halt> {
        let mut flow = Flow::open_at(self.context.clone(), start).await?;
        flow.restore(&self.states).map_err(Halt::Fatal)?;
        self.worker.prime(&mut flow, start).await?;
        Ok(flow)
    }
}

/// Waits until then; for ever without a time.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
