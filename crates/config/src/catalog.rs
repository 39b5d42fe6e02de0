//! What the program can talk to: the kinds a file may name. The program fills it; nothing here knows Kafka.

use millrace_core::{
    StoreKind,
    module_info::ShippedModule,
    settings::{Field, Kind, Object, Problems, Settings, Shape},
    views::{COUNTER, DOCUMENT, INDEX, MEMBERS, TIMELINE},
};
use tokio::time::Duration;

use crate::tables;

/// The name of the broker kind and of the store kind that `--embedded` puts in place of all others.
pub const EMBEDDED: &str = "embedded";
/// The setting of both that names their folder.
pub(crate) const EMBEDDED_DIR: &str = "dir";

/// All kinds, and the modules that are part of the program.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// What may stand under a name of `brokers`.
    pub brokers: Vec<&'static Kind>,
    /// What may stand under a name of `stores`.
    pub stores: Vec<&'static StoreKind>,
    /// What may stand under an id of `to`; begin with [`SinkKind::builtin`].
    pub sinks: Vec<SinkKind>,
    /// What `uses` may name without an entry under `smartmodules`.
    pub modules: Vec<ShippedModule>,
    /// Checks beyond the tables.
    pub checks: Vec<SettingsCheck>,
    /// How long brokers wait when they take partitions away; one that is not named waits for ever.
    pub handovers: Vec<Handover>,
}

/// How long a broker of one kind waits for the work on a partition that it takes away.
#[derive(Clone, Copy, Debug)]
pub struct Handover {
    /// The kind's name.
    pub kind: &'static str,
    /// Reads it from a broker's settings. None when they are wrong.
    pub patience: fn(&Settings) -> Option<Duration>,
}

/// A kind of sink and where its results go.
#[derive(Clone, Copy, Debug)]
pub struct SinkKind {
    /// The key that selects it, and its settings.
    pub kind: &'static Kind,
    /// Where results go.
    pub target: SinkTarget,
    /// The setting that names its store, and the one that says how long that store remembers events; a kind
    /// without such settings needs no store.
    pub memory: Memory,
}

/// The settings of a sink that concern what it remembers of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Names the store.
    pub store: &'static str,
    /// How long it remembers.
    pub lives: &'static str,
}

/// Where a sink's results go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkTarget {
    /// A view in its store; the store's kind says whether it serves it.
    View,
    /// The topic that its setting `topic` names.
    Topic,
    /// A system of its own. If it names a store, that one must be able to hold a ledger.
    System,
}

/// What a component says about its settings beyond their shapes, without reaching anything.
#[derive(Clone, Copy, Debug)]
pub struct SettingsCheck {
    /// Where the kind is used.
    pub section: Section,
    /// The kind's name.
    pub kind: &'static str,
    /// Adds what is wrong. Only called when the shapes are right.
    pub check: fn(&Settings, &mut Problems),
}

/// A part of the file that names kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// `brokers`.
    Brokers,
    /// `stores`.
    Stores,
    /// `to`.
    Sinks,
}

/// `topic:` under `to`.
pub static TOPIC: Kind = Kind { name: "topic", settings: &TOPIC_SETTINGS };

static TOPIC_SETTINGS: Object = Object {
    name: "topic sink",
    doc: "Appends each message to a topic, on whatever broker it lies: the value is the message.",
    fields: &[
        Field::required("topic", Shape::Text, "the topic, as declared under 'topics'; never a template"),
        Field::optional("key", Shape::Template, "the record's key; the message's own if not given"),
    ],
};

const VIEW_MEMORY: Memory = Memory { store: "store", lives: "ledger" };

impl SinkKind {
    /// The sinks that every program has: the views, and topics.
    pub fn builtin() -> Vec<SinkKind> {
        let of = |kind, target| SinkKind { kind, target, memory: VIEW_MEMORY };
        let views = [&TIMELINE, &MEMBERS, &DOCUMENT, &COUNTER, &INDEX].into_iter();
        views.map(|kind| of(kind, SinkTarget::View)).chain([of(&TOPIC, SinkTarget::Topic)]).collect()
    }

    /// A system of its own that remembers nothing: a terminal.
    pub fn system(kind: &'static Kind) -> SinkKind {
        SinkKind { kind, target: SinkTarget::System, memory: VIEW_MEMORY }
    }

    /// A system of its own that remembers what it was sent in a store's ledger: a webhook.
    pub fn with_ledger(kind: &'static Kind, memory: Memory) -> SinkKind {
        SinkKind { kind, target: SinkTarget::System, memory }
    }
}

impl Section {
    /// How an error names one of its kinds.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Section::Brokers => "broker kind",
            Section::Stores => "store kind",
            Section::Sinks => "sink kind",
        }
    }

    /// What may stand beside the kind.
    pub(crate) fn beside(self) -> &'static Object {
        match self {
            Section::Brokers | Section::Stores => &tables::SYSTEM,
            Section::Sinks => &tables::SINK,
        }
    }
}

impl Catalog {
    pub(crate) fn kinds(&self, section: Section) -> Vec<&'static Kind> {
        match section {
            Section::Brokers => self.brokers.clone(),
            Section::Stores => self.stores.iter().map(|store| &store.kind).collect(),
            Section::Sinks => self.sinks.iter().map(|sink| sink.kind).collect(),
        }
    }

    pub(crate) fn store(&self, kind_name: &str) -> Option<&'static StoreKind> {
        self.stores.iter().copied().find(|store| store.kind.name == kind_name)
    }

    pub(crate) fn sink(&self, kind_name: &str) -> Option<SinkKind> {
        self.sinks.iter().copied().find(|sink| sink.kind.name == kind_name)
    }

    pub(crate) fn module(&self, name: &str) -> Option<&ShippedModule> {
        self.modules.iter().find(|module| module.name == name)
    }
}
