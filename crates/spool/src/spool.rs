//! The spool: a table of records, and a row that says which of them there must be.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use millrace_core::{Error, Result};
use millrace_sqlite_file::{Database, Failure, FileLock, NotLocked, transact};
use rusqlite::{Connection, Row};

use crate::entry::{Entry, OVERHEAD_BYTES};

const FORMAT: i64 = 1;

/// `first` and `next` are the places of the oldest record and of the next one: a record between them that is
/// missing was lost, not sent.
const SCHEMA: &str = "
    CREATE TABLE records(
        place INTEGER PRIMARY KEY, key BLOB, value BLOB NOT NULL, origin TEXT NOT NULL, sum INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE state(
        one INTEGER PRIMARY KEY CHECK (one = 1), subject TEXT NOT NULL, first INTEGER NOT NULL, next INTEGER NOT NULL
    ) STRICT;
    INSERT INTO state VALUES (1, '', 0, 0);";

/// A file that was emptied keeps its size up to this.
const EMPTY_BYTES_MAX: u64 = 4 << 20;

/// Which spool.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its folder; made where it is missing. One process at a time has it.
    pub folder: PathBuf,
    /// What the records are for: a topic. A spool that holds records for another one is refused.
    pub subject: String,
    /// The most it holds, counted by [`Entry::size_bytes`]; the file is a few per cent larger.
    pub bytes_max: u64,
}

/// An open spool. All calls block, the appending ones for as long as the disk takes to sync.
#[derive(Debug)]
pub struct Spool {
    options: Options,
    database: Database,
    connection: Connection,
    first: i64,
    next: i64,
    bytes: u64,
    _lock: FileLock,
}

