//! What is found out about a version on trial.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard},
};

use millrace_core::Origin;

use super::{Manner, Trial, counters::Counts};
use crate::{metrics::Metrics, pipeline::ModuleAbout};

/// So many records that differ are kept: enough to look into, and no log of its own.
const FIRST_MAX: usize = 10;

/// A version on trial, and what was found out about it. All workers of a step share it.
#[derive(Debug)]
pub struct Tried {
    /// Which it is.
    pub about: ModuleAbout,
    /// How it is tried.
    pub manner: Manner,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    findings: Findings,
    /// Not in the metrics yet.
    uncounted: Counts,
}

/// What was found out since the process began, or since another version is wanted. A record that comes again counts again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Records that the version on trial was given.
    pub records: u64,
    /// Of these, the ones that it rejected.
    pub rejected: u64,
    /// A shadow's: the ones whose results are not those of the version that counts.
    pub differing: u64,
    /// The first of them.
    pub first: Vec<Differing>,
    /// Partitions on which a shadow was switched off, and why.
    pub off: BTreeMap<i32, String>,
}

/// A record whose results differ. Its contents are not kept: they are nobody's business here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// In what.
    pub difference: Difference,
}

/// In what the results of a record differ first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only the version on trial rejects it.
    Rejected,
    /// Only the version that counts rejects it.
    Accepted,
    /// There are more results, or fewer.
    Count,
    /// A result has another key.
    Key,
    /// A result has another value.
    Value,
}

impl Difference {
    /// Its name in `status`.
    pub fn name(self) -> &'static str {
        match self {
            Difference::Rejected => "rejected",
            Difference::Accepted => "accepted",
            Difference::Count => "count",
            Difference::Key => "key",
            Difference::Value => "value",
        }
    }
}

impl Tried {
    pub(super) fn new(trial: &Trial) -> Self {
        Tried { about: trial.about.clone(), manner: trial.manner.clone(), found: Mutex::default() }
    }

    /// What was found out so far.
    pub fn findings(&self) -> Findings {
        self.lock().findings.clone()
    }

    /// Whether the version on trial is the one that processed a record.
    pub(crate) fn took(&self, partition: i32, origin: &Origin) -> bool {
        match &self.manner {
            Manner::Canary(part) => part.takes(partition, origin),
            Manner::Shadow => false,
        }
    }

    /// Adds what is new to the metrics.
    pub(crate) fn count(&self, metrics: &Metrics, pipeline: &str, step: &str) {
        let counts = mem::take(&mut self.lock().uncounted);
        metrics.trials.add([pipeline, step, &*self.about.module, self.manner.name()], counts);
    }

    /// The version on trial was given records and rejected some of them.
    pub(super) fn ran(&self, records: usize, rejected: usize) {
        let (records, rejected) = (records as u64, rejected as u64);
        let Found { findings, uncounted } = &mut *self.lock();
        findings.records += records;
        findings.rejected += rejected;
        uncounted.records += records;
        uncounted.rejected += rejected;
    }

    /// The results of a record differ.
    pub(super) fn differs(&self, origin: &Origin, difference: Difference) {
        let record = &origin.record;
        let (topic, partition, offset) = (record.topic.clone(), record.partition, record.offset);
        let Found { findings, uncounted } = &mut *self.lock();
        findings.differing += 1;
        uncounted.differing += 1;
        let is_known = |one: &Differing| (one.partition, one.offset) == (partition, offset);
        if findings.first.len() < FIRST_MAX && !findings.first.iter().any(is_known) {
            findings.first.push(Differing { topic, partition, offset, difference });
        }
    }

    /// It is switched off on a partition, and why; or on again.
    pub(super) fn switched(&self, partition: i32, off: Option<String>) {
        let off_now = &mut self.lock().findings.off;
        match off {
            Some(why) => off_now.insert(partition, why),
            None => off_now.remove(&partition),
        };
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().expect("invariant: nobody panics while holding the lock of findings")
    }
}
