//! What a store of its own file must do beyond the conformance suites.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "store/expiry.rs"]
mod expiry;
#[path = "store/file.rs"]
mod file;
#[path = "store/hostile.rs"]
mod hostile;
#[path = "store/search.rs"]
mod search;
#[path = "store/sending.rs"]
mod sending;
#[path = "store/trim.rs"]
mod trim;

use std::{path::Path, sync::Arc};

use millrace_core::{
    Message, Result, Sink, SinkId, Store, View,
    settings::Problems,
    views::{Counter, Document, FieldType, Index, IndexFields, Members, Timeline},
};
use millrace_sqlite::SqliteStore;
use millrace_testkit::{
    message::message,
    views_suite::{send_all, settings},
};
use rusqlite::Connection;
use serde_json::{Value, json};

fn id() -> SinkId {
    SinkId { pipeline: "pipeline".into(), sink: "sink".into() }
}

async fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(folder).await.unwrap()
}

/// The file, for whoever looks into it.
fn sqlite3(folder: &Path) -> Connection {
    Connection::open(folder.join("views.db")).unwrap()
}

fn rows(folder: &Path, table: &str) -> i64 {
    sqlite3(folder).query_row(&format!("SELECT count(*) FROM {table}"), (), |row| row.get(0)).unwrap()
}

/// A timeline sink with these settings besides.
fn timeline(store: &SqliteStore, more: &[(&str, &str)]) -> Arc<dyn Sink> {
    let mut pairs = vec![("key", "{key}"), ("op", "{op}"), ("member", "{member}"), ("score", "{score}")];
    pairs.extend(more);
    let view = Timeline::read(&settings(&pairs), &mut Problems::default()).unwrap();
    store.sink(id(), View::Timeline(view)).unwrap()
}

fn members(store: &SqliteStore, ledger: &str) -> Arc<dyn Sink> {
    let pairs =
        [("key", "{key}"), ("op", "{op}"), ("member", "{member}"), ("version", "{v}"), ("ledger", ledger)];
    let view = Members::read(&settings(&pairs), &mut Problems::default()).unwrap();
    store.sink(id(), View::Members(view)).unwrap()
}

fn document(store: &SqliteStore, more: &[(&str, &str)]) -> Arc<dyn Sink> {
    let mut pairs = vec![("key", "{key}"), ("op", "{op}"), ("version", "{v}"), ("document", "{doc}")];
    pairs.extend(more);
    let view = Document::read(&settings(&pairs), &mut Problems::default()).unwrap();
    store.sink(id(), View::Document(view)).unwrap()
}

fn counter(store: &SqliteStore, ledger: &str) -> Arc<dyn Sink> {
    let pairs = [("key", "{key}"), ("by", "{by}"), ("ledger", ledger)];
    let view = Counter::read(&settings(&pairs), &mut Problems::default()).unwrap();
    store.sink(id(), View::Counter(view)).unwrap()
}

fn index(store: &SqliteStore, name: &str, mode: &str, fields: &[(&str, FieldType)]) -> Result<Arc<dyn Sink>> {
    let pairs = [
        ("index", name),
        ("mode", mode),
        ("op", "{op}"),
        ("id", "{key}"),
        ("version", "{v}"),
        ("document", "{doc}"),
    ];
    let view = Index::read(&settings(&pairs), &mut Problems::default()).unwrap();
    let fields = fields.iter().map(|(name, of)| ((*name).to_owned(), *of)).collect();
    store.sink(id(), View::Index(view, IndexFields { fields, ..IndexFields::default() }))
}

/// A prepared index with the text fields `title` and `body`.
async fn posts(store: &SqliteStore, mode: &str) -> Arc<dyn Sink> {
    let fields = [("title", FieldType::Text), ("body", FieldType::Text), ("likes", FieldType::Long)];
    let sink = index(store, "posts", mode, &fields).unwrap();
    sink.prepare().await.unwrap();
    sink
}

fn event(value: &Value) -> Message {
    message(1, "event", &value.to_string())
}

fn add(key: &str, member: &str, score: i64) -> Message {
    event(&json!({ "op": "add", "key": key, "member": member, "score": score, "v": score }))
}

fn remove(key: &str, member: &str, version: i64) -> Message {
    event(&json!({ "op": "remove", "key": key, "member": member, "v": version }))
}

fn put(key: &str, version: i64, document: &Value) -> Message {
    event(&json!({ "op": "put", "key": key, "v": version, "doc": document }))
}

fn delete(key: &str, version: i64) -> Message {
    event(&json!({ "op": "delete", "key": key, "v": version }))
}

fn step(key: &str, event_id: &str, by: i64) -> Message {
    message(1, event_id, &json!({ "key": key, "by": by }).to_string())
}

/// Sends what must be done.
async fn deliver(sink: &dyn Sink, messages: &[Message]) {
    let rejected = send_all(sink, messages).await;
    assert!(rejected.is_empty(), "{rejected:?}");
}
