//! Reading the views from within the program: the plain queries that anybody can make with `sqlite3`.

use millrace_core::{Error, Result};
use millrace_sqlite_file::Failure;
use rusqlite::{Connection, OptionalExtension};
use serde_json::Value;

use crate::{index_schema::IndexTables, lookup, search::query_of, store::SqliteStore};

// A timeline that nobody added to for its time is gone, also where its rows are still there.
const TIMELINE: &str = "SELECT member, score FROM timelines WHERE key = ?1
    AND NOT EXISTS (SELECT 1 FROM timeline_keys WHERE key = ?1 AND expires_ms <= ?2)
    ORDER BY score DESC, member DESC LIMIT ?3";
const MEMBERS: &str = "SELECT member FROM members WHERE key = ? AND present = 1 ORDER BY member";
const COUNTER: &str = "SELECT value FROM counters WHERE key = ?";
const COUNTERS_TOP: &str = "SELECT key, value FROM counters ORDER BY value DESC, key LIMIT ?";
const SEARCHED: &str = "SELECT text_fields FROM indexes WHERE name = ?";

impl SqliteStore {
    /// The newest members of a timeline with their scores: highest score first, at equal scores the greater
    /// bytes first.
    ///
    /// # Errors
    /// Retry when the disk fails, Fatal when the file cannot be used; so have all methods here.
    pub async fn timeline(&self, key: &str, count: u32) -> Result<Vec<(String, f64)>> {
        let key = key.to_owned();
        self.read(move |db, now_ms| {
            let mut newest = db.prepare_cached(TIMELINE)?;
            let rows = newest.query_map((key, now_ms, count), |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// All members of a set in byte order.
    ///
    /// # Errors
    /// As [`SqliteStore::timeline`].
    pub async fn members(&self, key: &str) -> Result<Vec<String>> {
        let key = key.to_owned();
        self.read(move |db, _| {
            let mut members = db.prepare_cached(MEMBERS)?;
            let rows = members.query_map((key,), |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// A document, if there is one that is not deleted.
    ///
    /// # Errors
    /// As [`SqliteStore::timeline`]; Reject when it holds a number or text that no value can.
    pub async fn document(&self, key: &str) -> Result<Option<Value>> {
        let key = key.to_owned();
        let json = self.read(move |db, now_ms| lookup::document(db, &key, now_ms)).await?;
        json.as_deref().map(|json| self.value(json)).transpose()
    }

    /// A counter's number, if it was ever moved.
    ///
    /// # Errors
    /// As [`SqliteStore::timeline`].
    pub async fn counter(&self, key: &str) -> Result<Option<i64>> {
        let key = key.to_owned();
        self.read(move |db, _| {
            Ok(db.prepare_cached(COUNTER)?.query_row((key,), |row| row.get(0)).optional()?)
        })
        .await
    }

    /// The highest counters, highest first, at equal numbers by key.
    ///
    /// # Errors
    /// As [`SqliteStore::timeline`].
    pub async fn counters_top(&self, count: u32) -> Result<Vec<(String, i64)>> {
        self.read(move |db, _| {
            let mut top = db.prepare_cached(COUNTERS_TOP)?;
            let rows = top.query_map((count,), |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// The documents of an index that have all words of `text`, best first. None where the index does not
    /// exist, searches no field, or `text` has no word. Nothing in `text` is an operator.
    ///
    /// # Errors
    /// As [`SqliteStore::document`].
    pub async fn search(&self, index: &str, text: &str, count: u32) -> Result<Vec<Value>> {
        let Some(query) = query_of(text) else { return Ok(Vec::new()) };
        let index = index.to_owned();
        let found: Vec<String> = self
            .read(move |db, _| {
                if searched_fields(db, &index)?.is_none_or(|fields| fields == "[]") {
                    return Ok(Vec::new());
                }
                let IndexTables { documents, texts, .. } = IndexTables::of(&index);
                let mut best = db.prepare_cached(&format!(
                    "SELECT d.json FROM {texts} JOIN {documents} d ON d.number = {texts}.rowid
                     WHERE {texts} MATCH ? AND d.deleted = 0 ORDER BY {texts}.rank, d.id LIMIT ?"
                ))?;
                let rows = best.query_map((query, count), |row| row.get(0))?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            })
            .await?;
        found.iter().map(|json| self.value(json)).collect()
    }

    /// A document of an index, if there is one that is not deleted.
    ///
    /// # Errors
    /// As [`SqliteStore::document`].
    pub async fn index_document(&self, index: &str, id: &str) -> Result<Option<Value>> {
        let (index, id) = (index.to_owned(), id.to_owned());
        let json: Option<String> = self
            .read(move |db, _| {
                if searched_fields(db, &index)?.is_none() {
                    return Ok(None);
                }
                let documents = IndexTables::of(&index).documents;
                let mut one = db.prepare_cached(&format!("SELECT json FROM {documents} WHERE id = ?"))?;
                Ok(one.query_row((id,), |row| row.get(0)).optional()?.flatten())
            })
            .await?;
        json.as_deref().map(|json| self.value(json)).transpose()
    }

    /// How many documents of an index are not deleted; 0 where there is no such index.
    ///
    /// # Errors
    /// As [`SqliteStore::timeline`].
    pub async fn index_count(&self, index: &str) -> Result<u64> {
        let index = index.to_owned();
        self.read(move |db, _| {
            if searched_fields(db, &index)?.is_none() {
                return Ok(0);
            }
            let documents = IndexTables::of(&index).documents;
            // Both are counted in an index, the documents themselves are not read.
            let mut count = db.prepare_cached(&format!(
                "SELECT (SELECT count(*) FROM {documents})
                      - (SELECT count(*) FROM {documents} WHERE deleted = 1)"
            ))?;
            let count: i64 = count.query_row((), |row| row.get(0))?;
            Ok(u64::try_from(count).unwrap_or(0))
        })
        .await
    }

    fn value(&self, json: &str) -> Result<Value> {
        serde_json::from_str(json).map_err(|e| {
            Error::reject(self.who(), "a document holds a number or text that no value can").with_source(e)
        })
    }
}

/// The searched fields of an index, a JSON array, if it was ever prepared.
fn searched_fields(db: &Connection, index: &str) -> Result<Option<String>, Failure> {
    Ok(db.prepare_cached(SEARCHED)?.query_row((index,), |row| row.get(0)).optional()?)
}
