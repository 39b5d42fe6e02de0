//! How a worker's steps go from one version of their module to another: between two batches, or between two portions
//! of one where a version fails again and again.
//!
//! Where a version begins is remembered before its first output. So a partition that is taken up again, here or
//! elsewhere, has each record processed by the version that it was for, be it a second time.

use std::sync::Arc;

use millrace_core::{Batch, Error, Result, Step, StepContext};

use super::{Context, Flow, Halt, Stage, StepState, meters::Meters};
use crate::{
    health::LastError,
    pipeline::ModuleAbout,
    portions::Portions,
    versions::{Begun, History, StepPlace, Version, VersionLog, VersionSource, Versions},
    worker::Worker,
};

/// Where retries of reading and remembering are counted.
const PLACE: &str = "versions";

/// So many beginnings are remembered; for what is before the oldest, the oldest counts.
const BEGUN_MAX: usize = 32;

/// The versions of a step on one partition.
pub(super) struct Turns {
    place: StepPlace,
    versions: Versions,
    source: Arc<dyn VersionSource>,
    log: Option<Arc<dyn VersionLog>>,
    history: History,
}

/// What a record asks for.
struct Due {
    digest: Arc<str>,
    /// Another one begins there.
    until: Option<i64>,
}

impl Turns {
    /// The turns of a step, and the version that `start` is for. None: its module never changes.
    pub(super) async fn take_up(
        context: &Context,
        id: &Arc<str>,
        versions: &Versions,
        start: i64,
    ) -> Result<(Arc<Version>, Option<Self>), Halt> {
        let wanted = versions.wanted();
        let Some(source) = versions.source().cloned() else { return Ok((wanted, None)) };
        let lane = context.pipeline.name.clone();
        let place = StepPlace { lane, step: id.clone(), partition: context.partition };
        let log = context.pipeline.version_log.clone();
        let history = match &log {
            Some(log) => {
                let mut attempts = context.broker_attempts(&PLACE);
                attempts.call(None, || log.history(&place)).await?.map_err(Halt::Fatal)?
            }
            None => History::default(),
        };
        let mut turns = Turns { place, versions: versions.clone(), source, log, history };
        let version = match turns.recorded(start) {
            Some(due) => turns.earlier(context, &due.digest).await?,
            None => None,
        };
        Ok((version.unwrap_or(wanted), Some(turns)))
    }

    /// What is remembered of an offset; none where nothing is.
    fn recorded(&self, offset: i64) -> Option<Due> {
        let History { begun, reached } = &self.history;
        let next = begun.partition_point(|begun| begun.offset <= offset).max(1);
        let digest = begun.get(next - 1)?.digest.clone();
        let reached = Some(*reached).filter(|reached| *reached > offset);
        Some(Due { digest, until: begun.get(next).map(|begun| begun.offset).or(reached) })
    }

    /// The version of a digest; none where it is nowhere any more.
    async fn earlier(&mut self, context: &Context, digest: &Arc<str>) -> Result<Option<Arc<Version>>, Halt> {
        let wanted = self.versions.wanted();
        if wanted.about.digest == *digest {
            return Ok(Some(wanted));
        }
        let mut attempts = context.broker_attempts(&PLACE);
        let found = attempts.call(None, || self.source.version(digest)).await?.map_err(Halt::Fatal)?;
        if found.is_none() {
            let StepPlace { lane, step, partition } = &self.place;
            tracing::warn!(
                pipeline = &**lane,
                step = &**step,
                partition,
                digest = &**digest,
                "the version that these records were for is nowhere any more; they are processed by another one"
            );
            self.history.begun.retain(|begun| begun.digest != *digest);
        }
        Ok(found.map(Arc::new))
    }

    /// Remembers that a version begins at an offset, unless it is the last one that did.
    async fn remember(&mut self, context: &Context, offset: i64, digest: &Arc<str>) -> Result<(), Halt> {
        let begun = &mut self.history.begun;
        if begun.last().is_some_and(|last| last.digest == *digest) {
            return Ok(());
        }
        begun.retain(|begun| begun.offset < offset);
        if begun.last().is_none_or(|last| last.digest != *digest) {
            begun.push(Begun { offset, digest: digest.clone() });
        }
        begun.drain(..begun.len().saturating_sub(BEGUN_MAX));
        let Some(log) = &self.log else { return Ok(()) };
        let mut attempts = context.broker_attempts(&PLACE);
        attempts.call(None, || log.remember(&self.place, &self.history)).await?.map_err(Halt::Fatal)
    }

    /// The version that takes over from one that fails again and again: the one before it here, or what all others want.
    /// Loaded, if there is one.
    pub(super) async fn instead_of(
        &mut self,
        context: &Context,
        failing: &ModuleAbout,
    ) -> Result<Option<Arc<Version>>, Halt> {
        let (wanted, begun) = (self.versions.wanted(), &self.history.begun);
        let running = begun.iter().rposition(|begun| begun.digest == failing.digest).unwrap_or(begun.len());
        let mut earlier = begun[..running].iter().rev().map(|begun| begun.digest.clone());
        let is_fit = |digest: &Arc<str>| *digest != failing.digest && !self.versions.is_quarantined(digest);
        if let Some(before) = earlier.find(is_fit)
            && let Some(version) = self.earlier(context, &before).await?
            && version.factory.keeps_state() == wanted.factory.keeps_state()
        {
            return Ok(Some(version));
        }
        Ok(self.news(failing))
    }

