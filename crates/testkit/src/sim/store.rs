//! A process's client of a store: what a store's crate is.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use millrace_core::{Finding, Ledger, Lookup, Result, Sink, SinkId, Store, View};
use serde_json::Value;
use tokio::time::Duration;

use crate::{index_suite::IndexReader, views_suite::ViewsReader};

use super::{
    index::IndexSink,
    kept::Kept,
    lookup::{SimLedger, SimLookup},
    network::System,
    process::Process,
    sink::SimSink,
    world::World,
};

/// A store rejects every call with this text in it.
pub const REFUSED: &str = "refuse-me";

/// The way from a process to a store.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) world: World,
    pub(super) process: Process,
    pub(super) system: System,
    pub(super) kept: Arc<Mutex<Kept>>,
}

/// Cloning shares the connection.
#[derive(Clone)]
pub struct SimStore {
    link: Link,
    ops_max: usize,
}

impl SimStore {
    /// A client in `process` of the store that is `system` and holds `kept`; its calls hold up to `ops_max`
    /// operations.
    pub fn new(
        world: &World,
        process: &Process,
        system: &System,
        kept: &Arc<Mutex<Kept>>,
        ops_max: usize,
    ) -> Self {
        let link = Link {
            world: world.clone(),
            process: process.clone(),
            system: system.clone(),
            kept: kept.clone(),
        };
        SimStore { link, ops_max }
    }
}

#[async_trait]
impl Store for SimStore {
    fn sink(&self, id: SinkId, view: View) -> Result<Arc<dyn Sink>> {
        let link = self.link.clone();
        Ok(match view {
            View::Index(view, _) => Arc::new(IndexSink { link, id, view }),
            view => Arc::new(SimSink { link, id, view, ops_max: self.ops_max }),
        })
    }

    fn lookup(&self) -> Option<Arc<dyn Lookup>> {
        Some(Arc::new(SimLookup { link: self.link.clone(), seen_open: Arc::default() }))
    }

    fn ledger(&self, _ttl: Duration) -> Option<Arc<dyn Ledger>> {
        let claimant = self.link.world.below(u64::MAX);
        Some(Arc::new(SimLedger { link: self.link.clone(), claimant }))
    }

    async fn check(&self) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }
}

/// Reads a store past its clients.
pub struct StoreReader(pub Arc<Mutex<Kept>>);

impl StoreReader {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().expect("invariant: nobody panics while holding the store's lock")
    }
}

#[async_trait]
impl ViewsReader for StoreReader {
    async fn timeline(&self, key: &str, n: usize) -> Vec<(String, f64)> {
        self.kept().newest(key, n)
    }

    async fn members(&self, key: &str) -> Vec<String> {
        self.kept().members_of(key)
    }

    async fn document(&self, key: &str) -> Option<Value> {
        serde_json::from_str(&self.kept().document_text(key)?).ok()
    }

    async fn counter(&self, key: &str) -> Option<i64> {
        self.kept().counter(key)
    }
}

#[async_trait]
impl IndexReader for StoreReader {
    async fn refresh(&self, _index: &str) {}

    async fn document(&self, index: &str, id: &str) -> Option<Value> {
        self.kept().indexed(index, id)
    }

    async fn count(&self, index: &str) -> u64 {
        self.kept().indexed_count(index) as u64
    }
}
