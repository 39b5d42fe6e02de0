//! What applying a file would change.

use std::fmt;

use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    file::FileState,
    tree::{Difference, differences},
    world::{GroupWorld, World},
};

/// So many hexadecimal digits name a plan.
const HASH_DIGITS: usize = 16;

/// Differences of one pipeline that are listed.
const DETAILS_MAX: usize = 50;

/// What would change, and the name of exactly this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Names what is applied now, what would be, and the world as it was observed.
    pub hash: String,
    /// In the order in which it would be done.
    pub changes: Vec<Change>,
    /// What a person may want to know besides.
    pub notes: Vec<String>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What is done.
    pub action: Action,
    /// To what.
    pub subject: Subject,
    /// Its name.
    pub name: String,
    /// How, a line each.
    pub details: Vec<String>,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new.
    Add,
    /// It is there and becomes another.
    Change,
    /// It goes.
    Remove,
}

/// What something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A topic.
    Topic,
    /// A search index.
    Index,
    /// A SmartModule.
    SmartModule,
    /// A broker or a store.
    System,
    /// A pipeline.
    Pipeline,
    /// A consumer group's progress.
    Progress,
    /// The file: what is in it and in none of the above.
    File,
}

impl Action {
    /// How a diff marks it.
    pub fn mark(self) -> char {
        match self {
            Action::Add => '+',
            Action::Change => '~',
            Action::Remove => '-',
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Subject::Topic => "topic",
            Subject::Index => "index",
            Subject::SmartModule => "smartmodule",
            Subject::System => "system",
            Subject::Pipeline => "pipeline",
            Subject::Progress => "progress",
            Subject::File => "file",
        })
    }
}

/// What applying `desired` would change against `applied`, the file in force with its offset, and the world. With
/// `purge` the progress of pipelines that are not in the file goes too.
pub fn plan(applied: Option<(&FileState, i64)>, desired: &FileState, world: &World, purge: bool) -> Planned {
    let before = applied.map(|(file, _)| file);
    let mut changes: Vec<Change> = topics(world).collect();
    changes.extend(indexes(world));
    changes.extend(modules(before, desired));
    for section in ["brokers", "stores"] {
        changes.extend(entries(before, desired, section, Subject::System));
    }
    changes.extend(pipelines(before, desired, world, purge));
    changes.extend(rest(before, desired, &changes));
    if purge {
        changes.extend(purged(world));
    }
    // A pipeline that is in force makes progress all the time, which is no other world.
    let is_news = |group: &&GroupWorld| {
        !group.wanted || before.is_none_or(|file| file.entry("pipelines", &group.pipeline).is_none())
    };
    let facts = json!({
        "format": 1, "applied": applied.map(|(_, offset)| offset), "desired": desired.hash(), "purge": purge,
        "topics": world.topics, "indexes": world.indexes,
        "groups": world.groups.iter().filter(is_news).collect::<Vec<_>>(),
    });
    let mut hash = hex::encode(Sha256::digest(facts.to_string()));
    hash.truncate(HASH_DIGITS);
    Planned { hash, changes, notes: notes(world) }
}

fn topics(world: &World) -> impl Iterator<Item = Change> {
    let missing = world.topics.iter().filter(|topic| topic.found.is_none());
    missing.map(|topic| Change {
        action: Action::Add,
        subject: Subject::Topic,
        name: topic.name.clone(),
        details: vec![format!("{} on {}", counted(topic.wanted as usize, "partition"), topic.broker)],
    })
}

fn indexes(world: &World) -> impl Iterator<Item = Change> {
    let lacking = world.indexes.iter().filter(|index| !index.lacks.is_empty());
    lacking.map(|index| Change {
        action: Action::Change,
        subject: Subject::Index,
        name: index.name.clone(),
        details: index.lacks.iter().map(|lack| format!("{lack} in {}", index.store)).collect(),
    })
}

fn modules(before: Option<&FileState>, desired: &FileState) -> Vec<Change> {
    let old = before.map(|file| file.modules.clone()).unwrap_or_default();
    let change = |action, name: &str, details| Change {
        action,
        subject: Subject::SmartModule,
        name: name.to_owned(),
        details: vec![details],
    };
    let mut changes = Vec::new();
    for (name, digest) in &desired.modules {
        match old.get(name) {
            None => changes.push(change(Action::Add, name, short(digest))),
            Some(before) if before != digest => {
                changes.push(change(Action::Change, name, format!("{} → {}", short(before), short(digest))));
            }
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|(name, _)| !desired.modules.contains_key(*name));
    changes.extend(gone.map(|(name, digest)| change(Action::Remove, name, short(digest))));
    changes
}

fn entries(before: Option<&FileState>, desired: &FileState, section: &str, subject: Subject) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, node) in desired.section(section) {
        let older = before.and_then(|file| file.entry(section, name));
        if older.is_none() && before.is_none() {
            continue;
        }
        let found = differences(older, Some(node));
        if !found.is_empty() {
            let action = if older.is_some() { Action::Change } else { Action::Add };
            changes.push(Change { action, subject, name: name.to_owned(), details: lines(&found) });
        }
    }
    let gone = before.into_iter().flat_map(|file| file.section(section));
    for (name, _) in gone.filter(|(name, _)| desired.entry(section, name).is_none()) {
        changes.push(Change { action: Action::Remove, subject, name: name.to_owned(), details: Vec::new() });
    }
    changes
}

