//! Records kept on the disk, in order, while the system they are meant for is away: appended, looked at from the
//! oldest on, and removed when they were taken over. Bounded, and never emptied to make room.
//!
//! It is a table in a SQLite file, opened as every file of ours ([`millrace_sqlite_file`]): transactions, torn
//! tails, a full disk and crashes are SQLite's, which the program has anyway. What it lacks is a sum over what lies
//! in the file, so each record has one here. What was looked at instead: `queue-file` 2 is the nearest, with sums and
//! sequence numbers, but its format is new, it moves records within the one file when that grows, never shrinks
//! it, and leaves lock, bound and framing to us; `yaque` (2023) writes its state when it is dropped; `okaywal`
//! (0.3, 2023) is a log to be folded into something else; `segment-buffer` keeps what it acknowledged in memory until a
//! batch is full.
//!
//! An append returns when its transaction is in the file itself. SQLite takes the first bad page of its
//! write-ahead log for the end of it; so nothing that was acknowledged is left to lie there alone.

mod entry;
mod spool;

pub use entry::Entry;
pub use spool::{Options, Spool};
