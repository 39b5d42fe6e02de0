//! NDJSON files, plain or gzipped, as records to produce: line by line in bounded memory, with the key taken
//! from a field of the line. A line that cannot be produced is named by file and line, and the rest goes on.

mod key;
mod lines;

pub use key::{KeyPath, NoKey};
pub use lines::{Line, Lines, Options, Progress, TooLong};
