//! The conformance suites, read back with plain SQL on a connection of the test's own.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{path::Path, sync::Mutex};

use async_trait::async_trait;
use millrace_sqlite::SqliteStore;
use millrace_testkit::{
    index_suite::{self, IndexReader},
    views_suite::{self, Subject, ViewsReader},
};
use rusqlite::{Connection, OptionalExtension};
use serde_json::Value;

struct Sqlite3(Mutex<Connection>);

impl Sqlite3 {
    fn open(folder: &Path) -> Self {
        Sqlite3(Mutex::new(Connection::open(folder.join("views.db")).unwrap()))
    }

    fn json(&self, sql: &str, id: &str) -> Option<Value> {
        let db = self.0.lock().unwrap();
        let json: Option<String> = db.query_row(sql, (id,), |row| row.get(0)).optional().unwrap();
        json.map(|json| serde_json::from_str(&json).unwrap())
    }
}

#[async_trait]
impl ViewsReader for Sqlite3 {
    async fn timeline(&self, key: &str, n: usize) -> Vec<(String, f64)> {
        let db = self.0.lock().unwrap();
        let mut select = db
            .prepare(
                "SELECT member, score FROM timelines WHERE key = ? ORDER BY score DESC, member DESC LIMIT ?",
            )
            .unwrap();
        let n = i64::try_from(n).unwrap();
        let rows = select.query_map((key, n), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    async fn members(&self, key: &str) -> Vec<String> {
        let db = self.0.lock().unwrap();
        let mut select =
            db.prepare("SELECT member FROM members WHERE key = ? AND present ORDER BY member").unwrap();
        select.query_map((key,), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    async fn document(&self, key: &str) -> Option<Value> {
        self.json("SELECT json FROM documents WHERE key = ? AND NOT deleted", key)
    }

    async fn counter(&self, key: &str) -> Option<i64> {
        let db = self.0.lock().unwrap();
        db.query_row("SELECT value FROM counters WHERE key = ?", (key,), |row| row.get(0)).optional().unwrap()
    }
}

#[async_trait]
impl IndexReader for Sqlite3 {
    async fn refresh(&self, _index: &str) {}

    async fn document(&self, index: &str, id: &str) -> Option<Value> {
        self.json(&format!("SELECT json FROM \"{index}\" WHERE id = ?"), id)
    }

    async fn count(&self, index: &str) -> u64 {
        let db = self.0.lock().unwrap();
        let count: i64 =
            db.query_row(&format!("SELECT count(*) FROM \"{index}\""), (), |row| row.get(0)).unwrap();
        u64::try_from(count).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_conform() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let reader = Sqlite3::open(folder.path());
    views_suite::all(&Subject { store: &store, reader: &reader, prefix: "suite" }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_conform() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let reader = Sqlite3::open(folder.path());
    index_suite::run(index_suite::Rig {
        store: &store,
        reader: &reader,
        prefix: "suite",
        types_checked: true,
    })
    .await;
}
