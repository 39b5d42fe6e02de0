//! `millrace run`: pipelines until a signal, or until the topics are read to their end.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write, stderr, stdout},
    sync::Arc,
};

use indicatif::{ProgressBar, ProgressFinish};
use millrace_config::Plan;
use millrace_core::settings::did_you_mean;
use millrace_runtime::{Clock, FleetReport, Health, Metrics, Mode, run_fleet};
use serde_json::{Value, json};
use tokio::time::{Duration, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    args::RunArgs,
    assemble::Systems,
    control::{About, Boards},
    http, registry,
    report::{Failure, counted, grouped, is_closed_pipe, say},
    signals::Signals,
    state,
};

pub async fn run(args: RunArgs) -> Result<(), Failure> {
    if state::is_meant(&args.at) && !args.until_end {
        return super::follow::run(args).await;
    }
    let plan = state::load(&args.at).await?;
    let names = selected(&plan, &args.only)?;
    let _locks = registry::run_locks(&plan)?;
    let signals = Signals::listen()?;
    let mut systems = Systems::new()?;
    let shown = names.clone();
    let (metrics, health, clock) = (Metrics::new(), Health::default(), Clock::system());
    let mut boards = Boards::new(health.clone(), metrics.clone(), clock.clone(), systems.following());
    let (mut pipelines, mut abouts) = (Vec::with_capacity(names.len()), BTreeMap::new());
    for name in names {
        let planned = &plan.pipelines[name.as_str()];
        let broker = &planned.from.broker;
        for mut lane in systems.lanes(&plan, planned).await? {
            lane.steering = boards.steering(systems.control(&plan, broker)?, broker, &lane.name);
            lane.version_log = boards.version_log(broker);
            abouts.insert(lane.name.clone(), About::new(None, &lane));
            pipelines.push(Arc::new(lane));
        }
    }
    boards.note(&abouts);
    let shutdown = CancellationToken::new();
    let served = CancellationToken::new();
    let mode = if args.until_end { Mode::UntilEnd } else { Mode::Forever };
    if args.listen != "off" && !(args.until_end && port_is_taken(&args.listen).await) {
        let address = http::serve(&args.listen, metrics.clone(), health.clone(), served.clone()).await?;
        say(&format!(
            "millrace: {} running, metrics on http://{address}/metrics",
            counted(shown.len() as u64, "pipeline")
        ));
    }
    if args.listen == "off" && !args.until_end {
        say(&format!("millrace: {} running", counted(shown.len() as u64, "pipeline")));
    }
    let progress =
        (args.until_end && stderr().is_terminal()).then(|| tokio::spawn(progress(metrics.clone(), shown)));
    if mode == Mode::Forever {
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(systems.following().run()));
    }
    let work = async {
        let report = run_fleet(pipelines, mode, &metrics, &health, &clock, &shutdown).await;
        boards.close().await;
        report
    };
    let report = signals.guard(&shutdown, work).await;
    if let Some(progress) = progress {
        progress.abort();
        // Ended when the line is cleared.
        let _ = progress.await;
    }
    let report = report?;
    served.cancel();
    conclude(&args, &report)
}

/// Shows on a terminal what has been read and written, until it is aborted.
async fn progress(metrics: Metrics, pipelines: Vec<String>) {
    let bar = ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear);
    let mut tick = interval(Duration::from_millis(200));
    loop {
        tick.tick().await;
        let records: u64 = pipelines.iter().map(|name| metrics.records_in(name)).sum();
        bar.set_message(format!(
            "{} in, {} out",
            counted(records, "record"),
            counted(metrics.outputs_total(), "effect")
        ));
    }
}

/// A second run until the end beside another one needs no port of its own.
async fn port_is_taken(listen: &str) -> bool {
    match tokio::net::TcpListener::bind(listen).await {
        Ok(_) => false,
        Err(error) => error.kind() == std::io::ErrorKind::AddrInUse,
    }
}

/// The pipelines of these names, in the order of the file; all where none is named.
pub(super) fn selected(plan: &Plan, only: &[String]) -> Result<Vec<String>, Failure> {
    for name in only {
        if !plan.pipelines.contains_key(name) {
            let known: Vec<&str> = plan.pipelines.keys().map(String::as_str).collect();
            let advice = did_you_mean(name, known.iter().copied())
                .unwrap_or_else(|| format!("known: {}", known.join(", ")));
            return Err(Failure::input(format!("unknown pipeline '{name}'; {advice}")));
        }
    }
    Ok(plan.pipelines.keys().filter(|name| only.is_empty() || only.contains(name)).cloned().collect())
}

/// Says what was done and how it ended.
pub(super) fn conclude(args: &RunArgs, report: &FleetReport) -> Result<(), Failure> {
    if report.failures.iter().any(|(_, error)| is_closed_pipe(error)) {
        return Ok(());
    }
    let dead_letters: u64 = report.summaries.iter().map(|(_, summary)| summary.dead_letters).sum();
    if args.at.json {
        let summaries: Vec<Value> = report
            .summaries
            .iter()
            .map(|(name, s)| {
                json!({ "pipeline": &**name, "records": s.records, "skipped": s.skipped, "dead_letters": s.dead_letters })
            })
            .collect();
        let failures: Vec<Value> = report
            .failures
            .iter()
            .map(|(name, error)| json!({ "pipeline": &**name, "error": error.chain() }))
            .collect();
        writeln!(stdout().lock(), "{}", json!({ "pipelines": summaries, "failures": failures }))?;
    } else {
        for (name, summary) in &report.summaries {
            let mut line = format!("millrace: {name}: {}", counted(summary.records, "record"));
            if summary.skipped > 0 {
                line.push_str(&format!(", {} of them of other event types", grouped(summary.skipped)));
            }
            if summary.dead_letters > 0 {
                line.push_str(&format!(", {}", counted(summary.dead_letters, "dead letter")));
            }
            say(&line);
        }
    }
    if let Some((name, error)) = report.failures.first() {
        let others = report.failures.len() - 1;
        let more = if others > 0 { format!(" (and {others} more)") } else { String::new() };
        let message = format!("pipeline {name} failed: {}{more}", error.chain());
        let is_missing = report.failures.iter().all(|(_, error)| error.is_missing_topic());
        return Err(if is_missing { Failure::environment(message) } else { Failure::run(message) });
    }
    if args.fail_on_dead_letters && dead_letters > 0 {
        return Err(Failure::run(counted(dead_letters, "dead letter")));
    }
    Ok(())
}
