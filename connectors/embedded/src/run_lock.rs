//! The lock that lets one process run pipelines on a folder. The operating system holds it, so that it is free
//! the moment its process ends, however it ends.

use std::path::Path;

use millrace_core::{Error, Result};
use millrace_sqlite_file::{FileLock, NotLocked};

/// Held while this process runs pipelines on the folder; released when dropped.
#[derive(Debug)]
pub struct RunLock {
    _lock: FileLock,
}

/// Another process runs on the folder. In the chain of the error, for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("one process at a time may run pipelines on an embedded log")]
pub struct AlreadyRunning {
    /// Its process id, if it could be read.
    pub pid: Option<u32>,
}

impl RunLock {
    /// Takes the lock of a folder, which is made if it is missing.
    pub(crate) fn take(folder: &Path) -> Result<Self> {
        let who = format!("embedded log {}", folder.display());
        match FileLock::take(&folder.join("run.lock")) {
            Ok(lock) => Ok(RunLock { _lock: lock }),
            Err(NotLocked::Held { pid }) => {
                let holder = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                Err(Error::fatal(who, format!("{holder} runs pipelines on it already"))
                    .with_source(AlreadyRunning { pid }))
            }
            Err(NotLocked::Failed { what, error }) => Err(Error::fatal(who, what).with_source(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::error::Error as _;

    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        // What a process that was killed leaves behind.
        std::fs::write(folder.path().join("run.lock"), "1234567 a stale file, longer than a pid").unwrap();
        let first = RunLock::take(folder.path()).unwrap();
        let error = RunLock::take(folder.path()).unwrap_err();
        let pid = std::process::id();
        assert!(error.to_string().contains(&format!("process {pid} runs")), "{error}");
        let source = error.source().unwrap().downcast_ref::<AlreadyRunning>();
        assert_eq!(source, Some(&AlreadyRunning { pid: Some(pid) }));
        drop(first);
        RunLock::take(folder.path()).unwrap();
    }
}
