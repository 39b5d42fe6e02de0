//! What a pipeline may name, and what its parts leave behind to be checked together.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use indexmap::IndexMap;
use millrace_core::{
    settings::{Location, Node, Problems},
    views::{IndexFields, IndexMode},
};
use tokio::time::Duration;

use crate::{
    catalog::{Catalog, TOPIC},
    plan::{ModuleSource, TopicPlan},
    systems::Systems,
};

/// Everything declared outside the pipelines.
pub(crate) struct World<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) base_dir: &'a Path,
    pub(crate) stores: &'a Systems,
    pub(crate) modules: &'a IndexMap<String, Option<ModuleSource>>,
    pub(crate) topics: &'a IndexMap<String, TopicPlan>,
    pub(crate) indexes: &'a IndexMap<String, IndexFields>,
    /// How long brokers wait when they take a partition away, by name.
    pub(crate) handovers: HashMap<String, Duration>,
    /// Topics that some pipeline of the file writes: their records need not be events.
    pub(crate) written: HashSet<String>,
}

/// What is checked when all pipelines are known.
#[derive(Default)]
pub(crate) struct Later {
    /// Everything that remembers events for a while.
    pub(crate) ledgers: Vec<LedgerUse>,
    /// Every sink into an index.
    pub(crate) indexes: Vec<IndexUse>,
    /// Every isolated sink.
    pub(crate) lanes: Vec<LaneUse>,
}

/// An isolated sink and the name its progress is kept under.
pub(crate) struct LaneUse {
    pub(crate) group: String,
    pub(crate) at: Location,
    pub(crate) path: String,
}

/// Something that remembers events for a while.
pub(crate) struct LedgerUse {
    pub(crate) pipeline: String,
    /// The setting that says how long.
    pub(crate) key: &'static str,
    pub(crate) at: Location,
    pub(crate) path: String,
    pub(crate) lives: Duration,
}

/// A sink into an index.
pub(crate) struct IndexUse {
    pub(crate) store: String,
    pub(crate) index: String,
    pub(crate) mode: IndexMode,
    pub(crate) at: Location,
    pub(crate) path: String,
}

/// The topics that sinks of the file write.
pub(crate) fn written_topics(root: &Node) -> HashSet<String> {
    let pipelines = root.get("pipelines").map(Node::entries).unwrap_or_default();
    let sinks = pipelines.iter().filter_map(|(_, node)| node.get("to")).flat_map(Node::entries);
    sinks.filter_map(|(_, sink)| Some(sink.get(TOPIC.name)?.get("topic")?.text()?.to_owned())).collect()
}

impl Later {
    /// Two that keep their progress under one name would take each other's records.
    pub(crate) fn check_lanes<'a>(
        &self,
        pipelines: impl Iterator<Item = &'a String>,
        problems: &mut Problems,
    ) {
        let mut groups: HashSet<&str> = pipelines.map(String::as_str).collect();
        for lane in &self.lanes {
            if !groups.insert(&lane.group) {
                let message = format!("the name '{}' of its progress is taken", lane.group);
                let advice = "rename the sink, or the pipeline of that name";
                problems.suggest(lane.at, &lane.path, message, advice);
            }
        }
    }

    /// An index whose documents carry versions per field cannot take whole documents as well.
    pub(crate) fn check_index_modes(&self, problems: &mut Problems) {
        let mut modes: HashMap<(&str, &str), &IndexUse> = HashMap::new();
        for sink in &self.indexes {
            let first = modes.entry((&sink.store, &sink.index)).or_insert(sink);
            if first.mode != sink.mode {
                problems.suggest(
                    sink.at,
                    &sink.path,
                    format!("the index '{}' is written in two modes", sink.index),
                    format!(
                        "the sink in line {} has the other mode; all sinks of an index need the same",
                        first.at.line
                    ),
                );
            }
        }
    }
}
