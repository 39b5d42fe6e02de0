//! The worker of one partition: takes batches in order and reports how far it has come.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use millrace_core::{Batch, Error, Lease, TopicPartition, Transactor};
use tokio::sync::mpsc;

use crate::{
    dead_letter::DeadLetter,
    decode::Decoded,
    flow::{Context, Flow, Halt},
    letter_cap::commonest,
    partitions::{Queue, Work},
    steering::HeldBy,
    transaction::Transactions,
};

/// What a worker tells the driver.
#[derive(Debug)]
pub(crate) enum Report {
    /// Every record below `next_offset` is done.
    Done { partition: TopicPartition, lease: Arc<Lease>, next_offset: i64, stage: Stage },
    /// The worker has ended by an error.
    Failed(Error),
}

/// What is left to do about progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The driver commits it.
    ToCommit,
    /// The worker commits it later.
    Done,
    /// The worker has committed it.
    Committed,
}

/// Counted per batch, for the summary of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) records: u64,
    pub(crate) skipped: u64,
    pub(crate) dead_letters: u64,
    /// When the first record of a batch with effects was appended; 0 without.
    appended_ms: i64,
}

impl Counts {
    /// Adds the next part of the same batch.
    fn join(&mut self, part: Counts) {
        self.records += part.records;
        self.skipped += part.skipped;
        self.dead_letters += part.dead_letters;
        if self.appended_ms == 0 {
            self.appended_ms = part.appended_ms;
        }
    }

    /// Adds a batch, here and to the metrics.
    pub(crate) fn add(&mut self, context: &Context, batch: Counts) {
        let name = &*context.pipeline.name;
        self.records += batch.records;
        self.skipped += batch.skipped;
        self.dead_letters += batch.dead_letters;
        context.metrics.records_in.with_label_values(&[name]).inc_by(batch.records);
        context.metrics.records_skipped.with_label_values(&[name]).inc_by(batch.skipped);
        if batch.appended_ms > 0 {
            let waited_ms = (context.clock.now_ms() - batch.appended_ms).max(0);
            let histogram = context.metrics.end_to_end_seconds.with_label_values(&[name]);
            histogram.observe(waited_ms as f64 / 1_000.0);
        }
    }
}

pub(crate) struct Worker {
    pub(crate) context: Context,
    pub(crate) topic_partition: TopicPartition,
    pub(crate) start: i64,
    pub(crate) queue: Arc<Queue>,
    pub(crate) reports: mpsc::Sender<Report>,
    /// Through which progress is committed, if not by the driver.
    pub(crate) transactor: Option<Arc<dyn Transactor>>,
}

impl Worker {
    /// Runs until it is told to drain or fails. Returns what it counted.
    pub(crate) async fn run(self) -> Counts {
        let mut counts = Counts::default();
        // A panic that nobody notices would leave the partition without a worker for ever.
        let end = AssertUnwindSafe(self.work(&mut counts)).catch_unwind().await;
        let failure = match end {
            Ok(Ok(()) | Err(Halt::Stopped)) => return counts,
            Ok(Err(Halt::Fatal(error))) => error,
            Err(_) => Error::fatal(format!("worker of {}", self.topic_partition), "ended by a panic"),
        };
        // The driver is gone only when the whole pipeline has ended.
        let _ = self.reports.send(Report::Failed(failure)).await;
        counts
    }

    async fn work(&self, counts: &mut Counts) -> Result<(), Halt> {
        if let Some(transactor) = &self.transactor {
            return Transactions::open(self, transactor.clone()).await?.work(counts).await;
        }
        let mut flow = Flow::open_at(self.context.clone(), self.start).await?;
        self.prime(&mut flow, self.start).await?;
        loop {
            let work = tokio::select! {
                biased;
                () = self.context.drain.cancelled() => return Ok(()),
                work = self.next() => work,
            };
            let next_offset = match work {
                Work::Mark(next_offset) => next_offset,
                Work::Batch(batch) => {
                    let batch = self.fill(batch).await;
                    let next_offset = batch.next_offset();
                    counts.add(&self.context, self.process(&mut flow, batch).await?);
                    next_offset
                }
            };
            self.report(next_offset, Stage::ToCommit).await;
        }
    }

    /// What was taken from the queue is done.
    pub(crate) async fn report(&self, next_offset: i64, stage: Stage) {
        self.queue.done();
        let (partition, lease) = (self.topic_partition.clone(), self.context.lease.clone());
        // The driver is gone only when the whole pipeline has ended.
        let _ = self.reports.send(Report::Done { partition, lease, next_offset, stage }).await;
    }

    /// The next work, when no pause stands. Cancel-safe.
    pub(crate) async fn next(&self) -> Work {
        let steering = &self.context.pipeline.steering;
        loop {
            steering.resumed().await;
            tokio::select! {
                biased;
                () = steering.held() => {}
                work = self.queue.pop() => return work,
            }
        }
    }

