//! The worker of one partition: takes batches in order and reports how far it has come.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use millrace_core::{
    Batch, Class, Envelope, Error, Lease, Message, Origin, Record, SourceEvent, Start, Subscription,
    TopicPartition,
};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    decode::Decoded,
    flow::{Context, Flow, Halt},
    partitions::{Queue, Work},
};

/// What a worker tells the driver.
#[derive(Debug)]
pub(crate) enum Report {
    /// Every record below `next_offset` is done.
    Done { partition: TopicPartition, lease: Arc<Lease>, next_offset: i64 },
    /// The worker has ended by an error.
    Failed(Error),
}

/// Counted per batch, for the summary of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) records: u64,
    pub(crate) skipped: u64,
    pub(crate) dead_letters: u64,
}

pub(crate) struct Worker {
    pub(crate) context: Context,
    pub(crate) topic_partition: TopicPartition,
    pub(crate) start: i64,
    pub(crate) queue: Arc<Queue>,
    pub(crate) reports: mpsc::Sender<Report>,
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
        let mut flow = Flow::open(self.context.clone()).map_err(Halt::Fatal)?;
        self.prime(&mut flow).await?;
        loop {
            let work = tokio::select! {
                biased;
                () = self.context.drain.cancelled() => return Ok(()),
                work = self.queue.pop() => work,
            };
            let next_offset = match work {
                Work::Mark(next_offset) => next_offset,
                Work::Batch(batch) => {
                    let batch = self.fill(batch).await;
                    let next_offset = batch.next_offset();
                    self.process(&mut flow, batch, counts).await?;
                    next_offset
                }
            };
            self.queue.done();
            let (partition, lease) = (self.topic_partition.clone(), self.context.lease.clone());
            let _ = self.reports.send(Report::Done { partition, lease, next_offset }).await;
        }
    }

    /// Adds queued batches up to the limits, waiting at most for the linger time.
    async fn fill(&self, mut batch: Batch) -> Batch {
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

    async fn process(&self, flow: &mut Flow, batch: Batch, counts: &mut Counts) -> Result<(), Halt> {
        let context = &self.context;
        let name = &*context.pipeline.name;
        let appended_ms = batch.records.first().map_or(0, |record| record.timestamp_ms);
        let records = batch.records.len() as u64;
        let mut skipped = 0;
        let mut messages = Vec::with_capacity(batch.records.len());
        for record in batch.records {
            match context.pipeline.decode.decode(record) {
                Decoded::Message(message) => messages.push(message),
                Decoded::Skipped => skipped += 1,
                Decoded::Rejected(origin, error) => {
                    flow.reject(origin, crate::dead_letter::Place::Decode, &error, None);
                }
            }
        }
        let effects = !messages.is_empty();
        flow.run(0, messages).await?;
        let letters = self.bury(flow).await?;
        counts.records += records;
        counts.skipped += skipped;
        counts.dead_letters += letters;
        context.metrics.records_in.with_label_values(&[name]).inc_by(records);
        context.metrics.records_skipped.with_label_values(&[name]).inc_by(skipped);
        if effects && appended_ms > 0 {
            let waited_ms = (context.clock.now_ms() - appended_ms).max(0);
            let histogram = context.metrics.end_to_end_seconds.with_label_values(&[name]);
            histogram.observe(waited_ms as f64 / 1_000.0);
        }
        Ok(())
    }

    /// Stores what failed as dead letters; returns when they are acknowledged.
    async fn bury(&self, flow: &mut Flow) -> Result<u64, Halt> {
        let letters = flow.take_failures();
        if letters.is_empty() {
            return Ok(0);
        }
        let context = &self.context;
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
        let mut backoff = context.backoff();
        loop {
            context.wait_for_lease().await?;
            match context.pipeline.dead_letters.send(&letters).await {
                Ok(()) => return Ok(letters.len() as u64),
                Err(error) => context.retry_or_halt("dead-letters", error, &mut backoff).await?,
            }
        }
    }

    /// Reads the history the steps ask for and hands it to them.
    async fn prime(&self, flow: &mut Flow) -> Result<(), Halt> {
        let wanted =
            flow.steps().filter_map(|step| step.look_back()).map(|back| i64::from(back.records_max)).max();
        let Some(records) = wanted else { return Ok(()) };
        let history = self.history(self.start.saturating_sub(records).max(0)).await?;
        let now_ms = self.context.clock.now_ms();
        for step in flow.steps() {
            let Some(back) = step.look_back() else { continue };
            let oldest_ms = back.age_max.map_or(i64::MIN, |age| now_ms - age.as_millis() as i64);
            let skip = history.len().saturating_sub(back.records_max as usize);
            let seen = history[skip..].iter().filter(|m| m.origin.record.timestamp_ms >= oldest_ms).cloned();
            step.prime(seen.collect()).map_err(Halt::Fatal)?;
        }
        Ok(())
    }

    /// The messages of this partition from `from` up to where the worker starts.
    async fn history(&self, from: i64) -> Result<Vec<Message>, Halt> {
        let pipeline = &self.context.pipeline;
        let subscription = Subscription {
            group: None,
            partitions: Some(vec![self.topic_partition.partition]),
            start: Start::Offset(from),
            ..pipeline.subscription.clone()
        };
        let mut history = Vec::new();
        if from >= self.start {
            return Ok(history);
        }
        let mut backoff = self.context.backoff();
        let mut source = loop {
            match pipeline.broker.subscribe(subscription.clone()).await {
                Ok(source) => break source,
                Err(error) => self.context.retry_or_halt("look-back", error, &mut backoff).await?,
            }
        };
        loop {
            let event = match timeout(pipeline.limits.drain_timeout, source.next()).await {
                Err(_) => Err(Error::retry("look back", "the source did not answer in time")),
                Ok(event) => event,
            };
            match event {
                Ok(Some(SourceEvent::Batch(batch))) => {
                    let next_offset = batch.next_offset();
                    let below = batch.records.into_iter().filter(|record| record.offset < self.start);
                    history.extend(below.map(raw_message));
                    if next_offset >= self.start {
                        return Ok(history);
                    }
                }
                Ok(Some(SourceEvent::CaughtUp { .. }) | None) => return Ok(history),
                Ok(Some(_)) => {}
                Err(error) if error.class() == Class::Retry => {
                    self.context.retry("look-back", &error, &mut backoff).await?;
                }
                Err(error) => return Err(Halt::Fatal(error)),
            }
        }
    }
}

fn raw_message(record: Record) -> Message {
    let envelope = Envelope::of_json(&record).unwrap_or_default();
    Message::first(Arc::new(Origin { record, envelope }))
}
