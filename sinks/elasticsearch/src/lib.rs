//! Search indexes in Elasticsearch 8 and later: the [`ELASTICSEARCH`] store serves the sink `index`.
//!
//! A document's own versions travel with it in an object `millrace`, so that an event that comes late, twice or
//! from a former owner changes nothing. Deleted documents stay as tombstones, which the alias readers use hides.
//! No scripts, and no reliance on the server's short-lived memory of deletes.

mod bulk;
mod client;
mod document;
mod encode;
mod failure;
mod mapping;
mod merge;
mod prepare;
mod replace;
mod settings;
mod sink;
mod store;

pub use settings::{ELASTICSEARCH, Options};
pub use store::Elasticsearch;
