//! How each pipeline is doing, for `/readyz` and for the end of a run.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::steering::Pause;

/// The state of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipelineState {
    /// Preparing its sinks and joining its group.
    Starting,
    /// Reading and writing.
    Running,
    /// Trying something again; why.
    Retrying(String),
    /// Held until somebody resumes it; by whom and why.
    Paused(Pause),
    /// Ended as asked.
    Stopped,
    /// Ended by an error; which.
    Failed(String),
}

impl PipelineState {
    /// The name in `/readyz` and in `status`.
    pub fn name(&self) -> &'static str {
        match self {
            PipelineState::Starting => "starting",
            PipelineState::Running => "running",
            PipelineState::Retrying(_) => "retrying",
            PipelineState::Paused(_) => "paused",
            PipelineState::Stopped => "stopped",
            PipelineState::Failed(_) => "failed",
        }
    }

    /// Why it is in this state, where there is a reason.
    pub fn reason(&self) -> Option<&str> {
        match self {
            PipelineState::Retrying(why) | PipelineState::Failed(why) => Some(why),
            PipelineState::Paused(pause) => Some(&pause.reason),
            PipelineState::Starting | PipelineState::Running | PipelineState::Stopped => None,
        }
    }
}

/// Who of a pipeline is trying something again. Each ends its own trouble only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trier {
    /// What prepares the sinks and opens the source.
    Start,
    /// The source.
    Source,
    /// The worker of a partition.
    Worker(i32),
}

/// Why each of them does, by pipeline.
type Troubles = BTreeMap<(Arc<str>, Trier), String>;

/// How a circuit breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// No call goes through until its wait is over.
    Open,
    /// One call goes through, to see whether the others may.
    HalfOpen,
}

impl BreakerState {
    /// The name in `status` and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        }
    }
}

/// A system that pipelines call, as its breaker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// How its breaker stands.
    pub breaker: BreakerState,
    /// Since when, ms since 1970.
    pub since_ms: i64,
    /// Failures in a row.
    pub failures: u32,
    /// The last one.
    pub last_error: Option<String>,
}

/// A failure that a person may want to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// Where: `decode`, `step:ID`, `lookup:ID`, `sink:ID`, or what was called.
    pub place: String,
    /// The error's chain.
    pub error: String,
    /// When, ms since 1970.
    pub at_ms: i64,
    /// The record at hand, `topic/partition/offset`, or the first of them.
    pub record: Option<String>,
}

/// The states of all pipelines of a process, and of the systems they call. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Health {
    pipelines: Arc<Mutex<BTreeMap<Arc<str>, PipelineState>>>,
    pauses: Arc<Mutex<BTreeMap<Arc<str>, Pause>>>,
    troubles: Arc<Mutex<Troubles>>,
    endpoints: Arc<Mutex<BTreeMap<Arc<str>, Endpoint>>>,
    last_errors: Arc<Mutex<BTreeMap<Arc<str>, LastError>>>,
}

impl Health {
    /// Notes a new state of a pipeline, in which nobody tries anything again yet.
    pub fn set(&self, pipeline: &Arc<str>, state: PipelineState) {
        hold(&self.troubles).retain(|(of, _), _| of != pipeline);
        self.lock().insert(pipeline.clone(), state);
    }

    /// Somebody is trying again; why.
    pub(crate) fn retrying(&self, pipeline: &Arc<str>, trier: Trier, why: String) {
        hold(&self.troubles).insert((pipeline.clone(), trier), why);
    }

    /// He is not any more, be it that it worked or that it is no longer his to do.
    pub(crate) fn recovered(&self, pipeline: &Arc<str>, trier: Trier) {
        hold(&self.troubles).remove(&(pipeline.clone(), trier));
    }

    /// Notes whether the pipeline is held. What it does beneath, as retrying the batch it had, goes on being
    /// noted and shows when it is let go.
    pub(crate) fn hold(&self, pipeline: &Arc<str>, pause: Option<Pause>) {
        let mut pauses = hold(&self.pauses);
        match pause {
            Some(pause) => pauses.insert(pipeline.clone(), pause),
            None => pauses.remove(pipeline),
        };
    }

    /// The state of every pipeline, by name.
    pub fn states(&self) -> BTreeMap<Arc<str>, PipelineState> {
        let mut states = self.lock().clone();
        for ((pipeline, _), why) in &*hold(&self.troubles) {
            if let Some(state @ (PipelineState::Starting | PipelineState::Running)) = states.get_mut(pipeline)
            {
                *state = PipelineState::Retrying(why.clone());
            }
        }
        for (pipeline, pause) in &*hold(&self.pauses) {
            if let Some(
                state @ (PipelineState::Starting | PipelineState::Running | PipelineState::Retrying(_)),
            ) = states.get_mut(pipeline)
            {
                *state = PipelineState::Paused(pause.clone());
            }
        }
        states
    }

    /// Whether every pipeline is running.
    pub fn ready(&self) -> bool {
        let states = self.states();
        !states.is_empty() && states.values().all(|state| *state == PipelineState::Running)
    }

    /// Forgets a pipeline that this process does not have any more.
    pub fn forget(&self, pipeline: &Arc<str>) {
        hold(&self.troubles).retain(|(of, _), _| of != pipeline);
        hold(&self.pauses).remove(pipeline);
        hold(&self.last_errors).remove(pipeline);
        self.lock().remove(pipeline);
    }

    /// Notes how the breaker of a system stands.
    pub fn set_endpoint(&self, endpoint: &Arc<str>, state: Endpoint) {
        hold(&self.endpoints).insert(endpoint.clone(), state);
    }

    /// Every system that was called, by name.
    pub fn endpoints(&self) -> BTreeMap<Arc<str>, Endpoint> {
        hold(&self.endpoints).clone()
    }

    /// Notes a pipeline's latest failure.
    pub fn note_error(&self, pipeline: &Arc<str>, error: LastError) {
        hold(&self.last_errors).insert(pipeline.clone(), error);
    }

    /// The latest failure of each pipeline that had one.
    pub fn last_errors(&self) -> BTreeMap<Arc<str>, LastError> {
        hold(&self.last_errors).clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, PipelineState>> {
        hold(&self.pipelines)
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("invariant: nobody panics while holding the health lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_ends_his_own_trouble_only() {
        let (health, name) = (Health::default(), Arc::from("p"));
        let state = || health.states()["p"].clone();
        health.set(&name, PipelineState::Running);
        health.retrying(&name, Trier::Source, "no broker".into());
        health.retrying(&name, Trier::Worker(1), "no store".into());
        assert_eq!(state(), PipelineState::Retrying("no broker".into()));
        health.recovered(&name, Trier::Source);
        health.recovered(&name, Trier::Worker(2));
        assert_eq!(state(), PipelineState::Retrying("no store".into()));
        assert!(!health.ready());
        health.recovered(&name, Trier::Worker(1));
        assert!(health.ready());
        health.retrying(&name, Trier::Worker(1), "no store".into());
        health.set(&name, PipelineState::Stopped);
        assert_eq!(state(), PipelineState::Stopped, "at the end nobody tries any more");
    }
}
