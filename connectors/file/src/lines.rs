//! The lines of a file, in bounded memory.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use millrace_core::{Error, Result};

/// How a file is read.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Longer lines are reported and skipped, without ever being held whole.
    pub line_bytes_max: usize,
}

/// A line that can be produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number in the file, from 1.
    pub number: u64,
    /// Its bytes, without the line end.
    pub value: Bytes,
}

/// A line that is too long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {bytes} bytes, at most {max} are accepted; skipped", file.display())]
pub struct TooLong {
    /// The file as it was named.
    pub file: PathBuf,
    /// The line's number, from 1.
    pub line: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// What is accepted.
    pub max: usize,
}

/// How far a file has been read, for a progress bar: usable while it is being read.
#[derive(Clone, Debug)]
pub struct Progress {
    read: Arc<AtomicU64>,
    /// The size of the file in bytes; none for standard input.
    pub total_bytes: Option<u64>,
}

/// The lines of one file. Empty lines are left out.
pub struct Lines {
    file: PathBuf,
    reader: BufReader<Box<dyn Read + Send>>,
    options: Options,
    number: u64,
    progress: Progress,
    ended: bool,
}

struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Progress {
    /// Bytes read from the file so far, compressed ones where it is compressed.
    pub fn read_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

impl Lines {
    /// Opens a file; `-` is standard input. Gzip is recognised by its first bytes, not by the name.
    ///
    /// # Errors
    /// Fatal when it cannot be opened.
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        if path == Path::new("-") {
            return Self::new(path, io::stdin(), None, options);
        }
        let cannot =
            |error: io::Error| Error::fatal(path.display().to_string(), "cannot be read").with_source(error);
        let file = File::open(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if metadata.is_dir() {
            return Err(Error::fatal(path.display().to_string(), "is a folder"));
        }
        Self::new(path, file, Some(metadata.len()), options)
    }

    /// The lines of any reader; `path` is what messages call it.
    ///
    /// # Errors
    /// Fatal when its first bytes cannot be read.
    pub fn new(
        path: &Path,
        input: impl Read + Send + 'static,
        total_bytes: Option<u64>,
        options: Options,
    ) -> Result<Self> {
        const GZIP: [u8; 2] = [0x1f, 0x8b];
        let read = Arc::new(AtomicU64::new(0));
        let mut raw = BufReader::with_capacity(1 << 16, Counted { inner: input, read: read.clone() });
        let head = raw
            .fill_buf()
            .map_err(|error| Error::fatal(path.display().to_string(), "cannot be read").with_source(error))?;
        let text: Box<dyn Read + Send> =
            if head.starts_with(&GZIP) { Box::new(MultiGzDecoder::new(raw)) } else { Box::new(raw) };
        let reader = BufReader::with_capacity(1 << 16, text);
        let progress = Progress { read, total_bytes };
        Ok(Lines { file: path.to_owned(), reader, options, number: 0, progress, ended: false })
    }

    /// How far it has been read.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Whether the next line is in memory: without it, reading on may wait for whoever writes the input.
    pub fn has_line(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
    }

    /// One line up to the bound, and its whole length. None at the end.
    fn read_line(&mut self) -> io::Result<Option<(Vec<u8>, u64)>> {
        let mut line = Vec::new();
        let mut bytes = 0u64;
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                return Ok((bytes > 0).then_some((line, bytes)));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            // One more than allowed, for the carriage return that is no part of the line.
            let room = (self.options.line_bytes_max + 1).saturating_sub(line.len());
            line.extend_from_slice(&part[..part.len().min(room)]);
            bytes += part.len() as u64;
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                return Ok(Some((line, bytes)));
            }
        }
    }
}

impl Iterator for Lines {
    /// The outer error ends the file: it is damaged from there on. The inner one is a line that is left out.
    type Item = Result<std::result::Result<Line, TooLong>>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.read_line() {
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    let why = format!("cannot be read after line {}", self.number);
                    return Some(Err(Error::fatal(self.file.display().to_string(), why).with_source(error)));
                }
                Ok(Some((mut line, mut bytes))) => {
                    self.number += 1;
                    if line.len() as u64 == bytes && line.last() == Some(&b'\r') {
                        line.pop();
                        bytes -= 1;
                    }
                    let max = self.options.line_bytes_max;
                    if bytes > max as u64 {
                        let file = self.file.clone();
                        return Some(Ok(Err(TooLong { file, line: self.number, bytes, max })));
                    }
                    if !line.is_empty() {
                        return Some(Ok(Ok(Line { number: self.number, value: line.into() })));
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let reader = io::Cursor::new(bytes.to_vec());
        Lines::new(Path::new("f"), reader, None, Options { line_bytes_max: 8 })
            .unwrap()
            .map(|item| match item {
                Ok(Ok(line)) => format!("{}={}", line.number, String::from_utf8_lossy(&line.value)),
                Ok(Err(too_long)) => too_long.to_string(),
                Err(error) => error.to_string(),
            })
            .collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn leaves_out_empty_and_overlong_lines_and_goes_on() {
        let text = b"one\r\n\n12345678\r\n123456789\nlast";
        let expected = ["1=one", "3=12345678", "f:4: 9 bytes, at most 8 are accepted; skipped", "5=last"];
        assert_eq!(lines(text), expected);
        assert_eq!(lines(&gzip(text)), expected);
    }

    #[test]
    fn a_truncated_archive_is_named_with_the_line_reached() {
        let whole: Vec<u8> =
            (0..2_000).flat_map(|i| format!("{}\n", i * 7919 % 10_007).into_bytes()).collect();
        let archive = gzip(&whole);
        let read = lines(&archive[..archive.len() / 2]);
        let last = read.last().unwrap();
        assert!(last.starts_with("f: cannot be read after line "), "{last}");
        assert!(read.len() > 1);
    }

    #[test]
    fn a_line_of_a_hundred_megabytes_is_not_held() {
        let reader = io::repeat(b'x').take(100 << 20).chain(io::Cursor::new(b"\nok\n".to_vec()));
        let mut lines = Lines::new(Path::new("f"), reader, None, Options { line_bytes_max: 8 }).unwrap();
        let too_long = lines.next().unwrap().unwrap().unwrap_err();
        assert_eq!((too_long.line, too_long.bytes), (1, 100 << 20));
        assert_eq!(lines.next().unwrap().unwrap().unwrap().value, "ok");
    }

    #[test]
    fn knows_whether_the_next_line_is_there() {
        let text = b"one\ntwo\nthr".to_vec();
        let mut lines =
            Lines::new(Path::new("f"), io::Cursor::new(text), None, Options { line_bytes_max: 8 }).unwrap();
        let seen: Vec<bool> =
            std::iter::from_fn(|| lines.next().map(|line| (line, lines.has_line()).1)).collect();
        assert_eq!(seen, [true, false, false]);
    }

    #[test]
    fn progress_counts_the_bytes_of_the_file() {
        let archive = gzip(b"one\ntwo\n");
        let size = archive.len() as u64;
        let lines =
            Lines::new(Path::new("f"), io::Cursor::new(archive), Some(size), Options { line_bytes_max: 8 });
        let lines = lines.unwrap();
        let progress = lines.progress();
        assert_eq!(lines.count(), 2);
        assert_eq!(progress.read_bytes(), size);
    }
}
