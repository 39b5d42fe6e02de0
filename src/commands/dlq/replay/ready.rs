//! The pipelines that letters are run through, opened when the first letter needs them, and the letters that are
//! refused because a repetition would not be harmless.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use millrace_config::{PipelinePlan, Plan};
use millrace_core::Error;
use millrace_runtime::{Clock, Letter, Replay};
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::{args::DlqReplayArgs, assemble::Systems, report::Failure};

/// How a replay is done.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    force: bool,
    retry_for: Duration,
}

/// What is known of the pipelines so far.
pub struct Ready {
    rules: Rules,
    clock: Clock,
    shutdown: CancellationToken,
    /// By pipeline: its step with a memory, if it has one.
    with_memory: HashMap<String, Option<String>>,
    open: HashMap<String, Replay>,
}

impl Rules {
    pub fn of(args: &DlqReplayArgs) -> Self {
        Rules { force: args.force, retry_for: Duration::from_millis(args.timeout_ms) }
    }
}

impl Ready {
    pub fn new(rules: Rules, shutdown: CancellationToken) -> Self {
        let clock = Clock::system();
        Ready { rules, clock, shutdown, with_memory: HashMap::new(), open: HashMap::new() }
    }

    /// Why a letter is left as it is; none: it may be run.
    pub async fn refusal(
        &mut self,
        plan: &Plan,
        systems: &mut Systems,
        letter: &Letter,
    ) -> Result<Option<String>, Failure> {
        let name = &letter.pipeline;
        let Some(pipeline) = plan.pipelines.get(name) else {
            return Ok(Some(format!("there is no pipeline '{name}' in the file")));
        };
        if self.rules.force {
            return Ok(None);
        }
        if let Some(step) = self.with_memory(plan, systems, pipeline).await? {
            return Ok(Some(format!(
                "the step '{step}' of {name} depends on the records before, which a replay does not have; \
                 --force runs it without"
            )));
        }
        let age_ms = self.clock.now_ms().saturating_sub(letter.since_ms());
        let too_old =
            |lives: Duration| i128::from(age_ms) > i128::try_from(lives.as_millis()).unwrap_or(i128::MAX);
        Ok(pipeline.remembers.filter(|lives| too_old(*lives)).map(|lives| {
            let hours = lives.as_secs() / 3_600;
            format!(
                "older than what {name} remembers of its events ({hours} h): what it has done already, or what was deleted \
                 since, may be done again; --force replays them all the same"
            )
        }))
    }

    /// The pipeline, with its sinks prepared.
    pub async fn pipeline(
        &mut self,
        plan: &Plan,
        systems: &mut Systems,
        name: &str,
    ) -> Result<&Replay, Failure> {
        match self.open.entry(name.to_owned()) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(vacant) => {
                let pipeline = Arc::new(systems.pipeline(plan, &plan.pipelines[name]).await?);
                let (clock, shutdown) = (self.clock.clone(), self.shutdown.clone());
                Ok(vacant.insert(Replay::open(pipeline, clock, shutdown, self.rules.retry_for).await?))
            }
        }
    }

    async fn with_memory(
        &mut self,
        plan: &Plan,
        systems: &mut Systems,
        pipeline: &PipelinePlan,
    ) -> Result<Option<String>, Error> {
        if let Some(known) = self.with_memory.get(&pipeline.name) {
            return Ok(known.clone());
        }
        let found = systems.step_with_memory(plan, pipeline).await?;
        self.with_memory.insert(pipeline.name.clone(), found.clone());
        Ok(found)
    }
}
