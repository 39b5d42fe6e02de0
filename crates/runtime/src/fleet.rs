//! All pipelines of a process: started together, ended together, in order of their topics for `--until-end`.

use std::{collections::HashSet, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use millrace_core::Error;
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
        let mut running = JoinSet::new();
        for pipeline in wave {
            let name = pipeline.name.clone();
            let run = run_pipeline(
                pipeline,
                mode,
                metrics.clone(),
                health.clone(),
                clock.clone(),
                shutdown.clone(),
            );
            let health = health.clone();
            running.spawn(async move {
                let end = AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|_| {
                    let error = Error::fatal(format!("pipeline {name}"), "ended by a panic");
                    health.set(&name, PipelineState::Failed(error.chain()));
                    Err(error)
                });
                (name, end)
            });
        }
        while let Some(ended) = running.join_next().await {
            match ended.expect("invariant: panics are caught, and no pipeline is aborted") {
                (name, Ok(summary)) => report.summaries.push((name, summary)),
                (name, Err(error)) => {
                    tracing::error!(pipeline = &*name, error = %error.chain(), "pipeline failed");
                    report.failures.push((name, error));
                }
            }
        }
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
