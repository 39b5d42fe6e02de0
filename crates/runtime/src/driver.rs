//! One pipeline from its start to its end: feeds the workers, commits what they did, hands partitions over.

mod steer;
mod summary;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use futures::future::join_all;
use millrace_core::{
    Assignment, Batch, Class, Control, Error, Lease, Result, Source, SourceEvent, TopicPartition,
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinHandle},
    time::{Duration, Instant, MissedTickBehavior, interval, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    breaker::within,
    clock::Clock,
    flow::Context,
    health::{Health, PipelineState, Trier},
    metrics::Metrics,
    partitions::{Queue, Work},
    pipeline::{OnGap, Pipeline},
    until_end::Goal,
    worker::{Counts, Report, Stage, Worker},
};

pub use summary::{Mode, Summary};

/// How often the group's progress is asked for when this process's own part of the goal is done.
const GOAL_INTERVAL: Duration = Duration::from_millis(200);

/// How often the lag is measured.
const LAG_INTERVAL: Duration = Duration::from_secs(5);

/// Runs a pipeline until `shutdown` is cancelled, the mode's end is reached, or an error ends it. On shutdown
/// the batches in flight are finished (within the drain time-out) and committed.
///
/// # Errors
/// Fatal: the pipeline cannot go on.
pub async fn run_pipeline(
    pipeline: Arc<Pipeline>,
    mode: Mode,
    metrics: Metrics,
    health: Health,
    clock: Clock,
    shutdown: CancellationToken,
) -> Result<Summary> {
    let name = pipeline.name.clone();
    health.set(&name, PipelineState::Starting);
    pipeline.breakers().for_each(|breaker| breaker.observe(&health, &metrics, &clock));
    let started = start(&pipeline, mode, &health, &clock, &shutdown).await;
    let end = match started {
        Ok(Some((source, goal))) => {
            health.set(&name, PipelineState::Running);
            Driver::new(pipeline, metrics, health.clone(), clock, source).run(goal, shutdown).await
        }
        Ok(None) => Ok(Summary::default()),
        Err(error) => Err(error),
    };
    health.set(
        &name,
        end.as_ref().map_or_else(|e| PipelineState::Failed(e.chain()), |_| PipelineState::Stopped),
    );
    end
}