impl Spool {
    /// Opens the spool with what waits in it.
    ///
    /// # Errors
    /// Retry when another process has it or the disk is full. Reject when it holds records for another subject.
    /// Fatal when records are missing, its format is newer, or it cannot be used.
    pub fn open(options: Options) -> Result<Self> {
        let who = format!("spool {}", options.folder.display());
        let lock = FileLock::take(&options.folder.join("spool.lock")).map_err(|refused| match refused {
            NotLocked::Held { pid } => {
                let holder = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                Error::retry(&who, format!("{holder} uses it"))
            }
            NotLocked::Failed { what, error } => Error::fatal(&who, what).with_source(error),
        })?;
        let path = options.folder.join("spool.db");
        let database = Database { path, who, part: "spool", format: FORMAT, schema: SCHEMA };
        let connection = database.open().map_err(|failure| database.error(failure))?;
        // A new folder is there after a crash only when the one above it was synced.
        let above = options.folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_folder(above.unwrap_or(Path::new(".")))
            .map_err(|error| Error::retry(&database.who, "its folder cannot be synced").with_source(error))?;
        let (subject, first, next) = connection
            .query_row("SELECT subject, first, next FROM state", (), |row| {
                Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))
            })
            .map_err(|error| database.error(error))?;
        if first < next && subject != options.subject {
            let why =
                format!("records wait in it for {subject}, not for {}; name another folder", options.subject);
            return Err(Error::reject(&database.who, why));
        }
        let mut spool = Spool { options, database, connection, first, next, bytes: 0, _lock: lock };
        spool.bytes = spool.count()?;
        spool.settle();
        Ok(spool)
    }

    /// Appends the first ones, as many as there is room for, and returns how many. They are on the disk then; 0
    /// says that the spool is full.
    ///
    /// # Errors
    /// Retry when the disk is full or failed: nothing was appended. Reject when the first one is larger than
    /// the whole spool. Fatal when the file cannot be used.
    pub fn append(&mut self, entries: &[Entry]) -> Result<usize> {
        let max = self.options.bytes_max;
        if let Some(first) = entries.first().filter(|first| first.size_bytes() > max) {
            let why = format!("{} is larger than the whole spool of {max} bytes", first.origin);
            return Err(Error::reject(&self.database.who, why));
        }
        let mut bytes = self.bytes;
        let fits = |entry: &&Entry| {
            bytes += entry.size_bytes();
            bytes <= max
        };
        let fitting = entries.iter().take_while(fits).count();
        if fitting == 0 {
            return Ok(0);
        }
        let taken = &entries[..fitting];
        let (first, subject) = (self.next, &self.options.subject);
        let next = transact(&mut self.connection, |transaction| {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO records(place, key, value, origin, sum) VALUES (?, ?, ?, ?, ?)",
            )?;
            let mut place = first;
            for entry in taken {
                insert.execute((
                    place,
                    entry.key.as_deref(),
                    &*entry.value,
                    &entry.origin,
                    entry.sum(place),
                ))?;
                place += 1;
            }
            transaction.execute("UPDATE state SET subject = ?, next = ?", (subject, place))?;
            Ok(place)
        })
        .map_err(|failure| self.database.error(failure.never_reject()))?;
        self.next = next;
        self.bytes += taken.iter().map(Entry::size_bytes).sum::<u64>();
        self.settle();
        Ok(fitting)
    }

    /// The oldest records, at least one if there is one.
    ///
    /// # Errors
    /// Fatal when one of them is damaged or missing: it is named, and nothing is handed out.
    pub fn peek(&self, records_max: usize, bytes_max: u64) -> Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let limit = i64::try_from(records_max.max(1)).unwrap_or(i64::MAX);
        let sql =
            "SELECT key, value, origin, sum, place FROM records WHERE place >= ? ORDER BY place LIMIT ?";
        let failed = |error: rusqlite::Error| self.database.error(error);
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query((self.first, limit)).map_err(failed)?;
        let mut place = self.first;
        while place < self.next && entries.len() < records_max.max(1) {
            let row = rows.next().map_err(failed)?.ok_or_else(|| self.damaged(place))?;
            let entry = sound(row, place).ok_or_else(|| self.damaged(place))?;
            bytes += entry.size_bytes();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
            place += 1;
        }
        Ok(entries)
    }

    /// Removes the oldest `count` records: somebody else answers for them now.
    ///
    /// # Errors
    /// Retry when the disk is full or failed, Fatal when the file cannot be used; they stay then.
    pub fn advance(&mut self, count: usize) -> Result<()> {
        let entries = i64::try_from(count).unwrap_or(i64::MAX);
        let first = self.first.saturating_add(entries).min(self.next);
        let freed = transact(&mut self.connection, |transaction| {
            let freed = size_of(transaction, "place < ?", first)?;
            transaction.execute("DELETE FROM records WHERE place < ?", (first,))?;
            transaction.execute("UPDATE state SET first = ?", (first,))?;
            Ok(freed)
        })
        .map_err(|failure| self.database.error(failure.never_reject()))?;
        self.first = first;
        self.bytes = self.bytes.saturating_sub(freed);
        self.settle();
        Ok(())
    }

    /// Keeps a record that its system will never take in `refused.ndjson` of the folder, for a person.
    ///
    /// # Errors
    /// Retry when that file holds `bytes_max` already, or cannot be written.
    pub fn set_aside(&self, entry: &Entry) -> Result<()> {
        let path = self.refused();
        let failed = |error: io::Error| {
            Error::retry(&self.database.who, "refused.ndjson cannot be written").with_source(error)
        };
        let mut file = OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
        let held = file.metadata().map_err(failed)?.len();
        if held + entry.value.len() as u64 >= self.options.bytes_max {
            return Err(Error::retry(
                &self.database.who,
                "refused.ndjson is full: look at it, and move it away",
            ));
        }
        let line = [&entry.value[..], b"\n"].concat();
        file.write_all(&line).and_then(|()| file.sync_all()).map_err(failed)?;
        sync_folder(&self.options.folder).map_err(failed)
    }

    /// Where [`Spool::set_aside`] keeps records.
    pub fn refused(&self) -> PathBuf {
        self.options.folder.join("refused.ndjson")
    }

    /// How many records wait.
    pub fn len(&self) -> u64 {
        self.next.abs_diff(self.first)
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.first == self.next
    }

    /// What they count towards the bound.
    pub fn size_bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes that wait. Says so when there are fewer or more records than there must be.
    fn count(&self) -> Result<u64> {
        let seen =
            self.connection.query_row("SELECT count(*), min(place), max(place) FROM records", (), |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            });
        let (count, first, last): (i64, Option<i64>, Option<i64>) =
            seen.map_err(|error| self.database.error(error))?;
        let bounds = (!self.is_empty()).then_some((self.first, self.next - 1));
        if count.cast_unsigned() != self.len() || first.zip(last) != bounds {
            let why = format!("{} records must wait in it, but {count} are there: it is damaged", self.len());
            return Err(Error::fatal(&self.database.who, why));
        }
        size_of(&self.connection, "place >= ?", self.first).map_err(|failure| self.database.error(failure))
    }

    fn damaged(&self, place: i64) -> Error {
        let number = place - self.first + 1;
        let why = format!(
            "record {number} of {} is damaged (place {place} in spool.db); keep the folder and look at it with sqlite3",
            self.len()
        );
        Error::fatal(&self.database.who, why)
    }

    /// Moves what is committed from the write-ahead log into the file, and gives back the room of a file that
    /// was emptied. A failure leaves it in the log, as durable.
    fn settle(&self) {
        let large = || std::fs::metadata(&self.database.path).is_ok_and(|file| file.len() > EMPTY_BYTES_MAX);
        let shrink =
            if self.is_empty() && large() { self.connection.execute_batch("VACUUM") } else { Ok(()) };
        let moved = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
        if let Err(error) = shrink.and(moved) {
            tracing::debug!(spool = self.database.who, %error, "not moved out of the write-ahead log");
        }
    }
}

