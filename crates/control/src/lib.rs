//! What operators and the processes of a deployment tell each other: which pipeline file is in force, which
//! pipelines are held or ended, and how every worker is doing. It lies on a [`Board`]: a compacted topic of the pipelines' own broker, so it needs no
//! system of its own, survives restarts, and is there for all who can read the pipelines' records.

mod applied;
mod board;
mod entries;
mod entry;

pub use applied::{Applied, AppliedEntry, Chain, GENERATIONS_KEPT, applied_key, chain};
pub use board::Board;
pub use entries::{
    BegunEntry, BreakerEntry, DifferingEntry, ErrorEntry, FollowerEntry, PaceEntry, PauseEntry, ProcessEntry,
    RefusedEntry, STALE_AFTER_MS, StopEntry, TrialEntry, VersionEntry, WorkerEntry, follower_key,
    follower_of_key, lane_of, pause_key, paused_by_key, stop_key, stopped_by_key, version_key,
    versioned_by_key, worker_key, worker_of_key,
};
pub use entry::{Entry, FORMAT};
