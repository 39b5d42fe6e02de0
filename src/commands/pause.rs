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
    args::{FileArgs, PauseArgs, ResumeArgs},
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
struct Done {
    pipeline: String,
    changed: bool,
    says: String,
}

/// How a command changes the board for one pipeline: what to write, and what to say of it.
pub(super) struct Change {
    pub(super) writes: Vec<(String, Option<Value>)>,
    pub(super) says: String,
}

impl Change {
    /// Nothing is to be written.
    pub(super) fn none(says: impl Into<String>) -> Self {
        Change { writes: Vec::new(), says: says.into() }
    }
}

pub async fn pause(args: &PauseArgs) -> Result<(), Failure> {
    check_reason(&args.reason)?;
    change_each(&args.at, &args.names, false, |board, pipeline| {
        let key = pause_key(pipeline);
        match board.get(&key).map(|entry| entry.read::<PauseEntry>()) {
            Some(Ok(pause)) if pause.by == HeldBy::Operator.name() => {
                Change::none(format!("was paused already by {}: {}", pause.by, pause.reason))
            }
            Some(Err(error)) => Change::none(format!("was paused already: {}", error.chain())),
            // What the runtime holds may be a part of the pipeline; a person holds all of it.
            Some(Ok(_)) | None => {
                let entry = json!({
                    "by": HeldBy::Operator.name(), "reason": args.reason, "since_ms": Clock::system().now_ms(),
                });
                Change { writes: vec![(key, Some(entry))], says: "paused".to_owned() }
            }
        }
    })
    .await
}

pub async fn resume(args: &ResumeArgs) -> Result<(), Failure> {
    change_each(&args.at, &args.names, args.all, |board, pipeline| {
        // Its own and those of its isolated sinks.
        let is_of = |key: &String| paused_by_key(key).and_then(|name| lane_of(name, pipeline)).is_some();
        let removed: Vec<_> = board.entries().into_keys().filter(is_of).map(|key| (key, None)).collect();
        let says = if removed.is_empty() { "was not paused" } else { "resumed" };
        Change { writes: removed, says: says.to_owned() }
    })
    .await
}

/// Does to each of the pipelines what `change` finds, and prints what became of it; with `only_changed` nothing of those
/// that stay as they are.
pub(super) async fn change_each(
    at: &FileArgs,
    names: &[String],
    only_changed: bool,
    change: impl Fn(&Board, &str) -> Change,
) -> Result<(), Failure> {
    let plan = state::load(at).await?;
    let names = selected(&plan, names)?;
    let mut boards = BoardsOf::new()?;
    let mut done = Vec::new();
    for pipeline in names {
        let board = boards.of(&plan, &pipeline).await?;
        let Change { writes, says } = change(board, &pipeline);
        let changed = !writes.is_empty();
        if changed {
            board.put(&writes).await?;
        } else if only_changed {
            continue;
        }
        done.push(Done { pipeline, changed, says });
    }
    print(&done, at.json)
}

/// The boards of the brokers, each opened once.
struct BoardsOf {
    systems: Systems,
    open: BTreeMap<String, Board>,
}

impl BoardsOf {
    fn new() -> Result<Self, Failure> {
        Ok(BoardsOf { systems: Systems::new()?, open: BTreeMap::new() })
    }

    async fn of(&mut self, plan: &Plan, pipeline: &str) -> Result<&Board, Failure> {
        let name = &plan.pipelines[pipeline].from.broker;
        if !self.open.contains_key(name) {
            let (broker, topic) = self.systems.control(plan, name)?;
            let board = Board::open(&*broker, &topic).await?;
            self.open.insert(name.clone(), board);
        }
        Ok(&self.open[name])
    }
}

fn print(done: &[Done], as_json: bool) -> Result<(), Failure> {
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
