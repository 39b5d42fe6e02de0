//! The embedded log: topics, partitions and records in one SQLite file, `log.db`, of a folder; the progress of
//! consumer groups in `views.db` beside it, where the embedded views are, so that views and the progress they
//! stand for are one file. Any number of processes may append, read and administer; one may `run`.
//!
//! One thread appends ([`writer`]), one reads per source ([`reader`]), one keeps progress ([`progress`]);
//! nothing here blocks the asynchronous runtime.

mod admin;
mod append;
mod broker;
mod compaction;
mod headers;
mod layout;
mod opened;
mod outputs;
mod progress;
mod reader;
mod retention;
mod room;
mod run_lock;
mod seats;
mod source;
mod transactor;
mod writer;

pub use broker::{EMBEDDED, EmbeddedBroker, EmbeddedSettings};
pub use run_lock::{AlreadyRunning, RunLock};
