//! What a store holds, and the operations on it. Each function is one atomic step, as a script in Redis or a
//! transaction in SQLite is; whoever needs two of them needs two requests or has a bug.

use std::collections::{BTreeMap, BTreeSet};

use millrace_core::{
    Claim,
    views::{Change, CounterEffect, MembersEffect, Polarity, TimelineEffect, TimelineOp},
};
use serde_json::Value;
use tokio::time::{Duration, Instant};

use super::document::Stored;

/// The contents of one store. Ledgers and tombstones outlive every simulation.
#[derive(Default)]
pub struct Kept {
    timelines: BTreeMap<String, Timeline>,
    members: BTreeMap<String, BTreeMap<String, (i64, bool)>>,
    documents: BTreeMap<String, Stored>,
    counters: BTreeMap<String, Counter>,
    pub(super) indexes: BTreeMap<String, BTreeMap<String, Indexed>>,
    pub(super) guards: BTreeSet<String>,
    claims: BTreeMap<String, Entry>,
}

#[derive(Default)]
struct Timeline {
    scores: BTreeMap<String, f64>,
    removed: BTreeSet<String>,
}

#[derive(Default)]
struct Counter {
    value: Option<i64>,
    counted: BTreeSet<String>,
}

/// A document in an index, with the number of its last change.
#[derive(Clone, Default)]
pub(super) struct Indexed {
    pub(super) stored: Stored,
    pub(super) change: u64,
}

enum Entry {
    Done,
    Held { by: u64, until: Instant },
}

impl Kept {
    /// Adds or removes, and keeps at most so many.
    pub(super) fn timeline(&mut self, effect: &TimelineEffect, stored_max: u32) {
        let removed = self.is_removed(effect);
        let timeline = self.timelines.entry(effect.key.clone()).or_default();
        match effect.op {
            TimelineOp::Add { .. } if removed => {}
            TimelineOp::Add { score } => Self::add(timeline, &effect.member, score, stored_max),
            TimelineOp::Remove => {
                timeline.scores.remove(&effect.member);
                timeline.removed.insert(effect.member.clone());
            }
        }
    }

    /// Whether the member has a tombstone.
    pub(super) fn is_removed(&self, effect: &TimelineEffect) -> bool {
        self.timelines.get(&effect.key).is_some_and(|timeline| timeline.removed.contains(&effect.member))
    }

    /// Adds without a look at the tombstones.
    pub(super) fn add_anyway(&mut self, effect: &TimelineEffect, stored_max: u32) {
        if let TimelineOp::Add { score } = effect.op {
            let timeline = self.timelines.entry(effect.key.clone()).or_default();
            Self::add(timeline, &effect.member, score, stored_max);
        }
    }

    fn add(timeline: &mut Timeline, member: &str, score: f64, stored_max: u32) {
        let known = timeline.scores.entry(member.to_owned()).or_insert(score);
        *known = known.max(score);
        if timeline.scores.len() > stored_max as usize {
            let oldest = timeline.scores.iter().min_by(|a, b| a.1.total_cmp(b.1).then_with(|| a.0.cmp(b.0)));
            let oldest = oldest.map(|(member, _)| member.clone());
            oldest.and_then(|member| timeline.scores.remove(&member));
        }
    }

    pub(super) fn member(&mut self, effect: &MembersEffect) {
        let set = self.members.entry(effect.key.clone()).or_default();
        let known = set.entry(effect.member.clone()).or_insert((-1, false));
        match effect.op {
            Polarity::Add if effect.version >= known.0 => *known = (effect.version, true),
            Polarity::Remove if effect.version > known.0 => *known = (effect.version, false),
            Polarity::Add | Polarity::Remove => {}
        }
    }

    pub(super) fn document(&mut self, key: &str, change: &Change) {
        self.documents.entry(key.to_owned()).or_default().merge(change);
    }

    /// Moves unless the ledger knows the effect, and writes the ledger: one step.
    pub(super) fn count(&mut self, effect: &CounterEffect) {
        if !self.is_counted(effect) {
            self.move_counter(effect);
            self.note_counted(effect);
        }
    }

    pub(super) fn is_counted(&self, effect: &CounterEffect) -> bool {
        self.counters.get(&effect.key).is_some_and(|one| one.counted.contains(effect.identity.as_str()))
    }

    pub(super) fn move_counter(&mut self, effect: &CounterEffect) {
        let counter = self.counters.entry(effect.key.clone()).or_default();
        counter.value = Some(counter.value.unwrap_or_default() + effect.by);
    }

    pub(super) fn note_counted(&mut self, effect: &CounterEffect) {
        let counter = self.counters.entry(effect.key.clone()).or_default();
        counter.counted.insert(effect.identity.as_str().to_owned());
    }

    pub(super) fn claim(&mut self, identity: &str, by: u64, hold: Duration) -> Claim {
        let now = Instant::now();
        match self.claims.get(identity) {
            Some(Entry::Done) => Claim::Done,
            Some(Entry::Held { until, .. }) if *until > now => Claim::Held,
            _ => {
                self.claims.insert(identity.to_owned(), Entry::Held { by, until: now + hold });
                Claim::Granted
            }
        }
    }

    pub(super) fn claim_done(&mut self, identity: &str) {
        self.claims.insert(identity.to_owned(), Entry::Done);
    }

    pub(super) fn claim_release(&mut self, identity: &str, claimant: u64) {
        if matches!(self.claims.get(identity), Some(Entry::Held { by, .. }) if *by == claimant) {
            self.claims.remove(identity);
        }
    }

    /// Puts members into a set, as somebody else's writes would have before the simulation began.
    pub fn preload_members(&mut self, key: &str, members: impl IntoIterator<Item = String>) {
        self.members
            .entry(key.to_owned())
            .or_default()
            .extend(members.into_iter().map(|one| (one, (0, true))));
    }

    /// The newest `n` members with their scores, ties by the greater bytes.
    pub fn newest(&self, key: &str, n: usize) -> Vec<(String, f64)> {
        let scores = self.timelines.get(key).map(|timeline| &timeline.scores);
        let mut all: Vec<_> =
            scores.into_iter().flatten().map(|(member, score)| (member.clone(), *score)).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| b.0.cmp(&a.0)));
        all.truncate(n);
        all
    }

    /// A set's members in byte order.
    pub fn members_of(&self, key: &str) -> Vec<String> {
        let set = self.members.get(key).into_iter().flatten();
        set.filter(|(_, (_, present))| *present).map(|(member, _)| member.clone()).collect()
    }

    /// A document's JSON text.
    pub fn document_text(&self, key: &str) -> Option<String> {
        self.documents.get(key)?.json()
    }

    /// A counter's value.
    pub fn counter(&self, key: &str) -> Option<i64> {
        self.counters.get(key)?.value
    }

    /// A document of an index.
    pub fn indexed(&self, index: &str, id: &str) -> Option<Value> {
        serde_json::from_str(&self.indexes.get(index)?.get(id)?.stored.json()?).ok()
    }

    /// How many documents of an index are not deleted.
    pub fn indexed_count(&self, index: &str) -> usize {
        let all = self.indexes.get(index).into_iter().flatten();
        all.filter(|(_, one)| !one.stored.deleted).count()
    }
}
