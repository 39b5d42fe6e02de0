//! Timelines, sets, documents and counters in Redis, on one server or a cluster.
//!
//! Every effect is one script on one slot, so that it happens as a whole, and reads the server's clock, so that
//! it means the same whoever sends it. Effects may be repeated, late or reordered: tombstones, versions and
//! ledgers lie beside the keys they guard, in companion keys of the same slot.
//!
//! `encode` turns messages into calls and knows nothing of a connection; `send` composes scripts out of calls.

mod calls;
mod check;
mod cluster;
mod connection;
mod counter;
mod document;
mod error;
mod ledger;
mod lookup;
mod members;
mod script;
mod send;
mod settings;
mod shards;
mod slot;
mod store;
mod timeline;

pub use settings::{REDIS, RedisSettings};
pub use store::RedisStore;
