//! The embedded views: timelines, sets, documents, counters and indexes in one SQLite file, `views.db`, whose
//! tables anybody can read.
//!
//! One thread writes. What waits for it shares a transaction, so that many small sends cost one sync of the
//! disk. Every effect is harmless when it is repeated, late or reordered: tombstones, versions and ledgers lie
//! in the same file and are written in the same transaction.

mod calls;
mod counter;
mod document;
mod field_type;
mod fields;
mod index;
mod index_schema;
mod ledger;
mod lookup;
mod members;
mod prune;
mod query;
mod readers;
mod schema;
mod search;
mod sink;
mod store;
mod timeline;
mod writer;

pub use store::{SQLITE, SqliteStore};
