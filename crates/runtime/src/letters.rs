//! Dead letters after they were written: reading them back, settling them by an event, running them again.
//!
//! The topic of dead letters is a log like any other: nothing in it is changed. A letter is settled by a
//! resolution, a record without key and value appended to the letter's own partition, so that it always comes after it.
//! Who wants to know which letters are open reads both (ADR 0007).

mod log;
mod read;
mod replay;

pub use log::{LetterLog, Scan, read_again};
pub use read::{Entry, Letter, LetterId, Outcome, RESOLVES, Resolution};
pub use replay::{Replay, Replayed};
