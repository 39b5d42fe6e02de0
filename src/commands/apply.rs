//! `millrace apply`: puts a file in force. What it does may be cut off anywhere and done again.

use std::io::{Write, stdout};

use serde_json::json;
use tokio::time::Duration;

use super::plan::{Look, show};
use crate::{
    args::ApplyArgs,
    report::{Failure, counted, say},
    state::{
        apply::{Outcome, Work, carry_out},
        left::when_left,
    },
};

pub async fn run(args: &ApplyArgs) -> Result<(), Failure> {
    let look = Look::take(&args.at, args.purge).await?;
    if !look.modules.files.is_empty() {
        return Err(Failure::input(format!(
            "smartmodules of files are on this machine only: {}; deploy them first",
            look.modules.files.join(", ")
        )));
    }
    if let Some(hash) = args.plan.as_ref().filter(|hash| **hash != look.planned.hash) {
        show(&look.planned)?;
        return Err(Failure::run(format!(
            "plan {hash} does not hold any more: the file, what is applied, or the topics, indexes and groups have changed since; above is what would be done now"
        )));
    }
    if !args.at.json {
        show(&look.planned)?;
    }
    let entry = look.entry();
    let work = Work {
        topics: look.observed.topics.clone(),
        indexes: look.observed.indexes.clone(),
        state: (look.state.broker.clone(), look.state.topic.clone()),
        entry,
    };
    let mut done = Vec::new();
    let outcome = carry_out(&work, |step| done.push(step)).await;
    if !args.at.json {
        done.iter().for_each(|step| say(&format!("millrace: {step}")));
    }
    let (generation, changed) = match outcome? {
        Outcome::InForce { generation } => (Some(generation), true),
        Outcome::Unchanged => (look.generation(), !done.is_empty()),
        Outcome::Lost { winner } => {
            return Err(Failure::run(format!(
                "somebody else applied at the same moment: generation {} by {} is in force; plan again",
                winner.entry.generation, winner.entry.by
            )));
        }
    };
    let forgotten = if args.purge { purge(args, &look).await? } else { Vec::new() };
    let mut out = stdout().lock();
    if args.at.json {
        let printed = json!({
            "generation": generation, "changed": changed || !forgotten.is_empty(), "done": done,
            "forgotten": forgotten,
        });
        writeln!(out, "{printed}")?;
    } else if let Some(generation) = generation {
        writeln!(out, "generation {generation} is in force")?;
    }
    Ok(())
}

/// Forgets the progress of pipelines that are not in the file any more, when their processes have left.
async fn purge(args: &ApplyArgs, look: &Look) -> Result<Vec<String>, Failure> {
    let mut forgotten = Vec::new();
    for (broker, control, group) in look.observed.former.iter().filter(|(_, _, group)| group.has_progress) {
        let limit = Duration::from_millis(args.timeout_ms);
        let forget = async || broker.admin().forget_progress(&group.group, &group.topic).await;
        when_left((&**broker, control), &group.pipeline, limit, forget).await?;
        forgotten.push(group.group.clone());
    }
    if !forgotten.is_empty() && !args.at.json {
        say(&format!("millrace: forgot the progress of {}", counted(forgotten.len() as u64, "group")));
    }
    Ok(forgotten)
}
