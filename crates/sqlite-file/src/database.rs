//! One SQLite file: how it is opened, and the format numbers that keep an old program from a newer file.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use millrace_core::{Class, Error};
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use crate::failure::Failure;

/// How long a connection waits for another one's transaction, in steps of 1 ms: the default handler sleeps
/// ever longer, and a busy neighbour then starves it.
const BUSY_WAIT_MS_MAX: i32 = 5_000;

/// Pages are written to the file from the write-ahead log every so many pages.
const CHECKPOINT_PAGES: u32 = 4_000;

/// What is left of the write-ahead log after a checkpoint, in bytes.
const LOG_BYTES_MAX: u32 = 64 << 20;

/// What a connection caches, in KiB.
const CACHE_KIB: u32 = 32 << 10;

/// Statements a connection keeps prepared.
const STATEMENTS_MAX: usize = 256;

/// A SQLite file and the part of it that one crate owns. Parts have tables of their own and a format number
/// each, in the table `millrace_format`.
#[derive(Clone, Debug)]
pub struct Database {
    /// The file.
    pub path: PathBuf,
    /// How errors name it.
    pub who: String,
    /// The part: `log`, `progress`, `views`.
    pub part: &'static str,
    /// The newest format this program knows.
    pub format: i64,
    /// Makes the part's tables in a file that has none of them.
    pub schema: &'static str,
}

impl Database {
    /// Opens the file for reading and writing; makes the folder, the file and the tables where they are
    /// missing. A commit is on the disk when it returns.
    ///
    /// # Errors
    /// Retry when another process holds the file or the disk is full; Fatal when the file cannot be used or
    /// its format is newer.
    pub fn open(&self) -> Result<Connection, Failure> {
        std::fs::create_dir_all(self.folder())
            .map_err(|e| Failure::new(Class::Fatal, "its folder cannot be made").with_source(e))?;
        let mut connection = self.connect(OpenFlags::SQLITE_OPEN_CREATE)?;
        self.make(&mut connection)?;
        Ok(connection)
    }

    /// Opens the file for reading; none when there is no file, or it does not hold the part.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn open_reader(&self) -> Result<Option<Connection>, Failure> {
        if !self.path.exists() {
            return Ok(None);
        }
        let connection = self.connect(OpenFlags::empty())?;
        let held = self.holds_part(&connection)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(held.then_some(connection))
    }

    /// An error of this file.
    pub fn error(&self, failure: impl Into<Failure>) -> Error {
        failure.into().error(&self.who)
    }

    /// The file's folder.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn connect(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&self.path, flags)?;
        Self::settle(&mut connection)?;
        Ok(connection)
    }

    fn settle(connection: &mut Connection) -> rusqlite::Result<()> {
        connection.busy_handler(Some(wait_a_little))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // Takes effect in a new file only.
        connection.pragma_update(None, "page_size", 8192)?;
        let mut tries = 0;
        // The change of mode does not ask the busy handler.
        while let Err(error) = connection.pragma_update(None, "journal_mode", "wal") {
            if error.sqlite_error_code() != Some(rusqlite::ErrorCode::DatabaseBusy) || !wait_a_little(tries) {
                return Err(error);
            }
            tries += 1;
        }
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES_MAX)?;
        connection.pragma_update(None, "cache_size", -i64::from(CACHE_KIB))?;
        connection.pragma_update(None, "temp_store", "memory")
    }

    fn make(&self, connection: &mut Connection) -> Result<(), Failure> {
        if self.holds_part(connection)? {
            return Ok(());
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have made them meanwhile.
        if !self.holds_part(&transaction)? {
            transaction.execute_batch(
                "CREATE TABLE IF NOT EXISTS millrace_format(part TEXT PRIMARY KEY, format INTEGER NOT NULL)
                 STRICT, WITHOUT ROWID",
            )?;
            transaction.execute_batch(self.schema)?;
            transaction.execute(
                "INSERT INTO millrace_format(part, format) VALUES (?, ?)",
                (self.part, self.format),
            )?;
        }
        Ok(transaction.commit()?)
    }

    /// Whether the file holds the part in a format that this program knows.
    fn holds_part(&self, connection: &Connection) -> Result<bool, Failure> {
        let tables: i64 = connection.query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'millrace_format'",
            (),
            |row| row.get(0),
        )?;
        if tables == 0 {
            return Ok(false);
        }
        let found: Option<i64> = connection
            .query_row("SELECT format FROM millrace_format WHERE part = ?", (self.part,), |row| row.get(0))
            .optional()?;
        match found {
            None => Ok(false),
            Some(found) if (1..=self.format).contains(&found) => Ok(true),
            Some(found) => Err(Failure::new(
                Class::Fatal,
                format!(
                    "has format {found} of its {}, this program knows formats up to {}: use the program that wrote it",
                    self.part, self.format
                ),
            )),
        }
    }
}

