//! What operators and the processes of a deployment tell each other: which pipelines are held, and how every
//! worker is doing. It lies on a [`Board`]: a compacted topic of the pipelines' own broker, so it needs no
//! system of its own, survives restarts, and is there for all who can read the pipelines' records.

mod board;
mod entries;
mod entry;

pub use board::Board;
pub use entries::{
    BreakerEntry, ErrorEntry, PauseEntry, ProcessEntry, STALE_AFTER_MS, WorkerEntry, lane_of, pause_key,
    paused_by_key, worker_key, worker_of_key,
};
pub use entry::{Entry, FORMAT};
