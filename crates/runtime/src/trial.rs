//! Versions on trial: another version of a step's module runs beside the one that is wanted, before it takes its place.
//!
//! A *canary* takes a part of the records, with all effects. A *shadow* is given a copy of all of them, and only how its
//! results differ is kept. Both are steps made of two steps: the runtime runs them like any other. What the version on
//! trial did is [`Tried`], which the version that is wanted carries along.

mod canary;
mod counters;
mod findings;
mod shadow;

use std::{collections::BTreeSet, sync::Arc};

use millrace_core::{Error, Message, Origin, Result, StepFactory};

use self::{canary::CanaryFactory, shadow::ShadowFactory};
use crate::{pipeline::ModuleAbout, versions::Version};

pub(crate) use counters::TrialCounters;
pub use findings::{Difference, Differing, Findings, Tried};

/// A version to be tried beside whichever one a step runs.
#[derive(Clone)]
pub struct Trial {
    /// Makes its instances.
    pub factory: Arc<dyn StepFactory>,
    /// Which it is.
    pub about: ModuleAbout,
    /// How it is tried.
    pub manner: Manner,
}

/// How a version is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It takes these records in place of the other version.
    Canary(Part),
    /// It is given all records, and its results are compared and dropped.
    Shadow,
}

/// The records that a canary takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of these partitions.
    Partitions(BTreeSet<i32>),
    /// So many of a million, chosen by their keys: all records of a key go to one version. One without a key is chosen by
    /// its place in the log.
    Share(u32),
}

impl Manner {
    /// Its name in `status` and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Manner::Canary(_) => "canary",
            Manner::Shadow => "shadow",
        }
    }
}

impl Part {
    /// Whether a record of a partition is the canary's. The same for ever: a record that comes again goes the same way.
    fn takes(&self, partition: i32, origin: &Origin) -> bool {
        match self {
            Part::Partitions(partitions) => partitions.contains(&partition),
            Part::Share(per_million) => place_of(origin) < *per_million,
        }
    }
}

impl Version {
    /// This version with another one on trial beside it. The trial is over where both are the same.
    ///
    /// # Errors
    /// Fatal: these two cannot stand beside each other.
    pub fn trying(self, trial: &Trial) -> Result<Self> {
        if trial.about.digest == self.about.digest {
            return Ok(self);
        }
        let keeps_state = self.factory.keeps_state();
        let refused = |why: &str| Err(Error::fatal(format!("module {}", trial.about.module), why));
        let tried = Arc::new(Tried::new(trial));
        let (main, other) = (self.factory, trial.factory.clone());
        let factory: Arc<dyn StepFactory> = match &trial.manner {
            Manner::Shadow => Arc::new(ShadowFactory { main, shadow: other, tried: tried.clone() }),
            Manner::Canary(_) if other.keeps_state() != keeps_state => {
                return refused(
                    "cannot be a canary: one of it and the version that runs is an aggregate, and the other is not",
                );
            }
            Manner::Canary(Part::Share(_)) if keeps_state => {
                return refused(
                    "cannot be the canary of a share: it is an aggregate, whose state is of a whole partition; name 'partitions'",
                );
            }
            Manner::Canary(part) => {
                Arc::new(CanaryFactory { main, canary: other, part: part.clone(), tried: tried.clone() })
            }
        };
        Ok(Version { factory, about: self.about, trial: Some(tried) })
    }
}

/// Whether two messages came from the same record.
fn same_record(one: &Message, other: &Message) -> bool {
    Arc::ptr_eq(&one.origin, &other.origin)
}

/// The records that messages came from, in their order; messages of one record stand together.
fn records_of(messages: &[Message]) -> Vec<Arc<Origin>> {
    messages.chunk_by(same_record).filter_map(|run| Some(run.first()?.origin.clone())).collect()
}

/// Where a record stands among a million, by its key. Not as partitions are chosen: a share is one of each partition.
fn place_of(origin: &Origin) -> u32 {
    const MILLION: u128 = 1_000_000;
    let record = &origin.record;
    let hash = match &record.key {
        Some(key) => hash(key),
        None => hash(&[&record.partition.to_be_bytes()[..], &record.offset.to_be_bytes()].concat()),
    };
    ((u128::from(hash) * MILLION) >> 64) as u32
}

/// FNV-1a, with its bits mixed as murmur3 ends: the upper ones are those that count here.
fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use millrace_core::{Envelope, Record, partition_for_key};
    use millrace_testkit::message::record;

    use super::*;

    fn keyed(key: Option<String>, offset: i64) -> Origin {
        let record = Record { key: key.map(Into::into), ..record(offset, "") };
        Origin { record, envelope: Envelope::default() }
    }

    #[test]
    fn a_share_is_one_of_the_keys_and_one_of_each_partition() {
        let share = Part::Share(100_000);
        let mut taken = [0_u32; 4];
        for number in 0..40_000 {
            let key = format!("user-{number}");
            let partition = partition_for_key(key.as_bytes(), 4);
            let (first, again) = (keyed(Some(key.clone()), 0), keyed(Some(key), 77));
            assert_eq!(share.takes(0, &first), share.takes(3, &again), "by the key alone");
            taken[partition as usize] += u32::from(share.takes(0, &first));
        }
        assert!(taken.iter().all(|count| (850..=1_150).contains(count)), "{taken:?}");
    }

    #[test]
    fn records_without_keys_are_taken_by_their_places() {
        let share = Part::Share(250_000);
        let taken = (0..10_000).filter(|offset| share.takes(0, &keyed(None, *offset))).count();
        assert!((2_300..=2_700).contains(&taken), "{taken}");
    }

    /// A record must go the same way with every version of the program.
    #[test]
    fn places_stay_what_they_are() {
        let places = ["", "a", "user-1"].map(|key| place_of(&keyed(Some(key.to_owned()), 0)));
        assert_eq!(places, [936_769, 510_294, 256_393]);
    }
}
