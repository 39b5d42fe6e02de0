//! The plan: what a file means, every name resolved and every number typed. Whoever holds one need not look at
//! the file again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use indexmap::IndexMap;
use millrace_core::{
    LookBack, ModuleReference, Template, TopicSpec, View,
    settings::{Key, Location, Node, NodeKind, Settings},
    views::IndexFields,
};
use tokio::time::Duration;

use crate::{
    catalog::{EMBEDDED, EMBEDDED_DIR},
    graph,
};

/// A checked file.
#[derive(Clone, Debug)]
pub struct Plan {
    /// By name, in the order of the file, as all that follow.
    pub brokers: IndexMap<String, SystemPlan>,
    /// Where views are kept.
    pub stores: IndexMap<String, SystemPlan>,
    /// The declared topics.
    pub topics: IndexMap<String, TopicPlan>,
    /// The declared indexes.
    pub indexes: IndexMap<String, IndexFields>,
    /// What runs.
    pub pipelines: IndexMap<String, PipelinePlan>,
    /// The broker that keeps deployed modules.
    pub state: String,
    /// Files with the public keys of those who may vouch for modules; none: nobody need.
    pub require_signature: Option<Vec<PathBuf>>,
}

/// A broker or a store.
#[derive(Clone, Debug)]
pub struct SystemPlan {
    /// Its name in the file.
    pub name: String,
    /// Its kind's name.
    pub kind_name: &'static str,
    /// Its settings, checked against the kind's table.
    pub settings: Settings,
    /// When it is left alone.
    pub breaker: BreakerPlan,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    /// The broker's name.
    pub broker: String,
    /// How to create it.
    pub spec: TopicSpec,
}

/// A pipeline.
#[derive(Clone, Debug)]
pub struct PipelinePlan {
    /// Its name.
    pub name: String,
    /// What it reads.
    pub from: FromPlan,
    /// In order.
    pub steps: Vec<StepPlan>,
    /// At least one; each gets every output.
    pub sinks: Vec<SinkPlan>,
    /// When a batch is full.
    pub batch: BatchPlan,
    /// Bounds on what is under way.
    pub in_flight: InFlightPlan,
    /// Waits between tries, for all but the sinks.
    pub retry: RetryPlan,
    /// The topic of its dead letters; on the broker of `from`. The size of records is that of the source's
    /// topic unless the topic is declared.
    pub dead_letters: TopicSpec,
    /// Dead letters within a minute above which it pauses.
    pub dead_letters_per_minute_max: u32,
    /// Whether what a batch appends to the broker of `from`, the state of aggregates and progress are one; none: where
    /// there is such a topic or an aggregate.
    pub transactions: Option<bool>,
    /// How long its sinks and guards remember an event: the shortest of their ledgers. None: they have none.
    pub remembers: Option<Duration>,
    /// How long one call may take.
    pub send_timeout: Duration,
    /// How long work under way may take to end on shutdown or when a partition is taken away.
    pub drain_timeout: Duration,
    /// How often progress is committed.
    pub commit_interval: Duration,
}

/// What a pipeline reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromPlan {
    /// The topic.
    pub topic: String,
    /// The topic's broker.
    pub broker: String,
    /// Records of other types are skipped; none: nothing is.
    pub events: Option<Vec<String>>,
    /// What records hold.
    pub format: RecordFormat,
    /// What to do about records that retention removed before they were read.
    pub on_gap: GapPolicy,
}

/// What records hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFormat {
    /// A JSON event in its envelope.
    Json,
    /// Anything.
    Bytes,
}

/// What to do about records that retention removed before they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapPolicy {
    /// Stop and name the lost range.
    Stop,
    /// Count it and go on.
    Continue,
}

/// A step.
#[derive(Clone, Debug)]
pub enum StepPlan {
    /// A SmartModule.
    Module(ModulePlan),
    /// Reads a store.
    Lookup(LookupPlan),
}

/// A SmartModule and how it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModulePlan {
    /// The step's id.
    pub id: String,
    /// The module's name.
    pub module: String,
    /// Where its code is.
    pub source: ModuleSource,
    /// Its parameters.
    pub with: BTreeMap<String, String>,
    /// The history it wants.
    pub look_back: Option<LookBack>,
    /// What it may use.
    pub limits: ModuleLimits,
    /// Another version that is tried beside it.
    pub trial: Option<TrialPlan>,
    /// What is done when it fails again and again.
    pub quarantine: QuarantinePlan,
}

