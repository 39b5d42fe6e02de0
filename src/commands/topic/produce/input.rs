//! The lines of a file on their way to a topic: read on a thread that may block, gathered into batches of what is
//! there, so that neither a slow input holds lines back nor a fast one sends them singly.

use std::path::Path;

use millrace_core::Error;
use millrace_spool::Entry;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};

use crate::{
    registry::{KeyPath, Lines},
    report::{Failure, say},
};

/// Records handed to the producer at once.
pub const BATCH_RECORDS_MAX: usize = 1_000;
/// Their bytes; a batch may exceed it by one record.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Groups of lines read ahead; each is what one read of 64 KiB brought, or one long line.
const GROUPS_MAX: usize = 16;

/// The lines of one file, being read.
pub struct Input {
    groups: mpsc::Receiver<Vec<Entry>>,
    reading: JoinHandle<Result<Read, Error>>,
    /// Read, and too much for the batch before.
    next: Vec<Entry>,
}

/// What a file held besides good lines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Read {
    /// Lines produced without a key.
    pub without_key: u64,
    /// Lines left out.
    pub too_long: u64,
}

impl Input {
    /// Starts reading.
    pub fn start(file: &Path, lines: Lines, key: Option<KeyPath>) -> Self {
        let (sender, groups) = mpsc::channel(GROUPS_MAX);
        let file = file.display().to_string();
        let reading = spawn_blocking(move || read(&file, lines, key.as_ref(), &sender));
        Input { groups, reading, next: Vec::new() }
    }

    /// The lines that are there, up to a batch; waits for the first one. None at the end. Cancel-safe.
    pub async fn batch(&mut self) -> Option<Vec<Entry>> {
        if self.next.is_empty() {
            self.next = self.groups.recv().await?;
        }
        let mut batch = std::mem::take(&mut self.next);
        let mut bytes: usize = batch.iter().map(|line| line.value.len()).sum();
        while let Ok(group) = self.groups.try_recv() {
            bytes += group.iter().map(|line| line.value.len()).sum::<usize>();
            if batch.len() + group.len() > BATCH_RECORDS_MAX || bytes > BATCH_BYTES_MAX {
                self.next = group;
                break;
            }
            batch.extend(group);
        }
        Some(batch)
    }

    /// What the file held, once [`Input::batch`] gave none.
    ///
    /// # Errors
    /// When the file could not be read to its end.
    pub async fn end(self) -> Result<Read, Failure> {
        Ok(self.reading.await.map_err(|error| Failure::run(error.to_string()))??)
    }
}

/// Reads to the end, or until nobody takes the lines any more.
fn read(
    file: &str,
    mut lines: Lines,
    key: Option<&KeyPath>,
    groups: &mpsc::Sender<Vec<Entry>>,
) -> Result<Read, Error> {
    let mut read = Read::default();
    let mut group = Vec::new();
    let mut bytes = 0;
    while let Some(line) = lines.next() {
        match line? {
            Err(problem) => {
                read.too_long += 1;
                say(&problem.to_string());
            }
            Ok(line) => {
                let key = key.and_then(|key| {
                    let found = key.key_of(&line.value).ok();
                    read.without_key += u64::from(found.is_none());
                    found
                });
                bytes += line.value.len();
                group.push(Entry { key, value: line.value, origin: format!("{file}:{}", line.number) });
            }
        }
        let full = group.len() >= BATCH_RECORDS_MAX || bytes >= BATCH_BYTES_MAX;
        if (full || !lines.has_line()) && !group.is_empty() {
            bytes = 0;
            if groups.blocking_send(std::mem::take(&mut group)).is_err() {
                break;
            }
        }
    }
    Ok(read)
}
