//! A module's standard output and error, as lines in the log: at debug level, since a module may print what it
//! reads, bounded in length and in number.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use wasmtime::Caller;

use super::{BAD_DESCRIPTOR, Errno, INVALID, SUCCESS, with_memory, write};
use crate::{
    clock::{TICK_MS, Ticks},
    fault::plain_text,
    instance::Host,
    memory::region,
};

/// Lines of a module's instances that are logged in a window.
const LINES_MAX: u64 = 50;
const WINDOW_TICKS: u64 = 1_000 / TICK_MS;
/// Bytes of a line that are kept.
const LINE_BYTES_MAX: usize = 500;
/// Vectors of one write that are looked at.
const VECTORS_MAX: u32 = 1_024;

/// The log of one module, shared by its instances.
#[derive(Debug)]
pub(crate) struct GuestLog {
    module: Arc<str>,
    ticks: Ticks,
    window: AtomicU64,
    lines: AtomicU64,
}

/// What an instance has printed and not ended with a newline.
#[derive(Debug)]
pub(crate) struct Output {
    log: Arc<GuestLog>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl GuestLog {
    pub(crate) fn new(module: Arc<str>, ticks: Ticks) -> Self {
        GuestLog { module, ticks, window: AtomicU64::new(0), lines: AtomicU64::new(0) }
    }

    /// Whether one more line may be logged now; at the first of a window also says what was left out before.
    fn admit(&self) -> bool {
        let window = self.ticks.now() / WINDOW_TICKS;
        if self.window.swap(window, Ordering::Relaxed) != window {
            let left_out = self.lines.swap(0, Ordering::Relaxed).saturating_sub(LINES_MAX);
            if left_out > 0 {
                tracing::debug!(module = %self.module, left_out, "more output of the module was left out");
            }
        }
        self.lines.fetch_add(1, Ordering::Relaxed) < LINES_MAX
    }

    fn line(&self, stream: &'static str, line: &[u8]) {
        if tracing::enabled!(tracing::Level::DEBUG) && self.admit() {
            tracing::debug!(module = %self.module, stream, output = plain_text(line), "output of the module");
        }
    }
}

impl Output {
    pub(crate) fn new(log: Arc<GuestLog>) -> Self {
        Output { log, stdout: Vec::new(), stderr: Vec::new() }
    }

    fn print(&mut self, to_stderr: bool, bytes: &[u8]) {
        let (name, buffer) =
            if to_stderr { ("stderr", &mut self.stderr) } else { ("stdout", &mut self.stdout) };
        let mut parts = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            let room = LINE_BYTES_MAX.saturating_sub(buffer.len());
            buffer.extend_from_slice(&part[..part.len().min(room)]);
            if parts.peek().is_some() {
                self.log.line(name, &mem::take(buffer));
            }
        }
    }
}

impl Drop for Output {
    /// What a guest says last, before it traps, has often no newline.
    fn drop(&mut self) {
        for (name, rest) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !rest.is_empty() {
                self.log.line(name, rest);
            }
        }
    }
}

pub(super) fn fd_write(
    mut caller: Caller<'_, Host>,
    descriptor: i32,
    vectors: i32,
    count: i32,
    written: i32,
) -> Errno {
    const VECTOR_BYTES: u32 = 8;
    if !(1..=2).contains(&descriptor) {
        return BAD_DESCRIPTOR;
    }
    let count = count.cast_unsigned();
    if count > VECTORS_MAX {
        return INVALID;
    }
    let mut total = 0_u32;
    let mut text = Vec::new();
    let errno = with_memory(&mut caller, |memory| {
        let list = region(memory, vectors.cast_unsigned(), count * VECTOR_BYTES)?;
        for vector in list.chunks_exact(VECTOR_BYTES as usize) {
            let (pointer, length) = vector.split_at(4);
            let pointer = u32::from_le_bytes(pointer.try_into().ok()?);
            let length = u32::from_le_bytes(length.try_into().ok()?);
            let bytes = region(memory, pointer, length)?;
            total = total.saturating_add(length);
            // Bounded, however much is written: the log takes a few lines of it at most.
            let room = (LINES_MAX as usize * LINE_BYTES_MAX).saturating_sub(text.len());
            text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        Some(SUCCESS)
    });
    if errno != SUCCESS {
        return errno;
    }
    caller.data_mut().output.print(descriptor == 2, &text);
    write(&mut caller, written, &total.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output() -> Output {
        Output::new(Arc::new(GuestLog::new("m".into(), Ticks::default())))
    }

    #[test]
    fn a_line_is_kept_until_it_ends_and_is_bounded() {
        let mut output = output();
        output.print(false, b"a");
        output.print(false, b"b\nc");
        assert_eq!(output.stdout, b"c");
        output.print(true, &[b'x'; 10_000]);
        assert_eq!(output.stderr.len(), LINE_BYTES_MAX);
    }

    #[test]
    fn lines_of_a_window_are_counted() {
        let log = output().log.clone();
        let admitted = (0..1_000).filter(|_| log.admit()).count() as u64;
        assert_eq!(admitted, LINES_MAX);
    }
}
