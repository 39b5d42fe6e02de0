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

/// The states of all pipelines of a process. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Health {
    pipelines: Arc<Mutex<BTreeMap<Arc<str>, PipelineState>>>,
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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, PipelineState>> {
        self.pipelines.lock().expect("invariant: nobody panics while holding the health lock")
    }
}