    /// Adds queued batches up to the limits, waiting at most for the linger time.
    pub(crate) async fn fill(&self, mut batch: Batch) -> Batch {
        let limits = &self.context.pipeline.limits;
        let mut bytes = batch.size_bytes();
        let mut add = |batch: &mut Batch| {
            while batch.records.len() < limits.batch_records_max {
                let Some(more) = self.queue.try_pop_batch(limits.batch_bytes_max.saturating_sub(bytes))
                else {
                    break;
                };
                bytes += more.size_bytes();
                batch.records.extend(more.records);
            }
            batch.records.len() >= limits.batch_records_max || bytes >= limits.batch_bytes_max
        };
        if !add(&mut batch) && !limits.linger.is_zero() {
            tokio::select! {
                biased;
                () = self.context.drain.cancelled() => {}
                () = tokio::time::sleep(limits.linger) => {}
            }
            add(&mut batch);
        }
        batch
    }

    /// Runs a batch through all stages, each part of it through the versions of its steps; all of it is acknowledged,
    /// or in the worker's transaction.
    pub(crate) async fn process(&self, flow: &mut Flow, mut batch: Batch) -> Result<Counts, Halt> {
        let mut counts = Counts::default();
        loop {
            let rest = self.turn(flow, &mut batch).await?;
            counts.join(self.process_part(flow, batch).await?);
            match rest {
                Some(rest) => batch = rest,
                None => return Ok(counts),
            }
        }
    }

    async fn process_part(&self, flow: &mut Flow, batch: Batch) -> Result<Counts, Halt> {
        let appended_ms = batch.records.first().map_or(0, |record| record.timestamp_ms);
        let records = batch.records.len() as u64;
        let mut skipped = 0;
        let mut messages = Vec::with_capacity(batch.records.len());
        for record in batch.records {
            match self.context.pipeline.decode.decode(record) {
                Decoded::Message(message) => messages.push(message),
                Decoded::Skipped => skipped += 1,
                // Decoding depends on the record alone: the main lane buries it.
                Decoded::Rejected(..) if self.context.pipeline.lane.is_some() => {}
                Decoded::Rejected(origin, error) => {
                    flow.reject(origin, crate::dead_letter::Place::Decode, &error, None);
                }
            }
        }
        let appended_ms = if messages.is_empty() { 0 } else { appended_ms };
        flow.run(0, messages).await?;
        let dead_letters = self.bury(flow).await?;
        Ok(Counts { records, skipped, dead_letters, appended_ms })
    }

    /// Stores what failed as dead letters; returns when they are acknowledged.
    async fn bury(&self, flow: &mut Flow) -> Result<u64, Halt> {
        let mut letters = flow.take_failures();
        let count = letters.len() as u64;
        if letters.is_empty() {
            return Ok(0);
        }
        self.wait_for_cap(&letters).await?;
        let context = &flow.context;
        let name = &*context.pipeline.name;
        for letter in &letters {
            let record = &letter.origin.record;
            let correlation_id = letter.origin.envelope.correlation_id.as_deref().unwrap_or_default();
            // What a module says may quote the record.
            let reason = letter.module.is_none().then_some(letter.reason.as_str());
            tracing::warn!(
                pipeline = name, partition = record.partition, offset = record.offset, correlation_id,
                place = %letter.place, reason, "record rejected"
            );
            tracing::debug!(
                pipeline = name,
                partition = record.partition,
                offset = record.offset,
                reason = letter.reason,
                "why it was rejected"
            );
            context.metrics.dead_letters.with_label_values(&[name, &letter.place.to_string()]).inc();
        }
        let first = letters[0].origin.clone();
        let mut attempts = context.broker_attempts(&"dead-letters");
        while !letters.is_empty() {
            let sending = context.pipeline.dead_letters.send(&mut letters);
            attempts.once(Some(&first), sending).await?.map_err(Halt::Fatal)?;
        }
        Ok(count)
    }

    /// When these would be more dead letters within a minute than the pipeline may write, it is paused before
    /// they are written; after that they are, and the minute begins again.
    async fn wait_for_cap(&self, letters: &[DeadLetter]) -> Result<(), Halt> {
        let pipeline = &self.context.pipeline;
        let max = pipeline.limits.dead_letters_per_minute_max;
        if pipeline.dead_letters.cap().take(letters.len(), max) {
            return Ok(());
        }
        let reason =
            format!("more than {max} dead letters within a minute; of the next ones {}", commonest(letters));
        self.context.pause(HeldBy::DeadLetters, reason).await?;
        pipeline.dead_letters.cap().begin_again(letters.len());
        Ok(())
    }
}
