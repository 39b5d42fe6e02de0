//! A pipeline as the runtime is given it: opened systems, no names to look up any more.

use std::sync::Arc;

use millrace_core::{Broker, Sink, SinkId, StepFactory, Subscription, Transactor};
use tokio::time::Duration;

use crate::{
    backoff::RetryPolicy,
    breaker::Breaker,
    dead_letter::DeadLetterQueue,
    decode::Decode,
    lookup::LookupStep,
    quarantine::Quarantine,
    steering::Steering,
    versions::{Version, VersionLog, Versions},
};

/// Everything one pipeline needs to run.
#[derive(Clone)]
pub struct Pipeline {
    /// What health, metrics, logs and reports call it: the pipeline's name; for a lane with `/` and its sink's id.
    pub name: Arc<str>,
    /// The isolated sink that this lane feeds, with progress of its own; none: the main lane, with all others.
    pub lane: Option<Arc<str>>,
    /// Where it reads.
    pub broker: Arc<dyn Broker>,
    /// The broker's breaker.
    pub breaker: Breaker,
    /// What it reads.
    pub subscription: Subscription,
    /// How records become messages.
    pub decode: Decode,
    /// What to do when the log has lost records that were not read yet.
    pub on_gap: OnGap,
    /// In order.
    pub steps: Vec<StepPart>,
    /// All of them get every output.
    pub sinks: Vec<SinkPart>,
    /// Where rejected records go.
    pub dead_letters: Arc<DeadLetterQueue>,
    /// Topics its sinks write, for the order of `--until-end`.
    pub writes_topics: Vec<String>,
    /// What a batch appends to the broker, the states of steps and the batch's progress are one transaction.
    pub transactions: bool,
    /// Bounds on what is in flight.
    pub limits: Limits,
    /// Waits between tries, where a sink has none of its own.
    pub retry: RetryPolicy,
    /// Holds it and lets it go.
    pub steering: Steering,
    /// Remembers which versions of modules records were for; none: nothing does, and a restart may have a record
    /// processed by a version that was not there yet when it was read.
    pub version_log: Option<Arc<dyn VersionLog>>,
}

impl Pipeline {
    /// The pipeline as one worker runs it: what it appends to its broker goes into the worker's transaction.
    pub(crate) fn within(&self, transactor: &Arc<dyn Transactor>) -> Self {
        let mut within = self.clone();
        for part in &mut within.sinks {
            if let Some(sink) = part.sink.within(transactor) {
                part.sink = sink;
            }
        }
        within.dead_letters = Arc::new(self.dead_letters.within(transactor));
        within
    }
}

/// A step and the id that names it in metrics and dead letters.
#[derive(Clone)]
pub enum StepPart {
    /// A SmartModule, or any other pure step.
    Module {
        /// The step's id.
        id: Arc<str>,
        /// Which module, now and earlier.
        versions: Versions,
        /// What is done when it fails again and again; none: nothing but what each record asks for.
        quarantine: Option<Quarantine>,
    },
    /// Reads a store.
    Lookup(Arc<LookupStep>),
}

impl StepPart {
    /// A module that never changes.
    pub fn fixed(id: Arc<str>, factory: Arc<dyn StepFactory>, about: ModuleAbout) -> Self {
        let versions = Versions::fixed(Version { factory, about, trial: None });
        StepPart::Module { id, versions, quarantine: None }
    }
}

impl Pipeline {
    /// The name in the file, which is part of identities: a lane has its pipeline's.
    pub fn configured_name(&self) -> &str {
        let own = self.lane.as_ref().and_then(|sink| self.name.strip_suffix(&**sink)?.strip_suffix('/'));
        own.unwrap_or(&self.name)
    }

    /// The breakers of all systems it calls, each at least once.
    pub(crate) fn breakers(&self) -> impl Iterator<Item = &Breaker> {
        let sinks = self.sinks.iter().flat_map(|part| [Some(&part.breaker), part.ledger.as_ref()]);
        let lookups = self.steps.iter().map(|step| match step {
            StepPart::Lookup(lookup) => Some(&lookup.breaker),
            StepPart::Module { .. } => None,
        });
        std::iter::once(&self.breaker).chain(sinks.chain(lookups).flatten())
    }
}

/// What a dead letter says of the module at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleAbout {
    /// The module's name.
    pub module: Arc<str>,
    /// SHA-256 of its bytes, in hex.
    pub digest: Arc<str>,
}

/// A sink and how it is called.
#[derive(Clone)]
pub struct SinkPart {
    /// Its ids.
    pub id: SinkId,
    /// The sink.
    pub sink: Arc<dyn Sink>,
    /// A send that takes longer has failed with Retry.
    pub timeout: Duration,
    /// The breaker of the system it writes to.
    pub breaker: Breaker,
    /// The breaker of its ledger, if it has one.
    pub ledger: Option<Breaker>,
    /// Waits between its tries.
    pub retry: RetryPolicy,
}

/// What to do about records that retention removed before they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGap {
    /// Stop and name the lost range.
    Stop,
    /// Count it and go on.
    Continue,
}

/// Bounds of one pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most records a worker takes at once.
    pub batch_records_max: usize,
    /// The most bytes a worker takes at once; a single larger record is taken alone.
    pub batch_bytes_max: usize,
    /// How long a worker waits for a batch to fill.
    pub linger: Duration,
    /// The most outputs handed to the sinks at once.
    pub outputs_max: usize,
    /// The most bytes handed to the sinks at once; a single larger output is sent alone.
    pub output_bytes_max: usize,
    /// Bytes queued for a partition's worker above which the source holds the partition back.
    pub queue_bytes_max: usize,
    /// How long work in flight may take to end on shutdown or when a partition is taken away.
    pub drain_timeout: Duration,
    /// The most dead letters within a minute, in this process; before there are more the pipeline is paused.
    pub dead_letters_per_minute_max: usize,
    /// How often progress is committed.
    pub commit_interval: Duration,
    /// Any call but a sink's that takes longer has failed with Retry.
    pub call_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            batch_records_max: 1_000,
            batch_bytes_max: 1 << 20,
            linger: Duration::ZERO,
            outputs_max: 4_096,
            output_bytes_max: 4 << 20,
            queue_bytes_max: 4 << 20,
            drain_timeout: Duration::from_secs(10),
            dead_letters_per_minute_max: 6_000,
            commit_interval: Duration::from_millis(250),
            call_timeout: Duration::from_secs(10),
        }
    }
}
