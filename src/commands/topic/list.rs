//! `millrace topic list`: every topic of every broker.

use std::io::{Write, stdout};

use serde_json::{Map, Value, json};

use crate::{
    args::TopicListArgs,
    assemble::Systems,
    plan,
    report::{Failure, grouped},
};

pub async fn run(args: &TopicListArgs) -> Result<(), Failure> {
    let plan = plan::load(&args.at)?;
    let mut systems = Systems::new()?;
    let mut out = stdout().lock();
    if !args.at.json {
        writeln!(out, "{:<12} {:<40} {:>10} {:>14}", "broker", "topic", "partitions", "records")?;
    }
    for broker in plan.brokers.keys() {
        for topic in systems.broker(&plan, broker)?.admin().topics().await? {
            let records: i64 = topic.partitions.values().map(|span| (span.end - span.start).max(0)).sum();
            if args.at.json {
                let spans: Map<String, Value> = topic
                    .partitions
                    .iter()
                    .map(|(number, span)| {
                        (number.to_string(), json!({ "start": span.start, "end": span.end }))
                    })
                    .collect();
                writeln!(out, "{}", json!({ "broker": broker, "topic": topic.name, "partitions": spans }))?;
            } else {
                let (partitions, records) = (topic.partitions.len(), grouped(records.cast_unsigned()));
                writeln!(out, "{broker:<12} {:<40} {partitions:>10} {records:>14}", topic.name)?;
            }
        }
    }
    Ok(())
}
