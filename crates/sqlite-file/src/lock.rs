//! A lock on a folder, by a file in it. The operating system holds it, so that it is free the moment its process
//! ends, however it ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::Path,
};

/// Held by this process; released when dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

/// Why a lock was not taken.
#[derive(Debug)]
pub enum NotLocked {
    /// Another process has it.
    Held {
        /// Its process id, if it could be read.
        pid: Option<u32>,
    },
    /// The file cannot be used.
    Failed {
        /// What could not be done.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
}

impl FileLock {
    /// Takes the lock without waiting. Makes the file and its folder where they are missing; the file names the
    /// process that has the lock.
    ///
    /// # Errors
    /// See [`NotLocked`].
    pub fn take(path: &Path) -> Result<Self, NotLocked> {
        let failed = |what| move |error| NotLocked::Failed { what, error };
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(failed("its folder cannot be made"))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed("its lock file cannot be opened"))?;
        match file.try_lock() {
            Ok(()) => {
                let written = file
                    .set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| writeln!(file, "{}", std::process::id()));
                written.map_err(failed("its lock file cannot be written"))?;
                Ok(FileLock { _file: file })
            }
            Err(TryLockError::WouldBlock) => Err(NotLocked::Held { pid: held_by(&mut file) }),
            Err(TryLockError::Error(error)) => Err(failed("its lock file cannot be locked")(error)),
        }
    }
}

fn held_by(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
