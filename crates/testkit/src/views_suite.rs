//! The conformance suite every views implementation passes: a store that keeps timelines, members, documents and
//! counters, and answers lookups and the ledger.
//!
//! A store's test implements [`ViewsReader`] with the system's own reads, opens its store, and calls [`all`] or
//! the cases one by one. The cases know nothing of the store but the contracts, and use names under
//! [`Subject::prefix`] only, so that many runs can share one server.

#![allow(clippy::panic, reason = "a suite fails by panicking")]

mod concurrency;
pub mod counter;
pub mod document;
pub mod ledger;
pub mod lookup;
pub mod members;
pub mod orders;
mod sending;
pub mod timeline;

use std::sync::Arc;

use async_trait::async_trait;
use millrace_core::{
    Sink, SinkId, Store, View,
    settings::{Key, Location, Node, NodeKind, Problems, Settings},
    views::{Counter, Document, Members, Timeline},
};
use serde_json::Value;

pub use concurrency::everything_at_once;
pub use sending::send_all;

/// Reads views as their readers do: past the store's own code, with the system's plain reads.
#[async_trait]
pub trait ViewsReader: Send + Sync {
    /// The newest `n` members with their scores: highest score first, at equal scores the greater bytes first.
    async fn timeline(&self, key: &str, n: usize) -> Vec<(String, f64)>;

    /// All members in byte order.
    async fn members(&self, key: &str) -> Vec<String>;

    /// The document, if there is one.
    async fn document(&self, key: &str) -> Option<Value>;

    /// The number, if there is one.
    async fn counter(&self, key: &str) -> Option<i64>;
}

/// A store under test.
pub struct Subject<'a> {
    /// The store, as its settings opened it.
    pub store: &'a dyn Store,
    /// Reads what it wrote.
    pub reader: &'a dyn ViewsReader,
    /// Begins every key, unique to this run.
    pub prefix: &'a str,
}

impl Subject<'_> {
    /// A key of this run.
    pub fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    /// A sink for `view`, under a name of its own.
    pub fn open(&self, name: &str, view: View) -> Arc<dyn Sink> {
        let id = SinkId { pipeline: self.prefix.into(), sink: name.into() };
        self.store.sink(id, view).expect("the store opens a sink for a view it keeps")
    }

    /// A timeline sink whose messages say `key`, `op`, `member` and `score`.
    pub fn timeline(&self, keep: u32, slack: u32) -> Arc<dyn Sink> {
        let (keep, slack) = (keep.to_string(), slack.to_string());
        let pairs = [
            ("key", "{key}"),
            ("op", "{op}"),
            ("member", "{member}"),
            ("score", "{score}"),
            ("keep", &keep),
            ("slack", &slack),
        ];
        let view = Timeline::read(&settings(&pairs), &mut Problems::default());
        self.open("timeline", View::Timeline(view.expect("valid settings")))
    }

    /// A members sink whose messages say `key`, `op`, `member` and `version`.
    pub fn members(&self) -> Arc<dyn Sink> {
        let pairs = [("key", "{key}"), ("op", "{op}"), ("member", "{member}"), ("version", "{version}")];
        let view = Members::read(&settings(&pairs), &mut Problems::default());
        self.open("members", View::Members(view.expect("valid settings")))
    }

    /// A document sink whose messages say `key`, `op`, `version`, `rank` (of the field `status`) and `document`.
    pub fn document(&self) -> Arc<dyn Sink> {
        let mut entries = vec![
            entry("key", scalar("{key}")),
            entry("op", scalar("{op}")),
            entry("version", scalar("{version}")),
            entry("document", scalar("{document}")),
        ];
        entries.push(entry("versions", map(vec![entry("status", scalar("{rank}"))])));
        let view = Document::read(&Settings::new(map(entries), "sink"), &mut Problems::default());
        self.open("document", View::Document(view.expect("valid settings")))
    }

    /// A counter sink under `name` whose messages say `key` and `by`.
    pub fn counter(&self, name: &str) -> Arc<dyn Sink> {
        let view = Counter::read(&settings(&[("key", "{key}"), ("by", "{by}")]), &mut Problems::default());
        self.open(name, View::Counter(view.expect("valid settings")))
    }
}

/// Every case, one after the other.
pub async fn all(subject: &Subject<'_>) {
    timeline::all(subject).await;
    members::all(subject).await;
    document::all(subject).await;
    counter::all(subject).await;
    lookup::all(subject).await;
    ledger::all(subject).await;
    everything_at_once(subject).await;
}

/// Settings of plain scalars, as the YAML reader would give them.
pub fn settings(pairs: &[(&str, &str)]) -> Settings {
    Settings::new(map(pairs.iter().map(|(key, text)| entry(key, scalar(text))).collect()), "sink")
}

const NOWHERE: Location = Location { line: 1, column: 1 };

fn scalar(text: &str) -> Node {
    Node { at: NOWHERE, kind: NodeKind::Scalar { text: text.to_owned(), plain: true } }
}

fn map(entries: Vec<(Key, Node)>) -> Node {
    Node { at: NOWHERE, kind: NodeKind::Map(entries) }
}

fn entry(key: &str, node: Node) -> (Key, Node) {
    (Key { at: NOWHERE, text: key.to_owned() }, node)
}
