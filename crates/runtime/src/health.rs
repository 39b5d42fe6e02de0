//! How each pipeline is doing, for `/readyz` and for the end of a run.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// The state of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipelineState {
    /// Preparing its sinks and joining its group.
    Starting,
    /// Reading and writing.
    Running,
    /// Trying something again; why.
    Retrying(String),
    /// Ended as asked.
    Stopped,
    /// Ended by an error; which.
    Failed(String),
}

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
    endpoints: Arc<Mutex<BTreeMap<Arc<str>, Endpoint>>>,
    last_errors: Arc<Mutex<BTreeMap<Arc<str>, LastError>>>,
}

impl Health {
    pub(crate) fn set(&self, pipeline: &Arc<str>, state: PipelineState) {
        self.lock().insert(pipeline.clone(), state);
    }

    /// Running again after a retry, if it was retrying.
    pub(crate) fn recovered(&self, pipeline: &Arc<str>) {
        if let Some(state @ PipelineState::Retrying(_)) = self.lock().get_mut(pipeline) {
            *state = PipelineState::Running;
        }
    }

    /// The state of every pipeline, by name.
    pub fn states(&self) -> BTreeMap<Arc<str>, PipelineState> {
        self.lock().clone()
    }

    /// Whether every pipeline is running.
    pub fn ready(&self) -> bool {
        let states = self.lock();
        !states.is_empty() && states.values().all(|state| *state == PipelineState::Running)
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