    /// The version that is wanted, if that is another one by now.
    pub(super) fn news(&self, running: &ModuleAbout) -> Option<Arc<Version>> {
        let (wanted, refused) = (self.versions.wanted(), self.versions.refused());
        let is_refused = refused.is_some_and(|refused| refused.about.digest == wanted.about.digest);
        let is_news = wanted.about.digest != running.digest && !is_refused;
        (is_news && !self.versions.is_quarantined(&wanted.about.digest)).then_some(wanted)
    }

    /// Notes that a version fails again and again, for all who run it.
    pub(super) fn quarantine(&self, failing: &ModuleAbout, to: &Arc<Version>, reason: String) {
        self.versions.fall_back(failing, to.clone(), reason);
    }

    /// Notes that a version cannot be taken up, once.
    fn refuse(&self, context: &Context, version: &Version, error: &Error) {
        let StepPlace { lane, step, .. } = &self.place;
        let about = &version.about;
        tracing::error!(
            pipeline = &**lane, step = &**step, module = &*about.module, error = %error.chain(),
            "a version cannot be taken up, the one before goes on"
        );
        let reason = error.chain();
        let shown = format!("{} cannot be taken up, the version before goes on: {reason}", about.module);
        let (place, at_ms) = (format!("step:{step}"), context.clock.now_ms());
        context.health.note_error(lane, LastError { place, error: shown, at_ms, record: None });
        self.versions.refuse(about.clone(), reason);
    }
}

impl Worker {
    /// Makes every step run the version that the batch's first record is for. Gives what of the batch is for later
    /// ones, if anything is.
    pub(crate) async fn turn(&self, flow: &mut Flow, batch: &mut Batch) -> Result<Option<Batch>, Halt> {
        let Some(first) = batch.records.first().map(|record| record.offset) else { return Ok(None) };
        let mut until = i64::MAX;
        for index in 0..flow.stages.len() {
            until = until.min(self.turn_step(flow, index, first).await?);
        }
        let cut = batch.records.partition_point(|record| record.offset < until);
        let records = batch.records.split_off(cut);
        let rest = Batch { topic: batch.topic.clone(), partition: batch.partition, records };
        Ok(Some(rest).filter(|rest| !rest.records.is_empty()))
    }

    /// Makes one step run the version that an offset is for. Gives the offset where its next one begins.
    async fn turn_step(&self, flow: &mut Flow, index: usize, first: i64) -> Result<i64, Halt> {
        let context = &self.context;
        let Stage::Step(state) = &mut flow.stages[index] else { return Ok(i64::MAX) };
        let StepState { about, turns: Some(turns), .. } = &mut **state else { return Ok(i64::MAX) };
        if let Some(Due { digest, until: Some(until) }) = turns.recorded(first) {
            if about.digest != digest
                && let Some(version) = turns.earlier(context, &digest).await?
            {
                let mut step = flow.open_turned(index, &version).map_err(Halt::Fatal)?;
                context.prime_steps(vec![&mut step], first).await?;
                flow.take(index, &version, step);
            }
            return Ok(until);
        }
        let wanted = turns.versions.wanted();
        let is_refused = turns.versions.refused().is_some_and(|no| no.about.digest == wanted.about.digest);
        if wanted.about.digest == about.digest || is_refused {
            turns.remember(context, first, &about.digest.clone()).await?;
            return Ok(i64::MAX);
        }
        match flow.open_turned(index, &wanted) {
            Ok(step) => {
                flow.turn_to(index, &wanted, step, first).await?;
            }
            Err(error) => flow.turns(index).refuse(context, &wanted, &error),
        }
        Ok(i64::MAX)
    }
}

impl Flow {
    /// A version of a step, with what the one before carries from batch to batch.
    fn open_turned(&self, index: usize, version: &Version) -> Result<Box<dyn Step>> {
        let mut step = version.factory.open(&self.context.step_context())?;
        if let Stage::Step(before) = &self.stages[index]
            && let Some(state) = before.step.snapshot()
        {
            step.restore(state)?;
        }
        Ok(step)
    }

    /// Primes an opened version and has it go on from an offset.
    pub(super) async fn turn_to(
        &mut self,
        index: usize,
        version: &Arc<Version>,
        mut step: Box<dyn Step>,
        first: i64,
    ) -> Result<(), Halt> {
        let context = self.context.clone();
        context.prime_steps(vec![&mut step], first).await?;
        self.turns(index).remember(&context, first, &version.about.digest).await?;
        self.take(index, version, step);
        let labels = [&*context.pipeline.name, &*self.step(index).id];
        context.metrics.version_turns.with_label_values(&labels).inc();
        Ok(())
    }

    pub(super) fn turns(&mut self, index: usize) -> &mut Turns {
        let turns = &mut self.step(index).turns;
        turns.as_mut().expect("invariant: only steps that turn are asked")
    }

    fn take(&mut self, index: usize, version: &Version, opened: Box<dyn Step>) {
        let context = self.context.clone();
        let StepState { id, about, trial, step, portions, meters, watch, .. } = self.step(index);
        tracing::info!(
            pipeline = &*context.pipeline.name,
            step = &**id,
            partition = context.partition,
            module = &*version.about.module,
            digest = &*version.about.digest,
            "takes up a version"
        );
        *about = version.about.clone();
        *trial = version.trial.clone();
        *step = opened;
        *portions = Portions::default();
        *meters = Meters::of(&context, id, about);
        if let Some(watch) = watch {
            watch.begin_again();
        }
    }
}

impl Context {
    pub(super) fn step_context(&self) -> StepContext {
        StepContext {
            pipeline: self.pipeline.configured_name().into(),
            partition: self.partition,
            lane: self.pipeline.lane.clone(),
        }
    }
}
