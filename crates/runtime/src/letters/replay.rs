//! A pipeline that is given single records again, outside of its group: with their first identity, through all
//! stages, into all sinks. Nothing is committed; what fails again becomes a letter of its own.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use millrace_core::{Class, Error, Lease, Message, Result};
use tokio::time::{Duration, Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::read::{Letter, LetterId};
use crate::{
    backoff::{Backoff, RetryPolicy},
    clock::Clock,
    dead_letter::{DeadLetter, Place},
    decode::Decoded,
    flow::{Context, Flow, Halt},
    health::{Health, PipelineState},
    metrics::Metrics,
    pipeline::Pipeline,
};

/// How often is looked whether a call has been tried again for too long.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Runs letters through the pipeline that wrote them.
pub struct Replay {
    context: Context,
    retry_for: Duration,
}

/// What became of the letters of one call.
#[derive(Debug, Default)]
pub struct Replayed {
    /// Every result is acknowledged by every sink.
    pub done: Vec<LetterId>,
    /// Of these, events that the pipeline does not list (any more).
    pub skipped: u64,
    /// Failed again; a new letter is acknowledged, with the reason.
    pub again: Vec<(LetterId, String)>,
}

impl Replay {
    /// Prepares the pipeline's sinks. `shutdown` ends the replay as it ends a run: what works at the first try is
    /// finished. `retry_for` is how long calls are tried again before the replay gives up.
    ///
    /// # Errors
    /// Retry or Fatal when a sink cannot be prepared.
    pub async fn open(
        pipeline: Arc<Pipeline>,
        clock: Clock,
        shutdown: CancellationToken,
        retry_for: Duration,
    ) -> Result<Self> {
        let limit = pipeline.limits.call_timeout;
        for part in &pipeline.sinks {
            let what = format!("prepare {}", part.id);
            part.breaker.call(limit, &what, part.sink.prepare()).await?;
        }
        let context = Context {
            pipeline,
            metrics: Metrics::new(),
            health: Health::default(),
            clock,
            lease: Arc::new(Lease::unbounded()),
            drain: shutdown,
            partition: 0,
        };
        Ok(Replay { context, retry_for })
    }

    /// Runs letters of this pipeline, those of each origin partition in order of their origin's offset. A record with
    /// several letters (they are at least once) is run once, as the newest of them has it. When an error is
    /// returned, effects may have happened and are harmless when repeated; no letter is to be settled.
    ///
    /// # Errors
    /// Retry when a system is away for longer than `retry_for`, Fatal when something cannot work at all or the replay
    /// was told to end.
    pub async fn run(&self, letters: Vec<Letter>) -> Result<Replayed> {
        let mut groups: BTreeMap<(Arc<str>, i32), BTreeMap<i64, Vec<Letter>>> = BTreeMap::new();
        for letter in letters {
            let origin = (letter.record.topic.clone(), letter.record.partition);
            groups.entry(origin).or_default().entry(letter.record.offset).or_default().push(letter);
        }
        let mut replayed = Replayed::default();
        for ((_, partition), records) in groups {
            let context = Context { partition, ..self.context.clone() };
            let mut flow = Flow::open(context)?;
            for batch in self.batches(records.into_values()) {
                self.batch(&mut flow, batch, &mut replayed).await?;
            }
        }
        Ok(replayed)
    }

    /// The letters of one record each, cut into batches as a worker's are.
    fn batches(&self, records: impl Iterator<Item = Vec<Letter>>) -> Vec<Vec<Vec<Letter>>> {
        let limits = &self.context.pipeline.limits;
        let mut batches: Vec<Vec<Vec<Letter>>> = Vec::new();
        let mut bytes = 0;
        for mut same in records {
            same.sort_by_key(|letter| (letter.replays, letter.last_failed_ms, letter.id));
            let size = same.last().map_or(0, |newest| newest.record.size_bytes());
            let fits = |batch: &&mut Vec<Vec<Letter>>| {
                batch.len() < limits.batch_records_max && bytes + size <= limits.batch_bytes_max
            };
            match batches.last_mut().filter(fits) {
                Some(batch) => {
                    bytes += size;
                    batch.push(same);
                }
                None => {
                    bytes = size;
                    batches.push(vec![same]);
                }
            }
        }
        batches
    }

    async fn batch(&self, flow: &mut Flow, batch: Vec<Vec<Letter>>, replayed: &mut Replayed) -> Result<()> {
        let mut messages: Vec<Message> = Vec::with_capacity(batch.len());
        for newest in batch.iter().filter_map(|same| same.last()) {
            match self.context.pipeline.decode.decode(newest.record.clone()) {
                Decoded::Message(message) => messages.push(message),
                Decoded::Skipped => replayed.skipped += 1,
                Decoded::Rejected(origin, error) => flow.reject(origin, Place::Decode, &error, None),
            }
        }
        self.patiently(flow.run(0, messages)).await?;
        let failed = flow.take_failures();
        let reasons: HashMap<i64, String> = failed
            .iter()
            .map(|letter| (letter.origin.record.offset, format!("{}: {}", letter.place, letter.reason)))
            .collect();
        self.bury(failed, &batch).await?;
        for same in batch {
            for letter in same {
                match reasons.get(&letter.record.offset) {
                    Some(reason) => replayed.again.push((letter.id, reason.clone())),
                    None => replayed.done.push(letter.id),
                }
            }
        }
        Ok(())
    }

    /// Writes what failed again, with what the earlier letters know.
    async fn bury(&self, mut failed: Vec<DeadLetter>, batch: &[Vec<Letter>]) -> Result<()> {
        if failed.is_empty() {
            return Ok(());
        }
        let before: HashMap<i64, &Letter> = batch
            .iter()
            .filter_map(|same| same.last())
            .map(|letter| (letter.record.offset, letter))
            .collect();
        for letter in &mut failed {
            let Some(before) = before.get(&letter.origin.record.offset) else { continue };
            letter.attempts = before.attempts.saturating_add(letter.attempts);
            letter.replays = before.replays.saturating_add(1);
            letter.first_failed_ms = before.first_failed_ms;
        }
        let pipeline = &self.context.pipeline;
        let (queue, broker, limit) =
            (&pipeline.dead_letters, &pipeline.breaker, pipeline.limits.call_timeout);
        let (started, mut backoff) = (Instant::now(), Backoff::new(RetryPolicy::default(), 0));
        while let Err(error) = broker.call(limit, "dead letters", queue.send(&mut failed)).await {
            if error.class() != Class::Retry || started.elapsed() >= self.retry_for {
                return Err(error);
            }
            tokio::select! {
                biased;
                () = self.context.drain.cancelled() => return Err(self.stopped()),
                () = sleep(backoff.next_wait()) => {}
            }
        }
        Ok(())
    }

    fn stopped(&self) -> Error {
        Error::fatal(format!("pipeline {}", self.context.pipeline.name), "stopped before the end")
    }

    /// Waits for work that tries again without end, and gives it up when it has been doing so for too long, or when
    /// the pipeline pauses itself.
    async fn patiently(&self, work: impl Future<Output = Result<(), Halt>>) -> Result<()> {
        let name = &self.context.pipeline.name;
        self.context.health.set(name, PipelineState::Running);
        tokio::pin!(work);
        let mut since = Instant::now();
        loop {
            let ended = tokio::select! {
                biased;
                ended = &mut work => ended,
                () = sleep(LOOK_EVERY) => {
                    let given_up = |why| Error::new(Class::Retry, format!("pipeline {name}"), why);
                    if let Some(pause) = self.context.pipeline.steering.paused() {
                        return Err(given_up(pause.reason));
                    }
                    match self.context.health.states().remove(name) {
                        Some(PipelineState::Retrying(why)) if since.elapsed() >= self.retry_for => {
                            return Err(given_up(why));
                        }
                        Some(PipelineState::Retrying(_)) => {}
                        _ => since = Instant::now(),
                    }
                    continue;
                }
            };
            return match ended {
                Ok(()) => Ok(()),
                Err(Halt::Fatal(error)) => Err(error),
                Err(Halt::Stopped) => Err(self.stopped()),
            };
        }
    }
}
