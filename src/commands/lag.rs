//! `millrace lag`: how far pipelines are behind, partition by partition, and how fast they catch up.

use std::{
    collections::BTreeMap,
    io::{Write, stdout},
};

use millrace_runtime::Clock;
use serde_json::{Value, json};
use tokio::time::Duration;

use super::{
    run::selected,
    status::{Pace, look},
};
use crate::{
    args::LagArgs,
    assemble::Systems,
    report::{Failure, grouped},
    state,
};

/// A pipeline or an isolated sink of it, in one partition.
struct Row {
    name: String,
    topic: String,
    partition: i32,
    lag: i64,
}

pub async fn run(args: &LagArgs) -> Result<(), Failure> {
    let mut plan = state::load(&args.at).await?;
    let names = selected(&plan, &args.names)?;
    plan.pipelines.retain(|name, _| names.contains(name));
    let limit = Duration::from_millis(args.timeout_ms);
    let look = look::take(&mut Systems::new()?, &plan, limit, Clock::system().now_ms()).await?;
    let mut rows = Vec::new();
    for pipeline in &look.pipelines {
        let mut add = |name: String, lag: &BTreeMap<i32, i64>| {
            rows.extend(lag.iter().map(|(partition, lag)| Row {
                name: name.clone(),
                topic: pipeline.topic.clone(),
                partition: *partition,
                lag: *lag,
            }));
        };
        if let Some(lag) = &pipeline.lag {
            add(pipeline.name.clone(), lag);
        }
        for (sink, lag) in &pipeline.lanes {
            add(format!("{}/{sink}", pipeline.name), lag);
        }
    }
    let paces: Vec<(&str, Option<Pace>)> =
        look.pipelines.iter().map(|pipeline| (&*pipeline.name, Pace::of(&pipeline.workers))).collect();
    print(args, &rows, &paces)?;
    match look.away.iter().next() {
        Some((name, why)) => Err(Failure::environment(format!("broker {name} does not answer: {why}"))),
        None => Ok(()),
    }
}

fn print(args: &LagArgs, rows: &[Row], paces: &[(&str, Option<Pace>)]) -> Result<(), Failure> {
    let mut out = stdout().lock();
    if args.at.json {
        let row = |row: &Row| json!({ "pipeline": row.name, "topic": row.topic, "partition": row.partition, "lag": row.lag });
        let paces: serde_json::Map<String, Value> = paces
            .iter()
            .map(|(name, pace)| ((*name).to_owned(), json!(pace.as_ref().map(Pace::json))))
            .collect();
        writeln!(out, "{}", json!({ "lag": rows.iter().map(row).collect::<Vec<_>>(), "pace": paces }))?;
        return Ok(());
    }
    let cells: Vec<[String; 4]> =
        std::iter::once(["PIPELINE", "TOPIC", "PARTITION", "LAG"].map(str::to_owned))
            .chain(rows.iter().map(|row| {
                let lag = grouped(row.lag.max(0).cast_unsigned());
                [row.name.clone(), row.topic.clone(), row.partition.to_string(), lag]
            }))
            .collect();
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..4).map(width).collect();
    for [name, topic, partition, lag] in &cells {
        writeln!(
            out,
            "{name:0$}  {topic:1$}  {partition:>2$}  {lag:>3$}",
            widths[0], widths[1], widths[2], widths[3]
        )?;
    }
    for (name, pace) in paces {
        if let Some(pace) = pace {
            writeln!(out, "{name}: {}", pace.line())?;
        }
    }
    Ok(())
}
