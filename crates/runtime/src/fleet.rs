//! The pipelines of a process: each started and ended by itself, or all of them together, in order of their topics
//! for `--until-end`.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use futures::FutureExt;
use millrace_core::{Error, Result};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    driver::{Mode, Summary, run_pipeline},
    health::{Health, PipelineState},
    metrics::Metrics,
    pipeline::Pipeline,
};

/// How a run of several pipelines ended.
#[derive(Debug, Default)]
pub struct FleetReport {
    /// What each pipeline did.
    pub summaries: Vec<(Arc<str>, Summary)>,
    /// The pipelines that failed, and why.
    pub failures: Vec<(Arc<str>, Error)>,
}

/// Pipelines that run, each in a task of its own. Dropping it ends them at once, without a drain.
pub struct Fleet {
    mode: Mode,
    metrics: Metrics,
    health: Health,
    clock: Clock,
    shutdown: CancellationToken,
    running: JoinSet<(Arc<str>, Result<Summary>)>,
    /// What drains and ends each of those that run.
    ends: BTreeMap<Arc<str>, CancellationToken>,
    summaries: BTreeMap<Arc<str>, Summary>,
    failures: Vec<(Arc<str>, Error)>,
}

impl Fleet {
    /// Runs nothing yet. All that it will run ends at `shutdown`.
    pub fn new(
        mode: Mode,
        metrics: Metrics,
        health: Health,
        clock: Clock,
        shutdown: CancellationToken,
    ) -> Self {
        Fleet {
            mode,
            metrics,
            health,
            clock,
            shutdown,
            running: JoinSet::new(),
            ends: BTreeMap::new(),
            summaries: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    /// Starts a pipeline, of which none of this name may be running. An earlier failure of it is forgotten.
    pub fn start(&mut self, pipeline: Arc<Pipeline>) {
        let (name, end) = (pipeline.name.clone(), self.shutdown.child_token());
        self.failures.retain(|(failed, _)| *failed != name);
        self.ends.insert(name.clone(), end.clone());
        let (mode, metrics, health) = (self.mode, self.metrics.clone(), self.health.clone());
        let clock = self.clock.clone();
        self.running.spawn(async move {
            let run = run_again(pipeline, mode, &metrics, &health, &clock, end);
            let end = AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|_| {
                let error = Error::fatal(format!("pipeline {name}"), "ended by a panic");
                health.set(&name, PipelineState::Failed(error.chain()));
                Err(error)
            });
            (name, end)
        });
    }

    /// Drains and ends these, while the others go on. Returns when they have left their groups.
    pub async fn stop(&mut self, names: &BTreeSet<Arc<str>>) {
        for end in self.ends.iter().filter(|(name, _)| names.contains(*name)).map(|(_, end)| end) {
            end.cancel();
        }
        while self.ends.keys().any(|name| names.contains(name)) {
            self.ended().await;
        }
    }

    /// Waits until one has ended, and gives its name; none when nothing runs. Cancel-safe.
    pub async fn ended(&mut self) -> Option<Arc<str>> {
        let ended = self.running.join_next().await?;
        let (name, end) = ended.expect("invariant: panics are caught, and no pipeline is aborted");
        self.ends.remove(&name);
        match end {
            Ok(summary) => self.summaries.entry(name.clone()).or_default().add(summary),
            Err(error) => {
                tracing::error!(pipeline = &*name, error = %error.chain(), "pipeline failed");
                self.failures.push((name.clone(), error));
            }
        }
        Some(name)
    }

    /// Whether one of this name runs.
    pub fn runs(&self, name: &str) -> bool {
        self.ends.contains_key(name)
    }

    /// Waits for the end of all, and says how it was.
    pub async fn finish(mut self) -> FleetReport {
        while self.ended().await.is_some() {}
        FleetReport { summaries: self.summaries.into_iter().collect(), failures: self.failures }
    }
}

/// Runs a pipeline, and anew each time that it was ended and may begin again.
async fn run_again(
    pipeline: Arc<Pipeline>,
    mode: Mode,
    metrics: &Metrics,
    health: &Health,
    clock: &Clock,
    shutdown: CancellationToken,
) -> Result<Summary> {
    let (steering, mut total) = (pipeline.steering.clone(), Summary::default());
    loop {
        let end = shutdown.child_token();
        let run =
            run_pipeline(pipeline.clone(), mode, metrics.clone(), health.clone(), clock.clone(), end.clone());
        tokio::pin!(run);
        let summary = tokio::select! {
            biased;
            summary = &mut run => summary?,
            () = steering.until_ended(true), if mode == Mode::Forever => {
                end.cancel();
                run.await?
            }
        };
        total.add(summary);
        if shutdown.is_cancelled() || !end.is_cancelled() {
            return Ok(total);
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(total),
            () = steering.until_ended(false) => {}
        }
    }
}

/// Runs pipelines until `shutdown`, or in [`Mode::UntilEnd`] until their topics are read to the end: a
/// pipeline whose topic others write takes its end after those are done. A pipeline that fails does not stop
/// the others while they run for ever; the caller sees it in [`Health`], and in the report at the end.
pub async fn run_fleet(
    pipelines: Vec<Arc<Pipeline>>,
    mode: Mode,
    metrics: &Metrics,
    health: &Health,
    clock: &Clock,
    shutdown: &CancellationToken,
) -> FleetReport {
    let mut report = FleetReport::default();
    let waves = match mode {
        Mode::Forever => vec![pipelines],
        Mode::UntilEnd => waves(pipelines),
    };
    for wave in waves {
        let mut fleet = Fleet::new(mode, metrics.clone(), health.clone(), clock.clone(), shutdown.clone());
        wave.into_iter().for_each(|pipeline| fleet.start(pipeline));
        let FleetReport { summaries, failures } = fleet.finish().await;
        report.summaries.extend(summaries);
        report.failures.extend(failures);
        if shutdown.is_cancelled() {
            break;
        }
    }
    report.summaries.sort_by(|a, b| a.0.cmp(&b.0));
    report
}

/// Groups of pipelines that may run at the same time, each after those that write its topic. Pipelines of a
/// cycle, which the configuration refuses, would run together at the end.
fn waves(mut pipelines: Vec<Arc<Pipeline>>) -> Vec<Vec<Arc<Pipeline>>> {
    let mut waves = Vec::new();
    while !pipelines.is_empty() {
        let written: HashSet<String> = pipelines.iter().flat_map(|p| p.writes_topics.clone()).collect();
        let (ready, waiting): (Vec<_>, Vec<_>) =
            pipelines.into_iter().partition(|pipeline| !written.contains(&pipeline.subscription.topic));
        if ready.is_empty() {
            waves.push(waiting);
            break;
        }
        waves.push(ready);
        pipelines = waiting;
    }
    waves
}
