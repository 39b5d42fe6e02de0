//! `millrace rewind`: sets how far a pipeline has come. Nobody may read as its groups meanwhile, so it is ended for
//! as long as this takes; it must be paused or stopped before, so that nobody is surprised.

use std::{
    collections::BTreeMap,
    io::{Write, stdout},
};

use millrace_config::PipelinePlan;
use millrace_control::{Board, StopEntry, VersionEntry, lane_of, paused_by_key, stop_key, versioned_by_key};
use millrace_core::{Broker, Error, TopicInfo};
use millrace_runtime::Clock;
use serde_json::{Value, json};
use tokio::time::Duration;

use super::run::selected;
use crate::{
    args::{Place, RewindArgs},
    assemble::{Systems, group},
    report::{Failure, grouped},
    state::{self, left::when_left},
};

/// Who ends it meanwhile.
const BY: &str = "rewind";

pub async fn run(args: &RewindArgs) -> Result<(), Failure> {
    let plan = state::load(&args.at).await?;
    selected(&plan, std::slice::from_ref(&args.name))?;
    let pipeline = &plan.pipelines[args.name.as_str()];
    let (broker, control) = Systems::new()?.control(&plan, &pipeline.from.broker)?;
    let info = broker.admin().topic(&pipeline.from.topic).await?;
    let info = info.ok_or_else(|| Error::missing_topic("rewind", &pipeline.from.topic))?;
    let to = targets(&*broker, args, &info).await?;
    let board = Board::open(&*broker, &control).await?;
    let own = hold(&board, pipeline).await?;
    let groups = groups(pipeline);
    let mut from = BTreeMap::new();
    for (_, group) in &groups {
        from.insert(group.clone(), broker.admin().progress(group, &info.name).await?);
    }
    let admin = broker.admin();
    // Until it stays so: a process that was just about to begin may have committed meanwhile.
    let set = async || {
        for (lane, group) in &groups {
            let progress = admin.progress(group, &info.name).await?;
            if to.iter().any(|(partition, next)| progress.get(partition) != Some(next)) {
                board.synced(&*broker).await?;
                note_versions(&board, lane, (&progress, &to), args.forget_versions).await?;
                admin.set_progress(group, &info.name, &to).await?;
                return Err(Error::retry(group.as_str(), "was set just now, and is looked at once more"));
            }
        }
        Ok(())
    };
    let limit = Duration::from_millis(args.timeout_ms);
    when_left((&*broker, &control), &args.name, limit, set).await?;
    if own {
        board.put(&[(stop_key(&args.name), None)]).await?;
    }
    print(args, &from, &to)
}

/// Where each partition is to go.
async fn targets(
    broker: &dyn Broker,
    args: &RewindArgs,
    info: &TopicInfo,
) -> Result<BTreeMap<i32, i64>, Failure> {
    if let Some(number) = args.partition.filter(|number| !info.partitions.contains_key(number)) {
        return Err(Failure::input(format!("topic {} has no partition {number}", info.name)));
    }
    let chosen = |number: &i32| args.partition.is_none_or(|only| only == *number);
    let spans = info.partitions.iter().filter(|(number, _)| chosen(number));
    let at = match args.to {
        Place::Time(at_ms) => broker.admin().offsets_at(&info.name, at_ms).await?,
        _ => BTreeMap::new(),
    };
    let mut to = BTreeMap::new();
    for (number, span) in spans {
        let offset = match args.to {
            Place::Beginning => span.start,
            Place::End => span.end,
            Place::Time(_) => at.get(number).copied().unwrap_or(span.end),
            Place::Offset(offset) if (span.start..=span.end).contains(&offset) => offset,
            Place::Offset(offset) => {
                return Err(Failure::input(format!(
                    "partition {number} of {} holds the offsets {} to {}, not {offset}; choose one of them, and a partition with --partition",
                    info.name, span.start, span.end
                )));
            }
        };
        to.insert(*number, offset);
    }
    Ok(to)
}

/// What a lane has done already comes again by the versions of modules that it was for, or, where they are to be
/// forgotten, by those that are wanted.
async fn note_versions(
    board: &Board,
    lane: &str,
    (from, to): (&BTreeMap<i32, i64>, &BTreeMap<i32, i64>),
    forget: bool,
) -> Result<(), Error> {
    let mut news = Vec::new();
    for (key, entry) in board.entries() {
        let Some((_, partition)) = versioned_by_key(&key).filter(|(of, _)| *of == lane) else { continue };
        if !to.contains_key(&partition) {
            continue;
        }
        if forget {
            news.push((key, None));
            continue;
        }
        let mut entry: VersionEntry = entry.read()?;
        entry.reached = entry.reached.max(from.get(&partition).copied().unwrap_or(0));
        news.push((key, Some(json!(entry))));
    }
    board.put(&news).await
}

/// Ends the pipeline everywhere, unless it is ended; it must be held already. Whether it is to begin again after.
async fn hold(board: &Board, pipeline: &PipelinePlan) -> Result<bool, Failure> {
    let name = &pipeline.name;
    if let Some(entry) = board.get(&stop_key(name)) {
        return Ok(entry.read::<StopEntry>().is_ok_and(|stop| stop.by == BY));
    }
    let is_paused =
        board.entries().keys().any(|key| paused_by_key(key).and_then(|held| lane_of(held, name)) == Some(""));
    if !is_paused {
        return Err(Failure::run(format!(
            "pipeline {name} may be running: pause it first, with 'millrace pause {name}'"
        )));
    }
    let since_ms = Clock::system().now_ms();
    let entry = StopEntry { by: BY.to_owned(), reason: "it is being rewound".to_owned(), since_ms };
    board.put(&[(stop_key(name), Some(json!(entry)))]).await?;
    Ok(true)
}

/// Its lanes and their groups: the main one, and those of its isolated sinks.
fn groups(pipeline: &PipelinePlan) -> Vec<(String, String)> {
    let name = &pipeline.name;
    let sinks = pipeline.sinks.iter().filter(|sink| sink.isolated).map(|sink| sink.id.as_str());
    let isolated = sinks.map(|sink| (format!("{name}/{sink}"), group(pipeline, Some(sink))));
    std::iter::once((name.clone(), group(pipeline, None))).chain(isolated).collect()
}

fn print(
    args: &RewindArgs,
    from: &BTreeMap<String, BTreeMap<i32, i64>>,
    to: &BTreeMap<i32, i64>,
) -> Result<(), Failure> {
    let mut out = stdout().lock();
    if args.at.json {
        let groups: Vec<Value> =
            from.iter().map(|(group, from)| json!({ "group": group, "from": from, "to": to })).collect();
        writeln!(out, "{}", json!({ "pipeline": args.name, "groups": groups }))?;
        return Ok(());
    }
    for (group, from) in from {
        for (partition, offset) in to {
            let before =
                from.get(partition).map_or("nowhere".to_owned(), |next| grouped(next.cast_unsigned()));
            writeln!(out, "{group} partition {partition}: {before} → {}", grouped(offset.cast_unsigned()))?;
        }
    }
    writeln!(out, "{} goes on from there when it is resumed", args.name)?;
    Ok(())
}
