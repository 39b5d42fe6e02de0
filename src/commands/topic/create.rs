//! `millrace topic create`: topics as the file declares them.

use std::io::{Write, stdout};

use millrace_core::CreateOutcome;
use serde_json::json;

use super::broker_of;
use crate::{
    args::TopicCreateArgs,
    assemble::Systems,
    plan,
    report::{Failure, counted, say},
};

pub async fn run(args: &TopicCreateArgs) -> Result<(), Failure> {
    let plan = plan::load(&args.at)?;
    let names: Vec<String> =
        if args.all { plan.topics.keys().cloned().collect() } else { args.topics.clone() };
    let mut systems = Systems::new()?;
    let mut out = stdout().lock();
    for name in names {
        if !plan.topics.contains_key(&name) {
            broker_of(&plan, &name)?;
            return Err(Failure::input(format!("topic '{name}' is not declared under 'topics'")));
        }
        let (broker, spec) = systems.topic(&plan, &name)?;
        let (word, partitions) = match broker.admin().create_topic(&spec).await? {
            CreateOutcome::Created => ("created", spec.partitions),
            CreateOutcome::Exists { partitions } => ("exists", partitions),
        };
        if args.at.json {
            writeln!(out, "{}", json!({ "topic": name, "outcome": word, "partitions": partitions }))?;
        } else {
            writeln!(out, "{word:<8} {name} ({})", counted(u64::from(partitions), "partition"))?;
        }
        if partitions != spec.partitions {
            say(&format!(
                "millrace: topic {name} has {partitions} partitions, declared are {}",
                spec.partitions
            ));
        }
    }
    Ok(())
}
