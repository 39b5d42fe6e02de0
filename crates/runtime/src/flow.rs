//! The way of a batch through the stages of its pipeline, within one worker.

mod apply;
mod meters;
mod turns;

use std::{future::Future, pin::Pin, sync::Arc};

use futures::future::try_join_all;
use millrace_core::{Encoded, Error, Lease, Message, Ordinals, Origin, States, Step};
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    attempts::{Attempts, Target},
    backoff::{Exhausted, RetryPolicy},
    clock::Clock,
    dead_letter::{DeadLetter, Failures, Place},
    delivery::deliver,
    health::{Health, LastError, Trier},
    lookup::{self, LookupState},
    metrics::Metrics,
    pipeline::{Limits, ModuleAbout, Pipeline, StepPart},
    portions::Portions,
    quarantine::Watch,
    steering::{HeldBy, Pause},
    trial::Tried,
    versions::Version,
};

use self::{meters::Meters, turns::Turns};

/// How often a worker without a valid lease looks again.
const LEASE_POLL: Duration = Duration::from_millis(50);

/// Why a worker gives up its batch; nothing of it is committed.
#[derive(Debug)]
pub(crate) enum Halt {
    /// It was told to, or its partition is gone.
    Stopped,
    /// Nothing can work until somebody acts.
    Fatal(Error),
}

/// What all parts of one worker share.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) clock: Clock,
    pub(crate) lease: Arc<Lease>,
    /// Finish the batch if that works at the first try, and end.
    pub(crate) drain: CancellationToken,
    pub(crate) partition: i32,
}

/// The stages of one worker and what failed in the batch at hand.
pub(crate) struct Flow {
    pub(crate) context: Context,
    stages: Vec<Stage>,
    failures: Failures,
    /// Per sink: the outputs of the batch at hand, counted by event and key.
    ordinals: Vec<Ordinals>,
}

enum Stage {
    Step(Box<StepState>),
    Lookup(Box<LookupState>),
}

/// A step, and what a worker knows of it.
struct StepState {
    id: Arc<str>,
    about: ModuleAbout,
    /// What is tried beside it.
    trial: Option<Arc<Tried>>,
    step: Box<dyn Step>,
    portions: Portions,
    meters: Meters,
    /// None: nobody counts what it fails on.
    watch: Option<Watch>,
    /// None: its module never changes.
    turns: Option<Turns>,
}

impl Context {
    /// For jitter: workers differ in it.
    pub(crate) fn seed(&self) -> u64 {
        self.clock.now_ms().cast_unsigned() ^ (u64::from(self.partition.cast_unsigned()) << 48)
    }

    /// Effects may be sent only under a valid lease: a process that was stopped for longer than its session
    /// waits here until its source has polled again.
    pub(crate) async fn wait_for_lease(&self) -> Result<(), Halt> {
        while !self.lease.is_valid() {
            if self.lease.is_revoked() || self.drain.is_cancelled() {
                return Err(Halt::Stopped);
            }
            sleep(LEASE_POLL).await;
        }
        Ok(())
    }

    /// Ends the worker's batch when nobody wants it any more.
    pub(crate) fn stop_if_told(&self) -> Result<(), Halt> {
        if self.drain.is_cancelled() || self.lease.is_revoked() { Err(Halt::Stopped) } else { Ok(()) }
    }

    /// Holds the pipeline for a person to look at, and waits until it is let go.
    pub(crate) async fn pause(&self, by: HeldBy, reason: String) -> Result<(), Halt> {
        let (name, steering) = (&*self.pipeline.name, &self.pipeline.steering);
        if steering.paused().is_none() {
            tracing::error!(pipeline = name, by = by.name(), reason, "paused");
        }
        steering.pause(Pause { by, reason, since_ms: self.clock.now_ms() });
        self.stop_if_told()?;
        tokio::select! {
            biased;
            () = self.drain.cancelled() => Err(Halt::Stopped),
            () = steering.resumed() => Ok(()),
        }
    }

    /// Keeps a failure for those who ask how the pipeline is.
    pub(crate) fn note_error(&self, place: &str, error: &Error, origin: Option<&Origin>) {
        let record = origin
            .map(|Origin { record, .. }| format!("{}/{}/{}", record.topic, record.partition, record.offset));
        let (place, error, at_ms) = (place.to_owned(), error.chain(), self.clock.now_ms());
        self.health.note_error(&self.pipeline.name, LastError { place, error, at_ms, record });
    }

