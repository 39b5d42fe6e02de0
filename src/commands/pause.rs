//! `millrace pause` and `millrace resume`: writes to the board what every process then does.

use std::{
    collections::BTreeMap,
    io::{Write, stdout},
};

use millrace_config::Plan;
use millrace_control::{Board, PauseEntry, lane_of, pause_key, paused_by_key};
use millrace_runtime::{Clock, HeldBy};
use serde_json::{Value, json};

use super::run::selected;
use crate::{
    args::{PauseArgs, ResumeArgs},
    assemble::Systems,
    report::Failure,
    state,
};

/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 500;

/// A reason that can be shown on one line.
pub(super) fn check_reason(reason: &str) -> Result<(), Failure> {
    if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        return Err(Failure::input(format!("a reason is one line of at most {REASON_BYTES_MAX} bytes")));
    }
    Ok(())
}

/// What became of a pipeline, for people and for programs.
pub(super) struct Done {
    pub(super) pipeline: String,
    pub(super) changed: bool,
    pub(super) says: String,
}

pub async fn pause(args: &PauseArgs) -> Result<(), Failure> {
    let plan = state::load(&args.at).await?;
    let names = selected(&plan, &args.names)?;
    check_reason(&args.reason)?;
    let mut boards = BoardsOf::new()?;
    let mut done = Vec::new();
    for pipeline in names {
        let board = boards.of(&plan, &pipeline).await?;
        let key = pause_key(&pipeline);
        let (changed, says) = match board.get(&key).map(|entry| entry.read::<PauseEntry>()) {
            Some(Ok(pause)) if pause.by == HeldBy::Operator.name() => {
                (false, format!("was paused already by {}: {}", pause.by, pause.reason))
            }
            Some(Err(error)) => (false, format!("was paused already: {}", error.chain())),
            // What the runtime holds may be a part of the pipeline; a person holds all of it.
            Some(Ok(_)) | None => {
                let entry = json!({
                    "by": HeldBy::Operator.name(), "reason": args.reason, "since_ms": Clock::system().now_ms(),
                });
                board.put(&[(key, Some(entry))]).await?;
                (true, "paused".to_owned())
            }
        };
        done.push(Done { pipeline, changed, says });
    }
    print(&done, args.at.json)
}

pub async fn resume(args: &ResumeArgs) -> Result<(), Failure> {
    let plan = state::load(&args.at).await?;
    let names = selected(&plan, &args.names)?;
    let mut boards = BoardsOf::new()?;
    let mut done = Vec::new();
    for pipeline in names {
        let board = boards.of(&plan, &pipeline).await?;
        // Its own and those of its isolated sinks.
        let is_of = |key: &String| paused_by_key(key).and_then(|name| lane_of(name, &pipeline)).is_some();
        let removed: Vec<_> = board.entries().into_keys().filter(is_of).map(|key| (key, None)).collect();
        let changed = !removed.is_empty();
        if changed {
            board.put(&removed).await?;
        } else if args.all {
            continue;
        }
        let says = if changed { "resumed" } else { "was not paused" };
        done.push(Done { pipeline, changed, says: says.to_owned() });
    }
    print(&done, args.at.json)
}

/// The boards of the brokers, each opened once.
pub(super) struct BoardsOf {
    systems: Systems,
    open: BTreeMap<String, Board>,
}

impl BoardsOf {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(BoardsOf { systems: Systems::new()?, open: BTreeMap::new() })
    }

    pub(super) async fn of(&mut self, plan: &Plan, pipeline: &str) -> Result<&Board, Failure> {
        let name = &plan.pipelines[pipeline].from.broker;
        if !self.open.contains_key(name) {
            let (broker, topic) = self.systems.control(plan, name)?;
            let board = Board::open(&*broker, &topic).await?;
            self.open.insert(name.clone(), board);
        }
        Ok(&self.open[name])
    }
}

pub(super) fn print(done: &[Done], as_json: bool) -> Result<(), Failure> {
    let mut out = stdout().lock();
    if as_json {
        let list: Vec<Value> = done
            .iter()
            .map(|done| json!({ "pipeline": done.pipeline, "changed": done.changed, "result": done.says }))
            .collect();
        writeln!(out, "{}", Value::from(list))?;
        return Ok(());
    }
    for Done { pipeline, says, .. } in done {
        writeln!(out, "{pipeline}: {says}")?;
    }
    Ok(())
}