/// A version on trial. The step's parameters, history and limits are for it as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialPlan {
    /// Which.
    pub version: ModuleReference,
    /// How.
    pub manner: TrialManner,
}

/// How a version is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrialManner {
    /// It takes these records in place of the other version.
    Canary(CanaryPart),
    /// It is given all records, and only how its results differ is kept.
    Shadow,
}

/// The records that a canary takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanaryPart {
    /// All of these partitions.
    Partitions(BTreeSet<i32>),
    /// A part of each partition, by the records' keys.
    Share {
        /// How many of a million.
        per_million: u32,
    },
}

/// When a module has failed on too many records in a row, and what is done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuarantinePlan {
    /// So many records.
    pub after: u32,
    /// What is done.
    pub then: QuarantinePolicy,
}

/// What is done about a module that fails again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuarantinePolicy {
    /// The pipeline is paused.
    Stop,
    /// It goes on, into the dead letters.
    Skip,
    /// The version before takes over.
    Previous,
}

/// Where a module's code is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleSource {
    /// In the program, under the module's name.
    Shipped,
    /// In a file.
    File(PathBuf),
    /// Deployed.
    Registry(ModuleReference),
}

/// What a module may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleLimits {
    /// Memory of an instance.
    pub memory_bytes: u64,
    /// Time of one call.
    pub timeout: Duration,
    /// Outputs of one call.
    pub output_records: u32,
    /// Bytes of the outputs of one call.
    pub output_bytes: u64,
    /// What one call may compute; none: it is not counted.
    pub fuel: Option<u64>,
}

/// A lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupPlan {
    /// The step's id.
    pub id: String,
    /// The store's name.
    pub store: String,
    /// What is read.
    pub query: LookupQuery,
    /// The top-level field that takes the answer.
    pub into: String,
    /// How long an answer is used again.
    pub cache_ttl: Duration,
    /// How many answers are kept for that.
    pub cache_entries: u32,
    /// Event types that always ask the store.
    pub uncached: Vec<String>,
    /// Keeps events on one object from passing each other.
    pub guard: Option<GuardPlan>,
}

/// What a lookup reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupQuery {
    /// The members of a set, page by page.
    Members {
        /// The set's key.
        key: Template,
        /// The most members of a page.
        page: u32,
    },
    /// A document.
    Document {
        /// The document's key.
        key: Template,
    },
}

/// The guard of a lookup: an event of `closed_by` closes it before the first page is read; for any other event a
/// page is dropped when the guard is closed after the page was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardPlan {
    /// What is guarded.
    pub id: Template,
    /// Event types that close it.
    pub closed_by: Vec<String>,
    /// How long it stays closed.
    pub ledger: Duration,
}

/// A sink.
#[derive(Clone, Debug)]
pub struct SinkPlan {
    /// Its id.
    pub id: String,
    /// Its kind's name.
    pub kind_name: &'static str,
    /// The store it writes, or keeps its ledger in.
    pub store: Option<String>,
    /// Where results go.
    pub output: Output,
    /// Its settings, checked against the kind's table.
    pub settings: Settings,
    /// It has progress of its own.
    pub isolated: bool,
    /// Waits between its tries.
    pub retry: RetryPlan,
    /// When its system is left alone, if that is neither a store nor a broker.
    pub breaker: BreakerPlan,
}

/// Where results go.
#[derive(Clone, Debug)]
pub enum Output {
    /// Into a view of the sink's store.
    View(View),
    /// Into a topic.
    Topic {
        /// Its name.
        topic: String,
        /// The topic's broker.
        broker: String,
        /// The record's key; the message's own if none.
        key: Option<Template>,
    },
    /// Into a system that is opened from the settings.
    System,
}

/// When a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// Records.
    pub records: u32,
    /// Bytes.
    pub bytes: u64,
    /// How long a batch waits to become full.
    pub linger: Duration,
}

/// Bounds on what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlightPlan {
    /// Outputs handed to the sinks at once.
    pub outputs: u32,
    /// Bytes handed to the sinks at once.
    pub output_bytes: u64,
    /// Bytes queued for a partition's worker.
    pub queue_bytes: u64,
    /// Bytes fetched and not yet queued, over all partitions.
    pub prefetch_bytes: u64,
}

/// Waits between tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPlan {
    /// The bound of the first.
    pub initial: Duration,
    /// The bound of all.
    pub max: Duration,
    /// How long one call is tried; none: for ever.
    pub budget: Option<Duration>,
    /// What happens then.
    pub exhausted: ExhaustedPolicy,
}