    /// The tries of a call to the broker that the pipeline reads from.
    pub(crate) fn broker_attempts<'a>(&'a self, place: &'a &'static str) -> Attempts<'a> {
        // There is no record to bury for it, or it is the burying itself.
        let retry = RetryPolicy { exhausted: Exhausted::Pause, ..self.pipeline.retry };
        Attempts::new(self, Target { place, breaker: &self.pipeline.breaker, ledger: None, retry })
    }

    /// What this worker tried again has worked.
    pub(crate) fn recovered(&self) {
        self.health.recovered(&self.pipeline.name, Trier::Worker(self.partition));
    }

    /// This worker is trying again; why.
    pub(crate) fn retrying(&self, error: &Error) {
        self.health.retrying(&self.pipeline.name, Trier::Worker(self.partition), error.chain());
    }
}

impl Flow {
    /// Opens the stages as they are wanted now, for records that no worker is at.
    pub(crate) fn open(context: Context) -> Result<Self, Error> {
        let mut flow = Self::empty(context);
        for part in &flow.context.pipeline.clone().steps {
            let stage = match part {
                StepPart::Module { id, versions, .. } => flow.stage(id, &versions.wanted(), None, None)?,
                StepPart::Lookup(step) => Stage::Lookup(Box::new(LookupState::new(step.clone()))),
            };
            flow.stages.push(stage);
        }
        Ok(flow)
    }

    /// Opens the stages for the worker of a partition, as they are for the record at `start`.
    pub(crate) async fn open_at(context: Context, start: i64) -> Result<Self, Halt> {
        let mut flow = Self::empty(context);
        for part in &flow.context.pipeline.clone().steps {
            let stage = match part {
                StepPart::Module { id, versions, quarantine } => {
                    let (version, turns) = Turns::take_up(&flow.context, id, versions, start).await?;
                    flow.stage(id, &version, turns, quarantine.map(Watch::new)).map_err(Halt::Fatal)?
                }
                StepPart::Lookup(step) => Stage::Lookup(Box::new(LookupState::new(step.clone()))),
            };
            flow.stages.push(stage);
        }
        Ok(flow)
    }

    fn empty(context: Context) -> Self {
        let stages = Vec::with_capacity(context.pipeline.steps.len());
        let ordinals = context.pipeline.sinks.iter().map(|_| Ordinals::default()).collect();
        Flow { context, stages, failures: Failures::default(), ordinals }
    }

    fn stage(
        &self,
        id: &Arc<str>,
        version: &Version,
        turns: Option<Turns>,
        watch: Option<Watch>,
    ) -> Result<Stage, Error> {
        let step = version.factory.open(&self.context.step_context())?;
        let (id, about, trial) = (id.clone(), version.about.clone(), version.trial.clone());
        let meters = Meters::of(&self.context, &id, &about);
        let portions = Portions::default();
        Ok(Stage::Step(Box::new(StepState { id, about, trial, step, portions, meters, watch, turns })))
    }

    /// The steps, for handing them their history.
    pub(crate) fn steps(&mut self) -> impl Iterator<Item = &mut Box<dyn Step>> {
        self.stages.iter_mut().filter_map(|stage| match stage {
            Stage::Step(state) => Some(&mut state.step),
            Stage::Lookup(_) => None,
        })
    }

    /// The states of steps that are not as in `known`.
    pub(crate) fn changed_states(&self, known: &States) -> States {
        let states = self.stages.iter().filter_map(|stage| match stage {
            Stage::Step(state) => Some((state.id.clone(), state.step.snapshot()?)),
            Stage::Lookup(_) => None,
        });
        // What was never stored is empty.
        states.filter(|(id, state)| known.get(id).map_or(&b""[..], |known| known) != state).collect()
    }

    /// Gives the steps the states they had.
    pub(crate) fn restore(&mut self, states: &States) -> Result<(), Error> {
        for stage in &mut self.stages {
            if let Stage::Step(stage) = stage
                && let Some(state) = states.get(&stage.id)
            {
                stage.step.restore(state.clone())?;
            }
        }
        Ok(())
    }

    /// Runs the stages from `at` on, and the sinks. Returns when all outputs are done or noted as failures.
    pub(crate) fn run(
        &mut self,
        at: usize,
        messages: Vec<Message>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Halt>> + Send + '_>> {
        Box::pin(async move {
            let (mut index, mut messages) = (at, messages);
            loop {
                if messages.is_empty() {
                    return Ok(());
                }
                let portion = match self.stages.get(index) {
                    None => return self.deliver(messages).await,
                    Some(Stage::Lookup(_)) => return lookup::run(self, index, messages).await,
                    Some(Stage::Step(state)) => state.portions.messages_max().min(messages.len()),
                };
                let rest = messages.split_off(portion);
                let passed = self.apply(index, messages).await?;
                if rest.is_empty() {
                    (index, messages) = (index + 1, passed);
                } else {
                    self.run(index + 1, passed).await?;
                    messages = rest;
                }
            }
        })
    }

