//! What happens between source and sinks: pure transformations of a batch.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Duration;

use crate::{
    error::{Error, Result},
    message::{Message, Origin},
};

/// A record that a step gave up on, and why.
#[derive(Debug)]
pub struct Rejected {
    /// The record at fault.
    pub origin: Arc<Origin>,
    /// Of class Reject.
    pub error: Error,
    /// Whether the step refused it in words of its own, which may quote the record. If not, the step failed on it, and
    /// the words are of those who watch it.
    pub refused: bool,
}

/// What became of a batch. A message that is in neither list was filtered out, which is done.
#[derive(Debug, Default)]
pub struct Outcome {
    /// In the order of the input; outputs of one input stand together.
    pub passed: Vec<Message>,
    /// The records at fault, and only those.
    pub rejected: Vec<Rejected>,
}

/// What a step has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepUsage {
    /// The most memory that an instance of it has had, in bytes.
    pub memory_bytes: u64,
    /// How often its instance was replaced, since it had failed or grown.
    pub recycles: u64,
}

/// Turns one batch of one partition into another. Synchronous and pure towards the outside world; may keep
/// state of its own, since a partition has one instance.
pub trait Step: Send {
    /// Called with the messages of one partition in order, never concurrently. May take milliseconds.
    ///
    /// # Errors
    /// Fatal only: the step cannot work at all. What a single record causes is in [`Outcome::rejected`].
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome>;

    /// The history this step wants to see before its first batch.
    fn look_back(&self) -> Option<LookBack> {
        None
    }

    /// Hands over that history, oldest first; called once, before the first `apply`.
    ///
    /// # Errors
    /// Fatal when the step refuses it.
    fn prime(&mut self, _history: Vec<Message>) -> Result<()> {
        Ok(())
    }

    /// What it carries from batch to batch and wants to have again where its partition is taken up; none if
    /// nothing. Bounded in bytes by the step itself.
    fn snapshot(&self) -> Option<Bytes> {
        None
    }

    /// What it has used; asked after each `apply`.
    fn usage(&self) -> StepUsage {
        StepUsage::default()
    }

    /// Puts it back to where `snapshot` was taken; called before the first `apply`.
    ///
    /// # Errors
    /// Fatal when the step cannot take this state.
    fn restore(&mut self, _state: Bytes) -> Result<()> {
        Ok(())
    }
}

/// The records before the first one that a step wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookBack {
    /// At most this many records.
    pub records_max: u32,
    /// No older than this; none: of any age.
    pub age_max: Option<Duration>,
}

/// For whom an instance is made.
#[derive(Clone, Debug)]
pub struct StepContext {
    /// The pipeline.
    pub pipeline: Arc<str>,
    /// The partition it will work for.
    pub partition: i32,
    /// The isolated sink whose lane it is in; none: the main lane.
    pub lane: Option<Arc<str>>,
}

/// Makes a step's instances: what may fail is done before, what runs is the [`Step`].
pub trait StepFactory: Send + Sync {
    /// A new instance for one partition.
    ///
    /// # Errors
    /// Fatal: the module cannot be instantiated or its `init` fails.
    fn open(&self, context: &StepContext) -> Result<Box<dyn Step>>;

    /// Whether its instances have a [`Step::snapshot`].
    fn keeps_state(&self) -> bool {
        false
    }
}
