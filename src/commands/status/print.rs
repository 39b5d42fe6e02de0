//! How it is shown: a table for people, JSON for programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use millrace_control::{ErrorEntry, FollowerEntry, RefusedEntry};
use serde_json::{Value, json};

use super::{
    look::{Look, PipelineLook},
    pace::Pace,
    trials::TrialLook,
};
use crate::report::grouped;

/// The table, and below each pipeline what there is to say of it.
pub fn table(look: &Look) -> String {
    let head = ["PIPELINE", "STATE", "SINCE", "WORKERS", "LAG", "DEAD LETTERS"].map(str::to_owned);
    let rows: Vec<[String; 6]> = look.pipelines.iter().map(|pipeline| row(pipeline, look.now_ms)).collect();
    let width = |column: usize| {
        rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    line(&mut text, &head, &widths);
    for (row, pipeline) in rows.iter().zip(&look.pipelines) {
        line(&mut text, row, &widths);
        for detail in details(pipeline, look.now_ms) {
            let _ = writeln!(text, "    {detail}");
        }
    }
    let open = look.endpoints.iter().filter(|(_, endpoint)| endpoint.state != "closed");
    for (name, endpoint) in open {
        let since = age(look.now_ms - endpoint.since_ms);
        let why = endpoint.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        let failures = grouped(endpoint.failures.into());
        let _ = writeln!(
            text,
            "{name}: breaker {} for {since}, {failures} failures in a row{why}",
            endpoint.state
        );
    }
    for FollowerEntry { process, generation, refused, .. } in &look.refusing {
        let Some(RefusedEntry { generation: refused, reason }) = refused else { continue };
        let runs = generation.map_or("nothing".to_owned(), |generation| format!("generation {generation}"));
        let first = reason.lines().next().unwrap_or_default();
        let _ = writeln!(
            text,
            "process {} on {} runs {runs}, and cannot run all of generation {refused}: {first}",
            process.pid, process.host
        );
    }
    text
}

/// Cells in columns, two blanks apart.
fn line(text: &mut String, cells: &[String], widths: &[usize]) {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let _ = write!(line, "{cell:width$}  ");
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

fn row(pipeline: &PipelineLook, now_ms: i64) -> [String; 6] {
    let dash = || "-".to_owned();
    let known = pipeline.state != "unknown";
    let lag = pipeline.lag.as_ref().map(|lag| grouped(total(lag)));
    let (now, topic) = (grouped(pipeline.dead_letters), &pipeline.dead_letter_topic);
    let letters = pipeline.dead_letter_records.map(|records| match pipeline.dead_letters_open {
        Some(0) => now,
        Some(open) => format!("{now} now, {} open in {topic}", grouped(open)),
        None => format!("{now} now, at most {} open in {topic}", grouped(records)),
    });
    [
        pipeline.name.clone(),
        pipeline.state.clone(),
        pipeline.since_ms.map_or_else(dash, |since_ms| age(now_ms - since_ms)),
        if known { processes(pipeline).to_string() } else { dash() },
        lag.unwrap_or_else(dash),
        letters.unwrap_or_else(dash),
    ]
}

fn total(lag: &BTreeMap<i32, i64>) -> u64 {
    lag.values().sum::<i64>().max(0).cast_unsigned()
}

/// A process may have several lanes of a pipeline.
fn processes(pipeline: &PipelineLook) -> usize {
    let mut processes: Vec<_> = pipeline.workers.iter().map(|w| (&w.process.host, w.process.pid)).collect();
    processes.sort_unstable();
    processes.dedup();
    processes.len()
}

fn details(pipeline: &PipelineLook, now_ms: i64) -> Vec<String> {
    let mut details = Vec::new();
    match (&pipeline.by, &pipeline.reason) {
        (Some(by), Some(reason)) => details.push(format!("by {by}: {reason}")),
        (None, Some(reason)) => details.push(reason.clone()),
        (_, None) => {}
    }
    if let Some(pace) = Pace::of(&pipeline.workers) {
        details.push(pace.line());
    }
    details.extend(generations(pipeline));
    details.extend(versions(pipeline));
    let refused: BTreeSet<_> = pipeline.workers.iter().flat_map(|worker| &worker.refused).collect();
    for (step, reason) in refused {
        details.push(format!("step {step} runs another version than {reason}"));
    }
    details.extend(TrialLook::all(&pipeline.workers).iter().map(TrialLook::line));
    for (sink, lag) in &pipeline.lanes {
        details.push(format!("isolated sink {sink}: lag {}", grouped(total(lag))));
    }
    if pipeline.lag.is_none() && pipeline.state != "unknown" {
        details.push(format!("topic {} does not exist", pipeline.topic));
    }
    if let Some(ErrorEntry { place, error, at_ms, record }) = &pipeline.last_error {
        let record = record.as_ref().map(|record| format!(" of {record}")).unwrap_or_default();
        details.push(format!("last error {} ago at {place}{record}: {error}", age(now_ms - at_ms)));
    }
    details
}

/// What the processes run, where they follow what is applied: more than one in the middle of a change.
fn generations(pipeline: &PipelineLook) -> Option<String> {
    let generations: BTreeSet<u64> = pipeline.workers.iter().filter_map(|worker| worker.generation).collect();
    let named: Vec<String> = generations.iter().map(u64::to_string).collect();
    (!named.is_empty()).then(|| format!("generation {}", named.join(", ")))
}

/// The versions of deployed modules: more than one of a step in the middle of a change.
fn versions(pipeline: &PipelineLook) -> Option<String> {
    let all: BTreeSet<_> = pipeline.workers.iter().flat_map(|worker| &worker.versions).collect();
    let named: Vec<String> = all.into_iter().map(|(step, version)| format!("{step} {version}")).collect();
    (!named.is_empty()).then(|| format!("steps run {}", named.join(", ")))
}

/// A time that has passed, in its largest unit.
pub fn age(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The same for programs; times are ms since 1970.
pub fn json(look: &Look) -> Value {
    let pipelines: Vec<Value> = look
        .pipelines
        .iter()
        .map(|pipeline| {
            json!({
                "pipeline": pipeline.name, "state": pipeline.state, "reason": pipeline.reason, "by": pipeline.by,
                "since_ms": pipeline.since_ms, "topic": pipeline.topic,
                "pace": Pace::of(&pipeline.workers).map(|pace| pace.json()),
                "trials": TrialLook::all(&pipeline.workers).iter().map(TrialLook::json).collect::<Vec<_>>(),
                "lag": pipeline.lag.as_ref().map(total),
                "lag_by_partition": pipeline.lag,
                "isolated": pipeline.lanes.iter().map(|(sink, lag)| {
                    (sink.clone(), json!({ "lag": total(lag), "lag_by_partition": lag }))
                }).collect::<serde_json::Map<_, _>>(),
                "dead_letters": {
                    "now": pipeline.dead_letters, "topic": pipeline.dead_letter_topic,
                    "open": pipeline.dead_letters_open, "records": pipeline.dead_letter_records,
                },
                "last_error": pipeline.last_error,
                "workers": pipeline.workers.iter().map(|worker| json!({
                    "host": worker.process.host, "pid": worker.process.pid, "version": worker.process.version,
                    "state": worker.state, "reason": worker.reason, "since_ms": worker.since_ms,
                    "dead_letters": worker.dead_letters, "seen_ms": worker.at_ms,
                    "generation": worker.generation, "modules": worker.modules, "versions": worker.versions,
                    "refused": worker.refused,
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "at_ms": look.now_ms, "pipelines": pipelines, "endpoints": look.endpoints, "refusing": look.refusing, "away": look.away })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let ages = [-5, 999, 61_000, 7_200_000, 200_000_000].map(age);
        assert_eq!(ages, ["0s", "0s", "1m", "2h", "2d"]);
    }
}