/// Prepares the sinks and opens the source, trying again while systems are away. None: told to stop.
async fn start(
    pipeline: &Arc<Pipeline>,
    mode: Mode,
    health: &Health,
    clock: &Clock,
    shutdown: &CancellationToken,
) -> Result<Option<(Box<dyn Source>, Option<Goal>)>> {
    let mut backoff = Backoff::new(pipeline.retry, clock.now_ms().cast_unsigned());
    loop {
        let opened = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(None),
            opened = async {
                admitted(pipeline, health).await;
                open(pipeline, mode).await
            } => opened,
        };
        match opened {
            Ok(opened) => return Ok(Some(opened)),
            Err(error) if error.class() == Class::Retry => {
                health.retrying(&pipeline.name, Trier::Start, error.chain());
                let wait = backoff.next_wait();
                tracing::warn!(pipeline = &*pipeline.name, error = %error.chain(), "not ready, trying again in {} ms", wait.as_millis());
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Ok(None),
                    () = sleep(wait) => {}
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits in turn for the systems that are not called at the moment.
async fn admitted(pipeline: &Pipeline, health: &Health) {
    while let Some(held) = pipeline.breakers().find_map(|breaker| breaker.check().err()) {
        health.retrying(&pipeline.name, Trier::Start, held.error().chain());
        held.over().await;
    }
}

async fn open(pipeline: &Pipeline, mode: Mode) -> Result<(Box<dyn Source>, Option<Goal>)> {
    pipeline.steering.ready().await?;
    if pipeline.steering.is_ended() && mode == Mode::UntilEnd {
        return Err(Error::fatal(
            format!("pipeline {}", pipeline.name),
            "is stopped; 'millrace start' lets it begin",
        ));
    }
    // Whoever runs it ends it meanwhile.
    pipeline.steering.until_ended(false).await;
    let limit = pipeline.limits.call_timeout;
    for part in &pipeline.sinks {
        let what = format!("prepare {}", part.id);
        part.breaker.call(limit, &what, part.sink.prepare()).await?;
    }
    let (broker, admin, topic) = (&pipeline.breaker, pipeline.broker.admin(), &pipeline.subscription.topic);
    let goal = match mode {
        Mode::Forever => None,
        Mode::UntilEnd => {
            Some(broker.call(limit, &format!("ends of {topic}"), Goal::of(&*admin, topic)).await?)
        }
    };
    if let Some(goal) = &goal {
        tracing::debug!(pipeline = &*pipeline.name, records = goal.records(), "running until the end");
    }
    let subscribing = pipeline.broker.subscribe(pipeline.subscription.clone());
    Ok((broker.call(limit, &format!("subscribe to {topic}"), subscribing).await?, goal))
}

struct Driver {
    pipeline: Arc<Pipeline>,
    metrics: Metrics,
    health: Health,
    clock: Clock,
    /// Kept to the end: dropping it leaves the group, and then nothing can be committed any more.
    source: Box<dyn Source>,
    control: Arc<dyn Control>,
    /// Ordered: in which order workers are told to drain must not differ from run to run.
    partitions: BTreeMap<TopicPartition, Partition>,
    reports_in: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
    /// Done and not yet committed.
    dirty: BTreeMap<TopicPartition, i64>,
    /// What is being committed; the loop goes on meanwhile.
    committing: Option<Committing>,
    committed: BTreeMap<TopicPartition, i64>,
    /// A pause stands: no partition is read.
    held: bool,
    summary: Summary,
}

/// A partition and its worker.
struct Partition {
    queue: Arc<Queue>,
    lease: Arc<Lease>,
    drain: CancellationToken,
    /// Taken when its end is awaited.
    worker: Option<JoinHandle<Counts>>,
    abort: AbortHandle,
    paused: bool,
}

/// A commit under way and what became of it.
type Committing = JoinHandle<(Vec<(TopicPartition, i64)>, Result<()>)>;

/// Next offsets that are done, shared with the task that measures the lag.
type Progress = Arc<Mutex<HashMap<TopicPartition, i64>>>;

impl Driver {
    fn new(
        pipeline: Arc<Pipeline>,
        metrics: Metrics,
        health: Health,
        clock: Clock,
        source: Box<dyn Source>,
    ) -> Self {
        let (reports_in, reports) = mpsc::channel(256);
        let control = source.control();
        Driver {
            pipeline,
            metrics,
            health,
            clock,
            source,
            control,
            partitions: BTreeMap::new(),
            reports_in,
            reports,
            dirty: BTreeMap::new(),
            committing: None,
            committed: BTreeMap::new(),
            held: false,
            summary: Summary::default(),
        }
    }

    async fn run(mut self, goal: Option<Goal>, shutdown: CancellationToken) -> Result<Summary> {
        let progress = Progress::default();
        let lag = tokio::spawn(measure_lag(
            self.pipeline.clone(),
            self.metrics.clone(),
            self.health.clone(),
            progress.clone(),
        ));
        let end = self.drive(goal, &shutdown, &progress).await;
        let all: Vec<_> = self.partitions.keys().cloned().collect();
        let drained = self.drain(&all).await;
        let committed = self.commit().await;
        lag.abort();
        end.and(drained).and(committed)?;
        Ok(self.summary)
    }

    async fn drive(
        &mut self,
        goal: Option<Goal>,
        shutdown: &CancellationToken,
        progress: &Progress,
    ) -> Result<()> {
        let mut commit_tick = interval(self.pipeline.limits.commit_interval);
        commit_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut steered = self.pipeline.steering.watch();
        steered.mark_changed();
        let mut goal_tick = interval(GOAL_INTERVAL);
        goal_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Ok(()) = steered.changed() => self.steer(goal.is_some())?,
                report = self.reports.recv() => {
                    let report = report.expect("invariant: the driver holds a sender itself");
                    self.note(report, Some(progress))?;
                }
                _ = commit_tick.tick(), if self.committing.is_none() => self.begin_commit(),
                answer = ended(&mut self.committing) => self.end_commit(answer)?,
                _ = goal_tick.tick(), if goal.is_some() => {
                    if self.reached(goal.as_ref()).await? {
                        return Ok(());
                    }
                }
                event = self.source.next() => match event {
                    Ok(Some(event)) => self.handle(event, progress).await?,
                    Ok(None) => return Ok(()),
                    Err(error) if error.class() == Class::Retry => {
                        self.health.retrying(&self.pipeline.name, Trier::Source, error.chain());
                        tracing::warn!(pipeline = &*self.pipeline.name, error = %error.chain(), "the source is reconnecting");
                    }
                    Err(error) => return Err(error),
                },
            }
        }
    }

    async fn handle(&mut self, event: SourceEvent, progress: &Progress) -> Result<()> {
        self.health.recovered(&self.pipeline.name, Trier::Source);
        match event {
            SourceEvent::Assigned(assignments) => {
                for assignment in assignments {
                    lock(progress).insert(assignment.partition.clone(), assignment.next_offset);
                    self.assign(assignment);
                }
            }
            SourceEvent::Batch(batch) => self.feed(batch),
            SourceEvent::CaughtUp { partition, next_offset } => {
                if let Some(entry) = self.partitions.get(&partition) {
                    entry.queue.push(Work::Mark(next_offset));
                }
            }
            SourceEvent::Revoked { partitions, lost, done } => {
                let mut failure = Ok(());
                if lost {
                    self.abandon(&partitions);
                    // What is under way for them must not be taken for progress of the next assignment.
                    self.settle().await?;
                } else {
                    failure = self.drain(&partitions).await;
                    self.commit().await?;
                }
                for partition in &partitions {
                    lock(progress).remove(partition);
                    self.committed.remove(partition);
                    self.dirty.remove(partition);
                    self.forget_lag(partition);
                }
                self.measure_held();
                drop(done);
                return failure;
            }
            SourceEvent::Gap { partition, from, to } => self.gap(&partition, from, to)?,
        }
        Ok(())
    }

    fn gap(&self, partition: &TopicPartition, from: i64, to: i64) -> Result<()> {
        let lost = to.saturating_sub(from).max(0);
        let what = format!("records {from} to {} of {partition} were removed before they were read", to - 1);
        match self.pipeline.on_gap {
            OnGap::Stop => Err(Error::fatal(
                format!("pipeline {}", self.pipeline.name),
                format!("{what}; set 'on_gap: continue' to go on without them"),
            )),
            OnGap::Continue => {
                tracing::error!(pipeline = &*self.pipeline.name, "{what}; going on without them");
                let name = &*self.pipeline.name;
                self.metrics.lost.with_label_values(&[name]).inc_by(lost.cast_unsigned());
                Ok(())
            }
        }
    }

    fn assign(&mut self, assignment: Assignment) {
        let transactor = match self.pipeline.transactions {
            true => self.control.transactor(&assignment),
            false => None,
        };
        let Assignment { partition, next_offset, lease } = assignment;
        tracing::info!(
            pipeline = &*self.pipeline.name,
            topic = &*partition.topic,
            partition = partition.partition,
            next_offset,
            "partition assigned"
        );
        let queue = Arc::new(Queue::default());
        let drain = CancellationToken::new();
        let worker = Worker {
            context: Context {
                pipeline: self.pipeline.clone(),
                metrics: self.metrics.clone(),
                health: self.health.clone(),
                clock: self.clock.clone(),
                lease: lease.clone(),
                drain: drain.clone(),
                partition: partition.partition,
            },
            topic_partition: partition.clone(),
            start: next_offset,
            queue: queue.clone(),
            reports: self.reports_in.clone(),
            transactor,
        };
        let worker = tokio::spawn(worker.run());
        let abort = worker.abort_handle();
        let entry = Partition { queue, lease, drain, worker: Some(worker), abort, paused: false };
        if self.held {
            self.control.pause(std::slice::from_ref(&partition));
        }
        self.partitions.insert(partition, entry);
    }

    fn feed(&mut self, batch: Batch) {
        let partition = batch.topic_partition();
        // A batch of a partition that was taken away meanwhile is the next owner's.
        let Some(entry) = self.partitions.get_mut(&partition) else { return };
        entry.queue.push_batch(batch, self.pipeline.limits.batch_bytes_max);
        if !entry.paused && entry.queue.queued_bytes() > self.pipeline.limits.queue_bytes_max {
            entry.paused = true;
            self.control.pause(&[partition]);
        }
        self.measure_held();
    }

    fn note(&mut self, report: Report, progress: Option<&Progress>) -> Result<()> {
        match report {
            Report::Failed(error) => Err(error),
            Report::Done { partition, lease, next_offset, stage } => {
                let Some(entry) = self.partitions.get_mut(&partition) else { return Ok(()) };
                if !Arc::ptr_eq(&entry.lease, &lease) {
                    return Ok(());
                }
                self.health.recovered(&self.pipeline.name, Trier::Worker(partition.partition));
                if entry.paused && entry.queue.queued_bytes() <= self.pipeline.limits.queue_bytes_max / 2 {
                    entry.paused = false;
                    if !self.held {
                        self.control.resume(std::slice::from_ref(&partition));
                    }
                }
                if let Some(progress) = progress {
                    lock(progress).insert(partition.clone(), next_offset);
                }
                let is_news = self.committed.get(&partition).is_none_or(|committed| *committed < next_offset);
                match stage {
                    Stage::ToCommit if is_news => drop(self.dirty.insert(partition, next_offset)),
                    Stage::ToCommit | Stage::Done => {}
                    Stage::Committed => self.committed_now([(partition, next_offset)]),
                }
                self.measure_held();
                Ok(())
            }
        }
    }

    /// The lag of a partition that is another process's now is that process's to tell.
    fn forget_lag(&self, partition: &TopicPartition) {
        let number = partition.partition.to_string();
        // There is none to forget when it was never measured.
        let _ = self.metrics.lag.remove_label_values(&[&*self.pipeline.name, &*partition.topic, &number]);
    }

    fn measure_held(&self) {
        let held: usize = self.partitions.values().map(|entry| entry.queue.held_bytes()).sum();
        let gauge = self.metrics.in_flight_bytes.with_label_values(&[&*self.pipeline.name]);
        gauge.set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    /// Commits all that is done, and waits for it.
    async fn commit(&mut self) -> Result<()> {
        self.settle().await?;
        self.begin_commit();
        self.settle().await
    }

    /// Waits for the commit under way, if there is one.
    async fn settle(&mut self) -> Result<()> {
        if self.committing.is_some() {
            let answer = ended(&mut self.committing).await;
            self.end_commit(answer)?;
        }
        Ok(())
    }

    fn begin_commit(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        let offsets: Vec<_> = std::mem::take(&mut self.dirty).into_iter().collect();
        let (control, pipeline) = (self.control.clone(), self.pipeline.clone());
        self.committing = Some(tokio::spawn(async move {
            let (limit, who) = (pipeline.limits.call_timeout, pipeline.breaker.endpoint());
            let answer = within(limit, who, "commit", control.commit(&offsets)).await;
            (offsets, answer)
        }));
    }

    fn end_commit(&mut self, (offsets, answer): (Vec<(TopicPartition, i64)>, Result<()>)) -> Result<()> {
        self.committing = None;
        match answer {
            Ok(()) => {
                self.committed_now(offsets);
                Ok(())
            }
            Err(error) if error.class() == Class::Retry => {
                tracing::warn!(pipeline = &*self.pipeline.name, error = %error.chain(), "progress not committed, trying again");
                for (partition, next) in offsets {
                    self.dirty.entry(partition).or_insert(next);
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn committed_now(&mut self, offsets: impl IntoIterator<Item = (TopicPartition, i64)>) {
        self.committed.extend(offsets);
        let seconds = self.clock.now_ms() as f64 / 1_000.0;
        self.metrics.last_commit.with_label_values(&[&*self.pipeline.name]).set(seconds);
    }

    /// Lets the workers of these partitions finish their batch, and takes note of what they did. Meanwhile any
    /// worker may fail, also one of another partition; the first failure is the answer.
    async fn drain(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        let deadline = Instant::now() + self.pipeline.limits.drain_timeout;
        let mut handles = Vec::new();
        for partition in partitions {
            if let Some(entry) = self.partitions.get_mut(partition) {
                entry.drain.cancel();
                handles.extend(entry.worker.take());
            }
        }
        let mut ended = Box::pin(join_all(handles));
        let mut reports = Vec::new();
        loop {
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => reports.push(report),
                counts = timeout_at(deadline, &mut ended) => {
                    match counts {
                        Ok(counts) => counts.into_iter().flatten().for_each(|c| add(&mut self.summary, c)),
                        Err(_) => tracing::warn!(pipeline = &*self.pipeline.name, "work in flight did not end in time, it will be repeated"),
                    }
                    break;
                }
            }
        }
        drop(ended);
        while let Ok(report) = self.reports.try_recv() {
            reports.push(report);
        }
        let mut end = Ok(());
        for report in reports {
            end = end.and(self.note(report, None));
        }
        self.abandon(partitions);
        end
    }

    /// Ends the workers of these partitions at once.
    fn abandon(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            if let Some(entry) = self.partitions.remove(partition) {
                entry.drain.cancel();
                entry.abort.abort();
                self.health.recovered(&self.pipeline.name, Trier::Worker(partition.partition));
            }
        }
    }

    async fn reached(&mut self, goal: Option<&Goal>) -> Result<bool> {
        let Some(goal) = goal else { return Ok(false) };
        let topic: Arc<str> = self.pipeline.subscription.topic.as_str().into();
        let key = |partition| TopicPartition { topic: topic.clone(), partition };
        let own = |partition| self.committed.get(&key(partition)).copied();
        let unfinished =
            |partition: i32| self.partitions.contains_key(&key(partition)) && own(partition).is_none();
        if goal.reached(own) {
            return Ok(true);
        }
        // Ask the broker only when nothing of ours is left to do.
        if !goal.reached(|partition| own(partition).or((!unfinished(partition)).then_some(i64::MAX))) {
            return Ok(false);
        }
        let Some(group) = &self.pipeline.subscription.group else { return Ok(false) };
        let (admin, who) = (self.pipeline.broker.admin(), self.pipeline.breaker.endpoint());
        let asked = admin.progress(group, &topic);
        match within(self.pipeline.limits.call_timeout, who, "progress", asked).await {
            Ok(progress) => Ok(goal.reached(|partition| progress.get(&partition).copied())),
            Err(error) if error.class() == Class::Retry => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Waits for the commit under way; for ever if there is none. Cancel-safe.
async fn ended(committing: &mut Option<Committing>) -> (Vec<(TopicPartition, i64)>, Result<()>) {
    match committing {
        None => std::future::pending().await,
        Some(handle) => handle.await.unwrap_or_else(|panic| {
            (Vec::new(), Err(Error::fatal("commit", "ended by a panic").with_source(panic)))
        }),
    }
}

fn add(summary: &mut Summary, counts: Counts) {
    summary.records += counts.records;
    summary.skipped += counts.skipped;
    summary.dead_letters += counts.dead_letters;
}

fn lock(progress: &Progress) -> std::sync::MutexGuard<'_, HashMap<TopicPartition, i64>> {
    progress.lock().expect("invariant: nobody panics while holding the progress lock")
}

async fn measure_lag(pipeline: Arc<Pipeline>, metrics: Metrics, health: Health, progress: Progress) {
    let mut tick = interval(LAG_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let (admin, who) = (pipeline.broker.admin(), pipeline.breaker.endpoint());
        let asked = admin.topic(&pipeline.subscription.topic);
        let Ok(Some(info)) = within(pipeline.limits.call_timeout, who, "lag", asked).await else { continue };
        // A source that has reconnected tells nothing before there is something to read.
        health.recovered(&pipeline.name, Trier::Source);
        for (partition, next) in lock(&progress).iter() {
            if let Some(span) = info.partitions.get(&partition.partition) {
                let number = partition.partition.to_string();
                let labels = [&*pipeline.name, &*partition.topic, number.as_str()];
                metrics.lag.with_label_values(&labels).set((span.end - next.max(&span.start)).max(0));
            }
        }
    }
}
