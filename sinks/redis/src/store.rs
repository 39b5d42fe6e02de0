//! The store: opens sinks, the lookup and the ledger over one connection.

use std::sync::Arc;

use async_trait::async_trait;
use millrace_core::{Error, Finding, Ledger, Lookup, Result, Sink, SinkId, Store, View};
use tokio::time::Duration;

use crate::{
    check::check, connection::Connection, counter::CounterWrites, document::DocumentWrites,
    ledger::RedisLedger, lookup::RedisLookup, members::MembersWrites, send::RedisSink,
    settings::RedisSettings, timeline::TimelineWrites,
};

/// Redis as a store.
pub struct RedisStore {
    connection: Arc<Connection>,
}

impl RedisStore {
    /// The store `name` of a configuration. Reads the files that the settings name; connects at the first use.
    ///
    /// # Errors
    /// Fatal when a file cannot be read.
    pub fn open(name: &str, settings: RedisSettings) -> Result<Self> {
        Ok(RedisStore { connection: Arc::new(Connection::new(name, settings)?) })
    }
}

#[async_trait]
impl Store for RedisStore {
    fn sink(&self, id: SinkId, view: View) -> Result<Arc<dyn Sink>> {
        let sink = |view| RedisSink::new(self.connection.clone(), view);
        Ok(Arc::new(match view {
            View::Timeline(view) => sink(Box::new(TimelineWrites::new(view))),
            View::Members(view) => sink(Box::new(MembersWrites::new(view))),
            View::Document(view) => sink(Box::new(DocumentWrites::new(view))),
            View::Counter(view) => sink(Box::new(CounterWrites::new(id, view))),
            View::Index(..) => {
                return Err(Error::fatal(self.connection.who(), "keeps no index"));
            }
        }))
    }

    fn lookup(&self) -> Option<Arc<dyn Lookup>> {
        Some(Arc::new(RedisLookup::new(self.connection.clone())))
    }

    fn ledger(&self, ttl: Duration) -> Option<Arc<dyn Ledger>> {
        // Tells claims of this ledger from those of every other process.
        let claimant = format!("{:032x}", rand::random::<u128>());
        Some(Arc::new(RedisLedger::new(self.connection.clone(), ttl, claimant)))
    }

    async fn check(&self) -> Result<Vec<Finding>> {
        check(&self.connection).await
    }
}
