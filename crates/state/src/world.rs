//! The world as it was observed: what decides whether a plan still holds.

use serde::Serialize;

/// What was observed of all that a file names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct World {
    /// The topics that are declared, and those of dead letters.
    pub topics: Vec<TopicWorld>,
    /// The indexes that are written.
    pub indexes: Vec<IndexWorld>,
    /// The groups of the pipelines of the file, and of those that are not in it any more.
    pub groups: Vec<GroupWorld>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicWorld {
    /// Its broker.
    pub broker: String,
    /// Its name.
    pub name: String,
    /// How many partitions it is to have.
    pub wanted: u32,
    /// How many it has; none: it is not there.
    pub found: Option<u32>,
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IndexWorld {
    /// Its store.
    pub store: String,
    /// Its name.
    pub name: String,
    /// What it lacks, a line each.
    pub lacks: Vec<String>,
}

/// A consumer group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupWorld {
    /// The pipeline it is of.
    pub pipeline: String,
    /// The broker, the group and the topic it reads.
    pub broker: String,
    /// The group's name, without the broker's prefix.
    pub group: String,
    /// What it reads.
    pub topic: String,
    /// The pipeline is in the file.
    pub wanted: bool,
    /// It has progress. How far it has come is not the plan's matter: it moves all the time.
    pub has_progress: bool,
}
