//! The lock that lets one process run pipelines on a folder. The operating system holds it, so that it is free
//! the moment its process ends, however it ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
};

use millrace_core::{Error, Result};

/// Held while this process runs pipelines on the folder; released when dropped.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
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
        let path = folder.join("run.lock");
        let who = format!("embedded log {}", folder.display());
        let failed = |what: &str, error: std::io::Error| Error::fatal(&who, what).with_source(error);
        std::fs::create_dir_all(folder).map_err(|e| failed("its folder cannot be made", e))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| failed("run.lock cannot be opened", e))?;
        match file.try_lock() {
            Ok(()) => {
                let written = file
                    .set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| writeln!(file, "{}", std::process::id()));
                written.map_err(|e| failed("run.lock cannot be written", e))?;
                Ok(RunLock { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                let pid = held_by(&mut file);
                let holder = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                Err(Error::fatal(who, format!("{holder} runs pipelines on it already"))
                    .with_source(AlreadyRunning { pid }))
            }
            Err(TryLockError::Error(error)) => Err(failed("run.lock cannot be locked", error)),
        }
    }
}

fn held_by(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
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
