//! A few connections for reading: readers do not wait for the writer, nor it for them.

use std::sync::{Arc, Mutex};

use millrace_core::{Class, Error, Result};
use millrace_sqlite_file::{Clock, Database, Failure};
use rusqlite::Connection;
use tokio::sync::Semaphore;

/// Reads at the same time; each has a thread and a connection.
const READERS_MAX: usize = 4;

/// The connections, opened as they are needed.
pub(crate) struct Readers {
    database: Database,
    clock: Clock,
    room: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(crate) fn new(database: Database, clock: Clock) -> Self {
        Readers { database, clock, room: Arc::new(Semaphore::new(READERS_MAX)), idle: Arc::default() }
    }

    /// Reads. `work` is given the clock, ms since 1970.
    ///
    /// # Errors
    /// Retry when the disk fails; Fatal when the file cannot be used.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, i64) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        let ended = |why: &str| Error::fatal(&*self.database.who, why);
        let room = self.room.clone().acquire_owned().await.map_err(|_| ended("is closed"))?;
        let (database, idle, now_ms) = (self.database.clone(), self.idle.clone(), (self.clock)());
        let read = move || {
            // Held until the thread is done, also when nobody waits for it any more.
            let _room = room;
            let connection = match pop(&idle) {
                Some(connection) => connection,
                None => open(&database)?,
            };
            let done = work(&connection, now_ms);
            idle.lock().expect("invariant: nothing panics with the lock").push(connection);
            done
        };
        let done = tokio::task::spawn_blocking(read).await.map_err(|_| ended("a read was cut off"))?;
        done.map_err(|failure| self.database.error(failure))
    }
}

fn pop(idle: &Mutex<Vec<Connection>>) -> Option<Connection> {
    idle.lock().expect("invariant: nothing panics with the lock").pop()
}

fn open(database: &Database) -> Result<Connection, Failure> {
    let gone = || Failure::new(Class::Fatal, "the file is gone");
    database.open_reader()?.ok_or_else(gone)
}
