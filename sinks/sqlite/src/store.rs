//! The store: opens sinks, the lookup and the ledger over one file.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use millrace_core::{
    Error, Finding, Ledger, Lookup, Result, Sink, SinkId, Store, StoreKind, View,
    settings::{Field, Kind, Object, Shape},
};
use millrace_sqlite_file::{Clock, Failure, system_clock};
use rusqlite::Connection;
use tokio::time::Duration;

use crate::{
    counter::CounterWrites, document::DocumentWrites, index::IndexWrites, ledger::SqliteLedger,
    lookup::SqliteLookup, members::MembersWrites, readers::Readers, schema::views_database, sink::SqliteSink,
    timeline::TimelineWrites, writer::Writer,
};

/// `embedded:` in YAML.
pub static SQLITE: StoreKind = StoreKind {
    kind: Kind { name: "embedded", settings: &SETTINGS },
    views: &["timeline", "members", "document", "counter", "index"],
    lookup: true,
    ledger: true,
};

static SETTINGS: Object = Object {
    name: "embedded",
    doc: "Views in a folder of this machine, without a server: one SQLite file.",
    fields: &[Field::optional(
        "dir",
        Shape::Path,
        "the folder; it holds views.db. The one given on the command line if not set",
    )],
};

/// The embedded views of a folder. The thread that writes ends when the last of the store, its sinks, lookups
/// and ledgers is dropped.
pub struct SqliteStore {
    writer: Writer,
    readers: Arc<Readers>,
}

impl SqliteStore {
    /// Opens the views in `folder`; makes the folder and the file where they are missing.
    ///
    /// # Errors
    /// Retry when another process holds the file or the disk is full; Fatal when the file cannot be used, is no
    /// database, or was written by a newer program.
    pub async fn open(folder: &Path) -> Result<Self> {
        Self::open_at(folder, system_clock()).await
    }

    /// As [`SqliteStore::open`], where expiry goes by another clock: ms since 1970.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub async fn open_at(folder: &Path, clock: Clock) -> Result<Self> {
        let database = views_database(folder);
        let opening = database.clone();
        let opened = tokio::task::spawn_blocking(move || opening.open()).await;
        let opened = opened.map_err(|e| Error::fatal(&*database.who, "was not opened").with_source(e))?;
        let connection = opened.map_err(|failure| database.error(failure))?;
        let writer = Writer::start(database.clone(), connection, clock.clone())?;
        Ok(SqliteStore { writer, readers: Arc::new(Readers::new(database, clock)) })
    }

    pub(crate) fn who(&self) -> &str {
        self.writer.who()
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, i64) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        self.readers.read(work).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn sink(&self, id: SinkId, view: View) -> Result<Arc<dyn Sink>> {
        let writer = self.writer.clone();
        Ok(match view {
            View::Timeline(view) => Arc::new(SqliteSink::new(writer, TimelineWrites::new(view))),
            View::Members(view) => Arc::new(SqliteSink::new(writer, MembersWrites::new(view))),
            View::Document(view) => Arc::new(SqliteSink::new(writer, DocumentWrites::new(view))),
            View::Counter(view) => Arc::new(SqliteSink::new(writer, CounterWrites::new(id, view))),
            View::Index(view, fields) => {
                let writes = IndexWrites::new(view, &fields).map_err(|failure| self.writer.error(failure))?;
                Arc::new(SqliteSink::new(writer, writes))
            }
        })
    }

    fn lookup(&self) -> Option<Arc<dyn Lookup>> {
        Some(Arc::new(SqliteLookup { writer: self.writer.clone(), readers: self.readers.clone() }))
    }

    fn ledger(&self, ttl: Duration) -> Option<Arc<dyn Ledger>> {
        Some(Arc::new(SqliteLedger::new(self.writer.clone(), ttl)))
    }

    async fn check(&self) -> Result<Vec<Finding>> {
        self.writer.run(|_| Ok(())).await.map_err(|failure| self.writer.error(failure))?;
        let (mode, bytes) = self
            .read(|db, _| {
                let mode: String = db.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
                let pages: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0))?;
                let page_bytes: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
                Ok((mode, pages * page_bytes))
            })
            .await?;
        let who = self.who();
        Ok(vec![
            Finding { ok: true, what: format!("{who} can be read and written, {bytes} bytes") },
            Finding { ok: mode == "wal", what: format!("{who}: journal_mode is {mode}, must be wal") },
        ])
    }
}
