//! A system that keeps views: what the runtime asks of Redis, Elasticsearch and the embedded store alike.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Duration;

use crate::{
    error::Result,
    identity::SinkId,
    ledger::Ledger,
    lookup::Lookup,
    settings::Kind,
    sink::Sink,
    views::{Counter, Document, Index, IndexFields, Members, Timeline},
};

/// A view to be written, with its settings.
#[derive(Clone, Debug)]
pub enum View {
    /// Newest members by score.
    Timeline(Timeline),
    /// A versioned set.
    Members(Members),
    /// A merged JSON document.
    Document(Document),
    /// A number each event moves once.
    Counter(Counter),
    /// A search index and its declared fields.
    Index(Index, IndexFields),
}

/// A kind of store: its settings, and the views it can keep.
#[derive(Debug)]
pub struct StoreKind {
    /// The key that selects it, and its settings.
    pub kind: Kind,
    /// Names of the sink kinds it serves: `timeline`, `index`.
    pub views: &'static [&'static str],
    /// Whether lookups can read from it.
    pub lookup: bool,
    /// Whether it can hold a ledger.
    pub ledger: bool,
}

/// What a look at a system found, for `millrace doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether the system can be used as it is.
    pub ok: bool,
    /// What was looked at and seen, one line: "maxmemory-policy is allkeys-lru, must be noeviction".
    pub what: String,
}

/// An opened store. Opening connects lazily: calls fail with Retry while the system is away.
#[async_trait]
pub trait Store: Send + Sync {
    /// A sink that writes this view. Only called with views its [`StoreKind`] names.
    ///
    /// # Errors
    /// Fatal when the settings cannot be served.
    fn sink(&self, id: SinkId, view: View) -> Result<Arc<dyn Sink>>;

    /// For lookups, if it serves them.
    fn lookup(&self) -> Option<Arc<dyn Lookup>>;

    /// A ledger whose entries live for `ttl`, if it can hold one.
    fn ledger(&self, ttl: Duration) -> Option<Arc<dyn Ledger>>;

    /// Reaches the system and looks at what would make it unfit. Bounded in time by the caller.
    ///
    /// # Errors
    /// Retry or Fatal when it cannot be reached or refuses.
    async fn check(&self) -> Result<Vec<Finding>>;
}
