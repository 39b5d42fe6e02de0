//! Topics and indexes as they are declared.

use std::collections::HashMap;

use indexmap::IndexMap;
use millrace_core::{
    TopicSpec,
    settings::{Key, Node, Problems},
    views::{FieldType, IndexFields},
};

use crate::{names::Name, part::Part, plan::TopicPlan, systems::Systems, tables};

/// Elasticsearch refuses mappings of more fields unless told otherwise.
const INDEX_FIELDS_MAX: usize = 1_000;
/// How long a topic keeps records, at least and at most.
const RETENTION: (&str, &str) = ("1m", "36500d");

/// Reads `topics`.
pub(crate) fn topics(root: &Node, brokers: &Systems, problems: &mut Problems) -> IndexMap<String, TopicPlan> {
    let mut topics = IndexMap::new();
    let mut metric_names: HashMap<String, &Key> = HashMap::new();
    for (name, node) in root.get("topics").map(Node::entries).unwrap_or_default() {
        let path = format!("topics.{}", name.text);
        Name::of_key(name).check_topic(&path, problems);
        if let Some(other) = metric_names.insert(name.text.replace('.', "_"), name) {
            problems.suggest(
                name.at,
                &path,
                format!("the names '{}' and '{}' differ only in '.' and '_'", other.text, name.text),
                "Kafka refuses the second one: choose another name",
            );
        }
        topics.insert(
            name.text.clone(),
            topic(&name.text, &Part::new(node, path, &tables::TOPIC), brokers, problems),
        );
    }
    topics
}

fn topic(name: &str, part: &Part, brokers: &Systems, problems: &mut Problems) -> TopicPlan {
    if let Some(node) = part.settings.node("broker") {
        brokers.check_name(node, "broker", &part.path_of("broker"), problems);
    }
    let retention = part.duration_within("retention", RETENTION, problems);
    if part.has("retention_bytes") {
        part.size_within("retention_bytes", ("1KiB", "1000000TiB"), problems);
    }
    let record_bytes = part.size_within("max_record_bytes", ("1KiB", "64MiB"), problems);
    TopicPlan {
        broker: part.settings.text("broker").unwrap_or_default().to_owned(),
        spec: TopicSpec {
            name: name.to_owned(),
            partitions: part.count("partitions"),
            retention_ms: u64::try_from(retention.as_millis()).ok(),
            retention_bytes: part.settings.size("retention_bytes"),
            record_bytes_max: usize::try_from(record_bytes).unwrap_or(usize::MAX),
            replication: part.settings.count("replication").and_then(|n| u16::try_from(n).ok()),
            compact: false,
        },
    }
}

/// Reads `indexes`.
pub(crate) fn indexes(root: &Node, problems: &mut Problems) -> IndexMap<String, IndexFields> {
    let mut indexes = IndexMap::new();
    for (name, node) in root.get("indexes").map(Node::entries).unwrap_or_default() {
        let path = format!("indexes.{}", name.text);
        Name::of_key(name).check_index(&path, problems);
        indexes.insert(name.text.clone(), index(&Part::new(node, path, &tables::INDEX), problems));
    }
    indexes
}

fn index(part: &Part, problems: &mut Problems) -> IndexFields {
    let path = part.path_of("fields");
    let declared = part.settings.node("fields").map(Node::entries).unwrap_or_default();
    if declared.len() > INDEX_FIELDS_MAX {
        let message = format!("{} fields, at most {INDEX_FIELDS_MAX} are allowed", declared.len());
        problems.add(part.at_key("fields"), &path, message);
    }
    let mut fields = Vec::with_capacity(declared.len());
    for (key, node) in declared {
        Name::of_key(key).check_index_field(&format!("{path}.{}", key.text), problems);
        if let Some(of) = node.text().and_then(FieldType::parse) {
            fields.push((key.text.clone(), of));
        }
    }
    IndexFields { fields, shards: part.settings.count("shards"), replicas: part.settings.count("replicas") }
}
