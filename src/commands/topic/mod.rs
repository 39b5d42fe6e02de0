//! `millrace topic`: create, list, produce, tail.

mod create;
mod list;
mod produce;
mod tail;

use millrace_config::Plan;
use millrace_core::settings::did_you_mean;

use crate::{args::TopicCommand, report::Failure};

pub async fn run(command: TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Create(args) => create::run(&args).await,
        TopicCommand::List(args) => list::run(&args).await,
        TopicCommand::Produce(args) => produce::run(&args).await,
        TopicCommand::Tail(args) => tail::run(&args).await,
    }
}

/// The broker of a topic: of a declared one, or of the topic whose dead letters it takes, or the only one.
fn broker_of(plan: &Plan, topic: &str) -> Result<String, Failure> {
    if let Some(declared) = plan.topics.get(topic) {
        return Ok(declared.broker.clone());
    }
    if let Some(pipeline) = plan.pipelines.values().find(|pipeline| pipeline.dead_letters.name == topic) {
        return Ok(pipeline.from.broker.clone());
    }
    let names: Vec<&str> = plan.topics.keys().map(String::as_str).collect();
    let advice = did_you_mean(topic, names.iter().copied())
        .unwrap_or_else(|| format!("declared are: {}", names.join(", ")));
    Err(Failure::input(format!("topic '{topic}' is not declared in the pipeline file; {advice}")))
}
