//! How a worker's steps go from one version of their module to another: between two batches, and never within one.
//!
//! Where a version begins is remembered before its first output. So a partition that is taken up again, here or
//! elsewhere, has each record processed by the version that it was for, be it a second time.

use std::sync::Arc;

use millrace_core::{Batch, Error, Result, Step, StepContext};

use super::{Context, Flow, Halt, Stage};
use crate::{
    health::LastError,
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
        begun.push(Begun { offset, digest: digest.clone() });
        begun.drain(..begun.len().saturating_sub(BEGUN_MAX));
        let Some(log) = &self.log else { return Ok(()) };
        let mut attempts = context.broker_attempts(&PLACE);
        attempts.call(None, || log.remember(&self.place, &self.history)).await?.map_err(Halt::Fatal)
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
        let Stage::Step { about, turns: Some(turns), .. } = &mut flow.stages[index] else {
            return Ok(i64::MAX);
        };
        if let Some(Due { digest, until: Some(until) }) = turns.recorded(first) {
            if about.digest != digest
                && let Some(version) = turns.earlier(context, &digest).await?
            {
                let mut step = flow.open_turned(index, &version).map_err(Halt::Fatal)?;
                self.prime_steps(vec![&mut step], first).await?;
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
            Ok(mut step) => {
                self.prime_steps(vec![&mut step], first).await?;
                flow.turns(index).remember(context, first, &wanted.about.digest).await?;
                flow.take(index, &wanted, step);
                let labels = [&*context.pipeline.name, flow.id(index)];
                context.metrics.version_turns.with_label_values(&labels).inc();
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
        if let Stage::Step { step: before, .. } = &self.stages[index]
            && let Some(state) = before.snapshot()
        {
            step.restore(state)?;
        }
        Ok(step)
    }

    fn turns(&mut self, index: usize) -> &mut Turns {
        match &mut self.stages[index] {
            Stage::Step { turns: Some(turns), .. } => turns,
            Stage::Step { .. } | Stage::Lookup(_) => {
                unreachable!("invariant: only steps that turn are asked")
            }
        }
    }

    fn id(&self, index: usize) -> &str {
        match &self.stages[index] {
            Stage::Step { id, .. } => id,
            Stage::Lookup(_) => unreachable!("invariant: only steps that turn are asked"),
        }
    }

    fn take(&mut self, index: usize, version: &Version, opened: Box<dyn Step>) {
        if let Stage::Step { id, about, trial, step, portions, turns: Some(turns) } = &mut self.stages[index]
        {
            let StepPlace { lane, partition, .. } = &turns.place;
            tracing::info!(
                pipeline = &**lane,
                step = &**id,
                partition,
                module = &*version.about.module,
                digest = &*version.about.digest,
                "takes up a version"
            );
            *about = version.about.clone();
            *trial = version.trial.clone();
            *step = opened;
            *portions = Portions::default();
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
