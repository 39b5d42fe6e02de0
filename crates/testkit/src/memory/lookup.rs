//! A store for lookups in memory.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use millrace_core::{Error, Lookup, Page, PageRequest, Result};
use tokio::time::Duration;

/// Sets for lookups, and the guards.
#[derive(Default)]
pub struct MemoryLookup {
    sets: Mutex<BTreeMap<String, Vec<String>>>,
    closed: Mutex<HashSet<String>>,
    refused: Mutex<HashSet<String>>,
    reads: Mutex<Vec<PageRequest>>,
}

impl MemoryLookup {
    /// A store with one set.
    pub fn with_set(key: &str, members: impl IntoIterator<Item = String>) -> Arc<Self> {
        let lookup = MemoryLookup::default();
        lookup.put(key, members);
        Arc::new(lookup)
    }

    /// Replaces a set.
    pub fn put(&self, key: &str, members: impl IntoIterator<Item = String>) {
        let mut members: Vec<String> = members.into_iter().collect();
        members.sort_unstable();
        self.sets.lock().expect("invariant: no panic under the lock").insert(key.to_owned(), members);
    }

    /// Calls that read this key are rejected from now on.
    pub fn refuse(&self, key: &str) {
        self.refused.lock().expect("invariant: no panic under the lock").insert(key.to_owned());
    }

    fn check<'a>(&self, mut keys: impl Iterator<Item = &'a String>) -> Result<()> {
        let refused = self.refused.lock().expect("invariant: no panic under the lock");
        match keys.any(|key| refused.contains(key)) {
            true => Err(Error::reject("memory", "the key holds something else")),
            false => Ok(()),
        }
    }

    /// The pages that were asked for.
    pub fn reads(&self) -> Vec<PageRequest> {
        self.reads.lock().expect("invariant: no panic under the lock").clone()
    }
}

#[async_trait]
impl Lookup for MemoryLookup {
    async fn members(&self, requests: &[PageRequest]) -> Result<Vec<Page>> {
        self.check(requests.iter().map(|request| &request.key))?;
        self.reads.lock().expect("invariant: no panic under the lock").extend(requests.iter().cloned());
        let sets = self.sets.lock().expect("invariant: no panic under the lock");
        let page = |request: &PageRequest| {
            let all = sets.get(&request.key).map(Vec::as_slice).unwrap_or_default();
            let from = request.after.as_ref().map_or(0, |after| all.partition_point(|m| m <= after));
            let members: Vec<String> =
                all[from..].iter().take(request.members_max as usize).cloned().collect();
            let more = from + members.len() < all.len();
            Page { members, more }
        };
        Ok(requests.iter().map(page).collect())
    }

    async fn documents(&self, keys: &[String]) -> Result<Vec<Option<String>>> {
        self.check(keys.iter())?;
        let sets = self.sets.lock().expect("invariant: no panic under the lock");
        Ok(keys.iter().map(|key| sets.get(key).and_then(|set| set.first().cloned())).collect())
    }

    async fn close(&self, guards: &[String], _ttl: Duration) -> Result<()> {
        self.closed.lock().expect("invariant: no panic under the lock").extend(guards.iter().cloned());
        Ok(())
    }

    async fn closed(&self, guards: &[String]) -> Result<Vec<bool>> {
        let closed = self.closed.lock().expect("invariant: no panic under the lock");
        Ok(guards.iter().map(|guard| closed.contains(guard)).collect())
    }
}
