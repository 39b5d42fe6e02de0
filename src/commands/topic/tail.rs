//! `millrace topic tail`: the records of a topic as JSON lines or as text.

use std::{
    collections::BTreeMap,
    io::{Write, stdout},
};

use millrace_core::{Class, Record, Source, SourceEvent, Start, Subscription};
use millrace_runtime::RESOLVES;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::broker_of;
use crate::{
    args::{From, TopicTailArgs},
    assemble::Systems,
    json_bytes::to_json,
    plan,
    report::{Failure, say},
    signals::Signals,
};

pub async fn run(args: &TopicTailArgs) -> Result<(), Failure> {
    let plan = plan::load(&args.at)?;
    let broker = broker_of(&plan, &args.topic)?;
    let signals = Signals::listen()?;
    let shutdown = CancellationToken::new();
    let mut systems = Systems::new()?;
    let broker = systems.broker(&plan, &broker)?;
    let info = broker.admin().topic(&args.topic).await?.ok_or_else(|| {
        Failure::environment(format!(
            "topic {} does not exist; create it with 'millrace topic create'",
            args.topic
        ))
    })?;
    // What is left to read, by partition, when the end is a goal.
    let open: BTreeMap<i32, i64> = info
        .partitions
        .iter()
        .filter(|(number, span)| {
            args.partition.is_none_or(|wanted| wanted == **number) && span.start < span.end
        })
        .map(|(number, span)| (*number, span.end))
        .collect();
    if args.until_end && (open.is_empty() || args.from == From::End) {
        return Ok(());
    }
    let goal = args.until_end.then_some(open);
    let source = broker.subscribe(subscription(args)).await?;
    signals.guard(&shutdown, read(source, goal, args.at.json, &shutdown)).await?
}

fn subscription(args: &TopicTailArgs) -> Subscription {
    Subscription {
        topic: args.topic.clone(),
        group: None,
        partitions: args.partition.map(|partition| vec![partition]),
        start: match args.from {
            From::Beginning => Start::Beginning,
            From::End => Start::End,
            From::Offset(offset) => Start::Offset(offset),
        },
        prefetch_bytes_max: 8 << 20,
        batch_records_max: 500,
    }
}

/// Prints what comes, up to the goal's offsets where there is a goal.
async fn read(
    mut source: Box<dyn Source>,
    mut goal: Option<BTreeMap<i32, i64>>,
    as_json: bool,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    while goal.as_ref().is_none_or(|open| !open.is_empty()) {
        let event = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            event = source.next() => event,
        };
        let (partition, next_offset) = match event {
            Ok(Some(SourceEvent::Batch(batch))) => {
                let end = goal.as_ref().map(|open| open.get(&batch.partition).copied().unwrap_or(0));
                let mut out = stdout().lock();
                for record in batch.records.iter().filter(|r| end.is_none_or(|end| r.offset < end)) {
                    print(&mut out, record, as_json)?;
                }
                out.flush()?;
                (batch.partition, batch.next_offset())
            }
            Ok(Some(SourceEvent::CaughtUp { partition, next_offset })) => (partition.partition, next_offset),
            Ok(Some(_)) => continue,
            Ok(None) => return Ok(()),
            Err(error) if error.class() == Class::Retry && goal.is_none() => {
                say(&format!("millrace: {}", error.chain()));
                continue;
            }
            Err(error) => return Err(Failure::from(error)),
        };
        if let Some(open) = &mut goal {
            open.retain(|number, end| *number != partition || next_offset < *end);
        }
    }
    Ok(())
}

fn print(out: &mut impl Write, record: &Record, as_json: bool) -> Result<(), Failure> {
    if as_json {
        let headers: Map<String, Value> =
            record.headers.iter().map(|h| (h.name.to_string(), to_json(h.value.as_ref()))).collect();
        let line = json!({
            "topic": &*record.topic, "partition": record.partition, "offset": record.offset,
            "timestamp": record.timestamp_ms, "key": to_json(record.key.as_ref()),
            "value": to_json(record.value.as_ref()), "headers": headers,
        });
        writeln!(out, "{line}")?;
    } else if record.header(RESOLVES).is_none() {
        out.write_all(record.value.as_deref().unwrap_or_default())?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
