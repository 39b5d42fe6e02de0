//! Lookups: pages of sets, documents, guards; one read each.

use std::sync::Arc;

use async_trait::async_trait;
use millrace_core::{Lookup, Page, PageRequest, Result};
use millrace_sqlite_file::Failure;
use rusqlite::{Connection, OptionalExtension};
use tokio::time::Duration;

use crate::{readers::Readers, schema::after, writer::Writer};

// Read as far as needed: a bound LIMIT would have SQLite plan the statement anew each time.
const PAGE: &str = "SELECT member FROM members WHERE key = ? AND member > ? AND present = 1 ORDER BY member";
const DOCUMENT: &str = "SELECT json FROM documents
    WHERE key = ? AND json IS NOT NULL AND (expires_ms IS NULL OR expires_ms > ?)";
const CLOSE: &str = "INSERT INTO guards(id, expires_ms) VALUES (?, ?)
    ON CONFLICT (id) DO UPDATE SET expires_ms = max(expires_ms, excluded.expires_ms)";
const CLOSED: &str = "SELECT EXISTS (SELECT 1 FROM guards WHERE id = ? AND expires_ms > ?)";

/// Reads what the sinks of the store wrote.
pub(crate) struct SqliteLookup {
    pub(crate) writer: Writer,
    pub(crate) readers: Arc<Readers>,
}

#[async_trait]
impl Lookup for SqliteLookup {
    async fn members(&self, requests: &[PageRequest]) -> Result<Vec<Page>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let requests = requests.to_vec();
        self.readers.read(move |db, _| requests.iter().map(|request| page(db, request)).collect()).await
    }

    async fn documents(&self, keys: &[String]) -> Result<Vec<Option<String>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys = keys.to_vec();
        self.readers.read(move |db, now_ms| keys.iter().map(|key| document(db, key, now_ms)).collect()).await
    }

    async fn close(&self, guards: &[String], ttl: Duration) -> Result<()> {
        if guards.is_empty() {
            return Ok(());
        }
        let guards = guards.to_vec();
        let closed = self.writer.run(move |tx| {
            let mut close = tx.statement(CLOSE)?;
            for guard in &guards {
                close.execute((guard, after(tx.now_ms, ttl)))?;
            }
            Ok(())
        });
        closed.await.map_err(|failure| self.writer.error(failure))
    }

    async fn closed(&self, guards: &[String]) -> Result<Vec<bool>> {
        if guards.is_empty() {
            return Ok(Vec::new());
        }
        let guards = guards.to_vec();
        let closed = move |db: &Connection, now_ms: i64| {
            let mut closed = db.prepare_cached(CLOSED)?;
            let each = guards.iter().map(|guard| closed.query_row((guard, now_ms), |row| row.get(0)));
            Ok(each.collect::<rusqlite::Result<_>>()?)
        };
        self.readers.read(closed).await
    }
}

/// The text of a document, if it is there.
pub(crate) fn document(db: &Connection, key: &str, now_ms: i64) -> Result<Option<String>, Failure> {
    Ok(db.prepare_cached(DOCUMENT)?.query_row((key, now_ms), |row| row.get(0)).optional()?)
}

fn page(db: &Connection, request: &PageRequest) -> Result<Page, Failure> {
    let mut page = db.prepare_cached(PAGE)?;
    // No member is empty, so that all come after the empty one.
    let after = request.after.as_deref().unwrap_or_default();
    let mut rest = page.query_map((&request.key, after), |row| row.get(0))?;
    let members_max = usize::try_from(request.members_max).unwrap_or(usize::MAX);
    let members: Vec<String> = rest.by_ref().take(members_max).collect::<rusqlite::Result<_>>()?;
    let more = rest.next().transpose()?.is_some();
    Ok(Page { members, more })
}