fn pipelines(before: Option<&FileState>, desired: &FileState, world: &World, purge: bool) -> Vec<Change> {
    let of = |name: &str| world.groups.iter().filter(move |group| group.pipeline == name).collect::<Vec<_>>();
    let change = |action, name: &str, details| Change {
        action,
        subject: Subject::Pipeline,
        name: name.to_owned(),
        details,
    };
    let mut changes = Vec::new();
    for (name, node) in desired.section("pipelines") {
        match before.and_then(|file| file.entry("pipelines", name)) {
            None => changes.push(change(Action::Add, name, of(name).into_iter().map(begins).collect())),
            Some(older) => {
                let found = differences(Some(older), Some(node));
                let moved = found.iter().any(|difference| difference.path == "from.topic");
                let mut details = lines(&found);
                details.extend(of(name).into_iter().filter(|_| moved).map(begins));
                if !details.is_empty() {
                    changes.push(change(Action::Change, name, details));
                }
            }
        }
    }
    let gone = before.into_iter().flat_map(|file| file.section("pipelines"));
    for (name, _) in gone.filter(|(name, _)| desired.entry("pipelines", name).is_none()) {
        let kept = of(name).into_iter().filter(|group| group.has_progress && !purge);
        let kept = kept.map(|group| format!("progress of group {} is kept; --purge forgets it", group.group));
        changes.push(change(Action::Remove, name, kept.collect()));
    }
    changes
}

/// Where a pipeline that was not there starts.
fn begins(group: &GroupWorld) -> String {
    match group.has_progress {
        true => format!("group {} goes on in {} where it has come to", group.group, group.topic),
        false => format!("group {} reads {} from its beginning", group.group, group.topic),
    }
}

/// What is in the file and nowhere else: declarations that make no difference to what exists, and the text itself.
fn rest(before: Option<&FileState>, desired: &FileState, changes: &[Change]) -> Option<Change> {
    let before = before?;
    let mut details = Vec::new();
    for section in ["topics", "indexes", "smartmodules", "state", "version"] {
        let found = differences(before.root.get(section), desired.root.get(section));
        let placed = |difference: &Difference| {
            let dot = if difference.path.is_empty() { "" } else { "." };
            Difference { path: format!("{section}{dot}{}", difference.path), ..difference.clone() }
        };
        details.extend(lines(&found.iter().map(placed).collect::<Vec<_>>()));
    }
    if before.embedded != desired.embedded {
        details.push(format!("--embedded: {} → {}", before.embedded, desired.embedded));
    }
    if details.is_empty() {
        let named = changes.iter().any(|change| !matches!(change.subject, Subject::Topic | Subject::Index));
        if named || before.text == desired.text {
            return None;
        }
        details.push("comments, layout, or the order of keys".to_owned());
    }
    Some(Change { action: Action::Change, subject: Subject::File, name: "pipelines".to_owned(), details })
}

fn purged(world: &World) -> impl Iterator<Item = Change> {
    let gone = world.groups.iter().filter(|group| !group.wanted && group.has_progress);
    gone.map(|group| Change {
        action: Action::Remove,
        subject: Subject::Progress,
        name: group.group.clone(),
        details: vec![format!("in {}, of the removed pipeline {}", group.topic, group.pipeline)],
    })
}

fn notes(world: &World) -> Vec<String> {
    let other = world.topics.iter().filter_map(|topic| {
        let found = topic.found.filter(|found| *found != topic.wanted)?;
        Some(format!(
            "topic {} has {}, declared are {}: a topic that exists is left as it is, because more partitions \
             move keys",
            topic.name,
            counted(found as usize, "partition"),
            topic.wanted
        ))
    });
    other.collect()
}

fn lines(found: &[Difference]) -> Vec<String> {
    let line = |Difference { path, before, after }: &Difference| {
        let at = if path.is_empty() { String::new() } else { format!("{path}: ") };
        match (before, after) {
            (Some(before), Some(after)) => format!("{at}{before} → {after}"),
            (None, Some(after)) => format!("+ {at}{after}"),
            (Some(before), None) => format!("- {at}{before}"),
            (None, None) => at,
        }
    };
    let mut lines: Vec<String> = found.iter().take(DETAILS_MAX).map(line).collect();
    if found.len() > DETAILS_MAX {
        lines.push(format!("and {} more", found.len() - DETAILS_MAX));
    }
    lines
}

fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
