//! What a module can do wrong in a call, and the words for it that end up in a dead letter.

use std::fmt;

use wasmtime::Trap;

use crate::{
    abi::{DecodeError, code_meaning},
    limits::{Refused, StoreGuard},
};

/// Bytes of a hint that are kept.
const HINT_BYTES_MAX: usize = 500;

/// The module failed, as opposed to refusing a record with an error of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("ran longer than {timeout_ms} ms")]
    TimedOut { timeout_ms: u64 },
    #[error("used more fuel than {max}")]
    Fuel { max: u64 },
    #[error("memory limit of {} reached", Bytes(*bytes_max))]
    Memory { bytes_max: usize },
    #[error("table limit of {elements_max} elements reached")]
    Table { elements_max: usize },
    #[error("recursed too deeply")]
    Recursion,
    #[error("trapped: {0}")]
    Trapped(String),
    #[error("ended itself with code {0}")]
    Exited(i32),
    #[error("answered code {code}: {}", code_meaning(*code))]
    Code { code: i32 },
    #[error("alloc answered {pointer} for {length} bytes, which is outside its memory")]
    Alloc { pointer: u32, length: u32 },
    #[error("gave no output")]
    NoOutput,
    #[error("its output of {length} bytes at {pointer} is outside its memory")]
    OutputBounds { pointer: u32, length: u32 },
    #[error("its output is {} long, at most {} are allowed", Bytes(*length), Bytes(*max))]
    OutputBytes { length: usize, max: usize },
    #[error("its output holds {count} records, at most {max} are allowed")]
    OutputRecords { count: u32, max: usize },
    #[error("makes more than {max} records of one")]
    FanOut { max: usize },
    #[error("its output is malformed at {0}")]
    Malformed(&'static str),
    #[error("its output is of offset {0}, which is not of the input or out of order")]
    Provenance(i64),
    #[error("its output lacks a record for an input")]
    Missing,
    #[error("its error is of offset {0}, which is not of the input")]
    RefusedOffset(i64),
    #[error("its accumulator is {} long, at most {} are allowed", Bytes(*length), Bytes(*max))]
    Accumulator { length: usize, max: usize },
}

/// A size as a person reads it.
struct Bytes(usize);

/// The guest asked to end the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("proc_exit({0})")]
pub(crate) struct Exit(pub(crate) i32);

impl Fault {
    /// What a call's error was.
    pub(crate) fn of(error: &wasmtime::Error, guard: &StoreGuard) -> Self {
        match guard.refused() {
            Some(Refused::Memory { bytes_max }) => return Fault::Memory { bytes_max },
            Some(Refused::Table { elements_max }) => return Fault::Table { elements_max },
            None => {}
        }
        if let Some(Exit(code)) = error.downcast_ref() {
            return Fault::Exited(*code);
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => Fault::Fuel { max: guard.fuel_max().unwrap_or_default() },
            Some(Trap::StackOverflow) => Fault::Recursion,
            Some(trap) => {
                let text = trap.to_string();
                Fault::Trapped(text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned())
            }
            None => Fault::Trapped(plain_text(error.to_string().as_bytes())),
        }
    }

    pub(crate) fn of_decoding(error: &DecodeError, records_max: usize) -> Self {
        match error {
            DecodeError::Malformed(what) => Fault::Malformed(what),
            DecodeError::TooMany(count) => Fault::OutputRecords { count: *count, max: records_max },
        }
    }

    pub(crate) fn is_time_out(&self) -> bool {
        matches!(self, Fault::TimedOut { .. })
    }
}

/// A hint of the module's author as one short line: without the source location that `eyre` appends, white space
/// collapsed, control characters escaped.
pub(crate) fn hint_text(hint: &[u8]) -> String {
    const LOCATION: &[u8] = b"\n\nLocation:\n";
    let end = hint.windows(LOCATION.len()).position(|window| window == LOCATION).unwrap_or(hint.len());
    let text = plain_text(&hint[..end]);
    if text.is_empty() { "refused the record without a reason".to_owned() } else { text }
}

/// Bytes of a guest as one line, bounded, with nothing in it that a terminal or a log would act upon.
pub(crate) fn plain_text(bytes: &[u8]) -> String {
    // Enough to fill the line after white space is collapsed, and little enough to be cheap.
    let bytes = &bytes[..bytes.len().min(8 * HINT_BYTES_MAX)];
    let mut line = String::new();
    for word in String::from_utf8_lossy(bytes).split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        for c in word.chars() {
            if c.is_control() {
                line.extend(c.escape_default());
            } else {
                line.push(c);
            }
        }
        if line.len() > HINT_BYTES_MAX {
            line.truncate(line.floor_char_boundary(HINT_BYTES_MAX));
            line.push('…');
            break;
        }
    }
    line
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: usize = 1 << 20;
        if self.0 >= MIB && self.0.is_multiple_of(MIB) {
            write!(f, "{} MiB", self.0 / MIB)
        } else {
            write!(f, "{} bytes", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_one_short_line() {
        let eyre = b"not JSON\n\nCaused by:\n    expected value\n\nLocation:\n    src/lib.rs:7:5";
        assert_eq!(hint_text(eyre), "not JSON Caused by: expected value");
        assert_eq!(hint_text(b"a\x1b[31mred\x07"), "a\\u{1b}[31mred\\u{7}");
        assert_eq!(hint_text(b" \n"), "refused the record without a reason");
        assert!(hint_text("é".repeat(5_000).as_bytes()).len() <= 503);
        assert!(hint_text(b"\xff\xfe").starts_with('\u{fffd}'));
    }

    #[test]
    fn sizes_are_readable() {
        let fault = Fault::Memory { bytes_max: 64 << 20 };
        assert_eq!(fault.to_string(), "memory limit of 64 MiB reached");
        let fault = Fault::OutputBytes { length: 70_000, max: 65_536 };
        assert_eq!(fault.to_string(), "its output is 70000 bytes long, at most 65536 bytes are allowed");
    }
}