    /// Notes that a record failed.
    pub(crate) fn reject(
        &mut self,
        origin: Arc<Origin>,
        place: Place,
        error: &Error,
        module: Option<&ModuleAbout>,
    ) {
        let now = self.context.clock.now_ms();
        self.context.note_error(&place.to_string(), error, Some(&origin));
        self.failures.add(origin, place, error, module, now);
    }

    /// Ends the batch and gives what failed in it.
    pub(crate) fn take_failures(&mut self) -> Vec<DeadLetter> {
        self.ordinals.iter_mut().for_each(|ordinals| *ordinals = Ordinals::default());
        self.failures.take()
    }

    /// The lookup at a stage.
    pub(crate) fn lookup(&mut self, at: usize) -> &mut LookupState {
        match &mut self.stages[at] {
            Stage::Lookup(state) => state,
            Stage::Step(_) => unreachable!("invariant: a lookup runs at its own stage"),
        }
    }

    /// The step at a stage.
    fn step(&mut self, at: usize) -> &mut StepState {
        match &mut self.stages[at] {
            Stage::Step(state) => state,
            Stage::Lookup(_) => unreachable!("invariant: a step is applied at its own stage"),
        }
    }

    async fn deliver(&mut self, mut messages: Vec<Message>) -> Result<(), Halt> {
        let pipeline = self.context.pipeline.clone();
        let Limits { outputs_max, output_bytes_max, .. } = pipeline.limits;
        // Backwards, so that what is done is let go chunk by chunk.
        let mut starts = Vec::new();
        let mut start = 0;
        for chunk in chunks(&messages, outputs_max, output_bytes_max) {
            starts.push(start);
            start += chunk.len();
        }
        let mut tails: Vec<Vec<Message>> =
            starts.into_iter().rev().map(|start| messages.split_off(start)).collect();
        while let Some(chunk) = tails.pop() {
            self.deliver_chunk(&pipeline, chunk).await?;
        }
        Ok(())
    }

    /// Hands one chunk to all sinks at once. What waits for them is what they were to be sent and the records it came
    /// from: parsed messages take many times that, and would be kept for as long as the slowest sink takes.
    async fn deliver_chunk(&mut self, pipeline: &Pipeline, chunk: Vec<Message>) -> Result<(), Halt> {
        let sinks = pipeline.sinks.iter().zip(&mut self.ordinals);
        let encoded: Vec<Encoded> =
            sinks.map(|(part, ordinals)| part.sink.encode_part(&chunk, ordinals)).collect();
        let origins: Vec<Arc<Origin>> = chunk.into_iter().map(|message| message.origin).collect();
        let context = &self.context;
        let sinks = pipeline.sinks.iter().zip(encoded);
        let sinks = sinks.map(|(part, encoded)| deliver(context, part, &origins, encoded));
        let answers = try_join_all(sinks).await?;
        for (part, rejected) in pipeline.sinks.iter().zip(answers) {
            for (index, error) in rejected {
                self.reject(origins[index].clone(), Place::Sink(part.id.sink.clone()), &error, None);
            }
        }
        Ok(())
    }
}

/// Consecutive chunks within the bounds. All outputs of one record stay together, unless they alone are more
/// than `count_max`.
fn chunks(messages: &[Message], count_max: usize, bytes_max: usize) -> impl Iterator<Item = &[Message]> {
    let mut rest = messages;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let mut whole = 0;
        let mut end = 0;
        for message in rest {
            bytes += message.size_bytes();
            if end > 0 && !Arc::ptr_eq(&rest[end - 1].origin, &message.origin) {
                whole = end;
            }
            if end > 0 && (end == count_max || bytes > bytes_max) {
                break;
            }
            end += 1;
        }
        let cut = if end == rest.len() || whole == 0 { end } else { whole };
        let (chunk, tail) = rest.split_at(cut);
        rest = tail;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use millrace_testkit::message::message;

    use super::*;

    #[test]
    fn chunks_keep_the_outputs_of_a_record_together() {
        let one = message(1, "1", "{}");
        let two = message(2, "2", "{}");
        let messages = [one.clone(), one.clone(), two.clone(), two.clone(), two];
        let sizes = |max| chunks(&messages, max, 1 << 20).map(<[Message]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(10), [5]);
        assert_eq!(sizes(4), [2, 3]);
        assert_eq!(sizes(2), [2, 2, 1]);
        assert_eq!(chunks(&messages, 10, 1).count(), 5);
        assert_eq!(chunks(&[], 10, 10).count(), 0);
    }
}
