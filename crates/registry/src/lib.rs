//! Where deployed SmartModules lie: their versions, their code, and which version is the latest.
//!
//! [`ModuleRegistry`] is the contract; [`TopicRegistry`] keeps it on any broker, in one compacted topic. The rest is what
//! they speak of: a [`Manifest`] describes a version, a [`Shelf`] is all there is, a [`Sheet`] is a `SmartModule.toml`,
//! and `signature` says who vouches for a version.
//!
//! Inside a topic, from the outside in: `topic_registry` is the contract's calls; `board` is what its first partition
//! says; `entry` is how that is written; `code` is a module's bytes in pieces; `reading` reads a partition to its end.

mod board;
mod code;
mod contract;
mod entry;
mod manifest;
mod reading;
mod sheet;
mod shelf;
mod signature;
mod topic_registry;
mod version_text;

pub use contract::{Deployed, ModuleRegistry, Moved, NewModule};
pub use manifest::{Manifest, Param, Signature};
pub use sheet::{Sheet, SheetError};
pub use shelf::{Shelf, Versions};
pub use signature::{KeyError, SigningKey, VerifyingKey, verify};
pub use topic_registry::{MODULE_BYTES_MAX, TopicRegistry};
