//! Which pipeline file is in force: entries that each name the one they follow, so that of two who apply at the same
//! moment one wins, and everybody who reads the log agrees which.
//!
//! An entry counts only if it names the offset of the one in force when it was appended. Its writer cannot know that
//! beforehand: he reads back. Every entry has a key of its own, because compaction keeps the newest record of a key
//! and would otherwise remove a winner in favour of a loser.

use std::collections::BTreeMap;

use millrace_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::entry::Entry;

/// Begins the keys.
pub(crate) const APPLIED: &str = "applied/";

/// So many entries are kept to look back at.
pub const GENERATIONS_KEPT: usize = 10;

/// A pipeline file as it was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedEntry {
    /// Counts from 1.
    pub generation: u64,
    /// The offset of the entry that was in force; none: there was none.
    pub predecessor: Option<i64>,
    /// Of all that this entry says should run.
    pub hash: String,
    /// The file, variables unexpanded.
    pub text: String,
    /// Brokers and stores are the embedded ones, in the folder of the state.
    #[serde(default)]
    pub embedded: bool,
    /// The SHA-256 of the modules it uses, by the name the file uses.
    #[serde(default)]
    pub modules: BTreeMap<String, String>,
    /// When, ms since 1970.
    pub at_ms: i64,
    /// Who, for people.
    pub by: String,
}

/// An entry and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its key.
    pub key: String,
    /// Its offset.
    pub offset: i64,
    /// What it says.
    pub entry: AppliedEntry,
}

/// What became of all entries.
#[derive(Debug, Default)]
pub struct Chain {
    /// Those that came to be in force, oldest first; the last one is.
    accepted: Vec<Applied>,
    /// Keys and offsets of those that did not.
    lost: Vec<(String, i64)>,
    /// The newest that cannot be read, with its offset.
    unreadable: Option<(i64, Error)>,
}

/// A key that nobody else writes.
pub fn applied_key(generation: u64, nonce: u64) -> String {
    format!("{APPLIED}{generation:010}/{nonce:016x}")
}

/// What became of entries, which are given in the order of their offsets.
///
/// The oldest one that is left is taken as it is: see [`Chain::obsolete`] for why that may be done.
pub fn chain(entries: impl IntoIterator<Item = (String, i64, Entry)>) -> Chain {
    let mut chain = Chain::default();
    for (key, offset, entry) in entries {
        match entry.read::<AppliedEntry>() {
            Ok(entry) => chain.add(Applied { key, offset, entry }),
            Err(error) => chain.unreadable = Some((offset, error)),
        }
    }
    chain
}

impl Chain {
    fn add(&mut self, next: Applied) {
        match self.accepted.last() {
            Some(last) if next.entry.predecessor != Some(last.offset) => {
                self.lost.push((next.key, next.offset));
            }
            Some(_) | None => self.accepted.push(next),
        }
    }

    /// The entry in force.
    ///
    /// # Errors
    /// Fatal when there is a newer one that this program cannot read.
    pub fn in_force(&self) -> Result<Option<&Applied>> {
        let last = self.accepted.last();
        match &self.unreadable {
            Some((offset, error)) if last.is_none_or(|last| last.offset < *offset) => {
                let why = "what is applied cannot be read by this program";
                Err(Error::fatal("applied state", why).with_source(error.chain()))
            }
            Some(_) | None => Ok(last),
        }
    }

    /// All that were in force and are kept, oldest first.
    pub fn history(&self) -> &[Applied] {
        &self.accepted
    }

    /// Keys of entries that are not needed any more, in two lots: the second may be removed when the first is.
    ///
    /// Those that lost go first, up to the oldest winner that stays: so the oldest entry that anybody finds is
    /// always one that was in force.
    pub fn obsolete(&self) -> [Vec<String>; 2] {
        let (old, kept) = self.accepted.split_at(self.accepted.len().saturating_sub(GENERATIONS_KEPT));
        let Some(first) = kept.first().filter(|_| !old.is_empty()) else { return [Vec::new(), Vec::new()] };
        let lost = self.lost.iter().filter(|(_, offset)| *offset < first.offset);
        [lost.map(|(key, _)| key.clone()).collect(), old.iter().map(|old| old.key.clone()).collect()]
    }
}
