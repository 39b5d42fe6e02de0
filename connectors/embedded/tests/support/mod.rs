//! A folder with one of its two files, for what a machine leaves that has lost the other.

use std::path::Path;

use rusqlite::Connection;
use tempfile::TempDir;

/// A new folder with a copy of one file of that folder. A file is not deleted beneath a broker: its threads may still
/// be ending, and would remove the write-ahead log of the file that takes its place.
pub fn folder_with(file: &str, of: &Path) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join(file);
    let original = Connection::open(of.join(file)).expect("the file");
    original.execute("VACUUM INTO ?", (copy.to_str().expect("a path in UTF-8"),)).expect("a copy");
    folder
}