/// The record of a row, if it is what was appended.
fn sound(row: &Row<'_>, place: i64) -> Option<Entry> {
    let key: Option<Vec<u8>> = row.get(0).ok()?;
    let value: Vec<u8> = row.get(1).ok()?;
    let entry = Entry { key: key.map(Bytes::from), value: value.into(), origin: row.get(2).ok()? };
    let sum: u32 = row.get(3).ok()?;
    (row.get(4).ok() == Some(place) && entry.sum(place) == sum).then_some(entry)
}

/// The size of some records; their values are not read for it.
fn size_of(connection: &Connection, which: &str, place: i64) -> Result<u64, Failure> {
    let sql = format!(
        "SELECT coalesce(sum(coalesce(length(key), 0) + length(value) + octet_length(origin) + {OVERHEAD_BYTES}), 0)
         FROM records WHERE {which}"
    );
    let bytes: i64 = connection.query_row(&sql, (place,), |row| row.get(0))?;
    Ok(bytes.cast_unsigned())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use millrace_core::Class;

    use super::*;

    #[test]
    fn a_full_disk_is_said_and_takes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { folder: folder.path().into(), subject: "t".into(), bytes_max: 1 << 30 };
        let mut spool = Spool::open(options).unwrap();
        let entry = Entry { key: None, value: vec![1; 100_000].into(), origin: "f:1".into() };
        spool.append(std::slice::from_ref(&entry)).unwrap();
        let pages: i64 = spool.connection.query_row("PRAGMA page_count", (), |row| row.get(0)).unwrap();
        // SQLite answers the same where the file system has no room.
        spool.connection.pragma_update(None, "max_page_count", pages + 2).unwrap();
        let error = spool.append(&[entry.clone(), entry.clone()]).unwrap_err();
        assert_eq!((error.class(), error.why()), (Class::Retry, "the disk is full"));
        assert_eq!((spool.len(), spool.peek(9, u64::MAX).unwrap()), (1, vec![entry.clone()]));
        spool.connection.pragma_update(None, "max_page_count", pages * 100).unwrap();
        assert_eq!(spool.append(&[entry.clone(), entry]).unwrap(), 2);
    }
}