/// What happens when a call was tried for as long as its budget allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExhaustedPolicy {
    /// The pipeline pauses.
    Pause,
    /// The records concerned become dead letters.
    DeadLetters,
}

/// When a system is left alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPlan {
    /// Failures in a row.
    pub failures: u32,
    /// At first.
    pub open_for: Duration,
    /// At most.
    pub open_for_max: Duration,
}

impl Plan {
    /// The plan with every broker and every store replaced by the embedded kind in one folder.
    pub fn embedded(mut self, dir: &Path) -> Plan {
        let at = Location { line: 1, column: 1 };
        let dir = NodeKind::Scalar { text: dir.to_string_lossy().into_owned(), plain: false };
        let settings = Node {
            at,
            kind: NodeKind::Map(vec![(Key { at, text: EMBEDDED_DIR.to_owned() }, Node { at, kind: dir })]),
        };
        for (section, systems) in [("brokers", &mut self.brokers), ("stores", &mut self.stores)] {
            for system in systems.values_mut() {
                system.kind_name = EMBEDDED;
                let path = format!("{section}.{}.{EMBEDDED}", system.name);
                system.settings = Settings::new(settings.clone(), path);
            }
        }
        self
    }

    /// What a person may want to know of a plan without a mistake in it, a line each.
    pub fn notes(&self) -> Vec<String> {
        let of_pipeline = |pipeline: &PipelinePlan| {
            let (name, read) = (pipeline.name.clone(), pipeline.from.broker.clone());
            let elsewhere: Vec<_> = pipeline
                .topics()
                .filter(|(_, _, broker)| pipeline.transactions != Some(false) && *broker != read)
                .map(|(sink, topic, broker)| {
                    format!(
                        "pipelines.{name}.to.{}: '{topic}' lies on the broker '{broker}', '{name}' reads from '{read}': \
                         it is written at least once, outside transactions",
                        sink.id
                    )
                })
                .collect();
            elsewhere
        };
        self.pipelines.values().flat_map(of_pipeline).collect()
    }

    /// The pipelines in levels: what a level writes is read by later ones only. For `--until-end`, which must
    /// not take a topic's end before its writers are done.
    pub fn pipeline_levels(&self) -> Vec<Vec<&PipelinePlan>> {
        let flows: Vec<graph::Flow<'_>> = self.pipelines.values().map(PipelinePlan::flow).collect();
        let levels = graph::levels(&flows).expect("invariant: a checked plan has no cycle of topics");
        levels
            .into_iter()
            .map(|level| level.into_iter().map(|index| &self.pipelines[index]).collect())
            .collect()
    }
}

impl PipelinePlan {
    /// The sinks that write a topic, with the topic's name and broker.
    pub fn topics(&self) -> impl Iterator<Item = (&SinkPlan, &str, &str)> {
        self.sinks.iter().filter_map(|sink| match &sink.output {
            Output::Topic { topic, broker, .. } => Some((sink, topic.as_str(), broker.as_str())),
            Output::View(_) | Output::System => None,
        })
    }

    /// The steps that are SmartModules.
    pub fn modules(&self) -> impl Iterator<Item = &ModulePlan> {
        self.steps.iter().filter_map(|step| match step {
            StepPlan::Module(module) => Some(module),
            StepPlan::Lookup(_) => None,
        })
    }

    pub(crate) fn flow(&self) -> graph::Flow<'_> {
        let sinks = self.topics().map(|(_, topic, _)| topic);
        graph::Flow {
            pipeline: &self.name,
            reads: &self.from.topic,
            writes: sinks.chain([self.dead_letters.name.as_str()]).collect(),
        }
    }
}

impl ModulePlan {
    /// The deployed modules that it runs, by the names that an applied file has them under.
    pub fn deployed(&self) -> impl Iterator<Item = (String, &ModuleReference)> {
        let main = match &self.source {
            ModuleSource::Registry(reference) => Some((self.module.clone(), reference)),
            ModuleSource::Shipped | ModuleSource::File(_) => None,
        };
        main.into_iter().chain(self.trial.iter().map(TrialPlan::named))
    }
}

impl TrialPlan {
    /// The version, by the name that an applied file has it under.
    pub fn named(&self) -> (String, &ModuleReference) {
        (self.version.to_string(), &self.version)
    }
}

impl StepPlan {
    /// The step's id.
    pub fn id(&self) -> &str {
        match self {
            StepPlan::Module(module) => &module.id,
            StepPlan::Lookup(lookup) => &lookup.id,
        }
    }
}