/// Does `work` in one transaction: all of it is durable, or nothing of it stays.
///
/// # Errors
/// That of the work, or of the commit.
pub fn transact<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&transaction)?;
    transaction.commit()?;
    Ok(done)
}

fn wait_a_little(tries: i32) -> bool {
    #[expect(clippy::disallowed_methods, reason = "SQLite's own thread waits here for another process")]
    std::thread::sleep(Duration::from_millis(1));
    tries < BUSY_WAIT_MS_MAX
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn database(folder: &Path, format: i64) -> Database {
        Database {
            path: folder.join("deep/er/x.db"),
            who: "x.db".into(),
            part: "numbers",
            format,
            schema: "CREATE TABLE numbers(n INTEGER) STRICT",
        }
    }

    #[test]
    fn parts_share_a_file_and_are_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = database(folder.path(), 1);
        assert!(numbers.open_reader().unwrap().is_none());
        numbers.open().unwrap().execute("INSERT INTO numbers VALUES (7)", ()).unwrap();
        let words =
            Database { part: "words", schema: "CREATE TABLE words(w TEXT) STRICT", ..numbers.clone() };
        assert!(words.open_reader().unwrap().is_none());
        words.open().unwrap();
        let again = numbers.open().unwrap();
        let n: i64 = again.query_row("SELECT n FROM numbers", (), |row| row.get(0)).unwrap();
        assert_eq!(n, 7);
        let reader = words.open_reader().unwrap().unwrap();
        assert!(reader.execute("INSERT INTO words VALUES ('x')", ()).is_err());
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        database(folder.path(), 2).open().unwrap();
        let before = std::fs::read(database(folder.path(), 1).path).unwrap();
        for error in [
            database(folder.path(), 1).open().unwrap_err(),
            database(folder.path(), 1).open_reader().unwrap_err(),
        ] {
            assert_eq!(error.class(), Class::Fatal);
            let error = database(folder.path(), 1).error(error);
            assert!(error.to_string().contains("has format 2 of its numbers"), "{error}");
        }
        assert_eq!(std::fs::read(database(folder.path(), 1).path).unwrap(), before);
    }

    #[test]
    fn a_file_that_is_no_database_is_fatal_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(folder.path(), 1);
        std::fs::create_dir_all(database.folder()).unwrap();
        let text = "this is no database ".repeat(100);
        std::fs::write(&database.path, &text).unwrap();
        let error = database.error(database.open().unwrap_err());
        assert_eq!((error.class(), error.why()), (Class::Fatal, "the file is no SQLite database"));
        assert_eq!(std::fs::read_to_string(&database.path).unwrap(), text);
    }

    #[test]
    fn many_open_a_new_file_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(folder.path(), 1);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    database.open().unwrap().execute("INSERT INTO numbers VALUES (1)", ()).unwrap();
                });
            }
        });
        let count: i64 =
            database.open().unwrap().query_row("SELECT count(*) FROM numbers", (), |row| row.get(0)).unwrap();
        assert_eq!(count, 8);
    }
}
