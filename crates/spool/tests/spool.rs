//! What a spool keeps, whatever happens to its process, its disk and its file.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
};

use millrace_core::Class;
use millrace_spool::{Entry, Options, Spool};
use proptest::prelude::*;
use rusqlite::Connection;

const ROOM: u64 = 1 << 20;

fn options(folder: &Path, bytes_max: u64) -> Options {
    Options { folder: folder.join("spool"), subject: "topic t".into(), bytes_max }
}

fn open(folder: &Path) -> Spool {
    Spool::open(options(folder, ROOM)).unwrap()
}

fn entry(number: usize) -> Entry {
    Entry {
        key: (!number.is_multiple_of(3)).then(|| format!("k{}", number % 3).into()),
        value: format!("value {number}").into(),
        origin: format!("f:{number}"),
    }
}

fn entries(numbers: std::ops::Range<usize>) -> Vec<Entry> {
    numbers.map(entry).collect()
}

fn all(spool: &Spool) -> Vec<Entry> {
    spool.peek(usize::MAX, u64::MAX).unwrap()
}

/// The files of the spool as a killed process leaves them, in a folder of their own.
fn copied(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("spool")).unwrap();
    for file in fs::read_dir(folder.join("spool")).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, copy.path().join("spool").join(path.file_name().unwrap())).unwrap();
    }
    copy
}

fn file(folder: &Path) -> PathBuf {
    folder.join("spool/spool.db")
}

#[test]
fn keeps_order_over_restarts_and_hands_out_the_oldest() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    assert!(spool.is_empty() && all(&spool).is_empty());
    assert_eq!(spool.append(&entries(0..5)).unwrap(), 5);
    drop(spool);
    let mut spool = open(folder.path());
    assert_eq!(spool.append(&entries(5..7)).unwrap(), 2);
    assert_eq!(spool.peek(3, u64::MAX).unwrap(), entries(0..3));
    assert_eq!(spool.peek(9, 1).unwrap(), entries(0..1));
    spool.advance(3).unwrap();
    drop(spool);
    let mut spool = open(folder.path());
    assert_eq!((spool.len(), all(&spool)), (4, entries(3..7)));
    spool.advance(100).unwrap();
    assert_eq!((spool.len(), spool.size_bytes()), (0, 0));
}

#[test]
fn what_was_acknowledged_is_in_the_file_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    for number in 0..20 {
        spool.append(&entries(number..number + 1)).unwrap();
        let copy = copied(folder.path());
        // A crash may leave anything at all of an append that had not returned.
        fs::write(copy.path().join("spool/spool.db-wal"), [7; 5_000]).unwrap();
        assert_eq!(all(&open(copy.path())), entries(0..number + 1));
    }
}

#[test]
fn refuses_what_is_over_the_bound_and_takes_it_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let each = entry(1).size_bytes();
    let mut spool = Spool::open(options(folder.path(), 3 * each)).unwrap();
    assert_eq!(spool.append(&vec![entry(1); 5]).unwrap(), 3);
    assert_eq!(spool.append(&[entry(1)]).unwrap(), 0);
    assert_eq!((spool.len(), spool.size_bytes()), (3, 3 * each));
    spool.advance(1).unwrap();
    assert_eq!(spool.append(&[entry(1), entry(1)]).unwrap(), 1);
    let large = Entry { value: vec![0; 1_000].into(), ..entry(1) };
    assert_eq!(spool.append(&[large]).unwrap_err().class(), Class::Reject);
}

#[test]
fn a_damaged_record_is_named_and_nothing_is_skipped() {
    for damage in [
        "UPDATE records SET value = CAST('x' AS BLOB) WHERE place = 2",
        "UPDATE records SET key = NULL WHERE place = 2",
        "UPDATE records SET origin = 'elsewhere' WHERE place = 2",
        "UPDATE records SET sum = -1 WHERE place = 2",
    ] {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).append(&entries(0..4)).unwrap();
        Connection::open(file(folder.path())).unwrap().execute_batch(damage).unwrap();
        let error = open(folder.path()).peek(10, u64::MAX).unwrap_err();
        assert_eq!(error.class(), Class::Fatal, "{damage}");
        assert!(error.why().contains("record 3 of 4 is damaged (place 2"), "{damage}: {error}");
    }
}

#[test]
fn a_flipped_byte_of_a_value_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).append(&entries(0..4)).unwrap();
    let mut bytes = fs::read(file(folder.path())).unwrap();
    let at = bytes.windows(7).position(|window| window == b"value 2").unwrap();
    bytes[at] ^= 1;
    fs::write(file(folder.path()), bytes).unwrap();
    let error = open(folder.path()).peek(10, u64::MAX).unwrap_err();
    assert!(error.why().contains("record 3 of 4 is damaged"), "{error}");
}

#[test]
fn a_lost_record_is_noticed_wherever_it_was() {
    for place in [0, 2, 3] {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).append(&entries(0..4)).unwrap();
        let connection = Connection::open(file(folder.path())).unwrap();
        connection.execute("DELETE FROM records WHERE place = ?", (place,)).unwrap();
        drop(connection);
        let error = Spool::open(options(folder.path(), ROOM)).unwrap_err();
        assert_eq!(error.class(), Class::Fatal);
        assert!(error.why().contains("4 records must wait in it, but 3 are there"), "{error}");
    }
}

#[test]
fn a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).append(&entries(0..1)).unwrap();
    let connection = Connection::open(file(folder.path())).unwrap();
    connection.execute("UPDATE millrace_format SET format = 2", ()).unwrap();
    drop(connection);
    let error = Spool::open(options(folder.path(), ROOM)).unwrap_err();
    assert_eq!(error.class(), Class::Fatal);
    assert!(error.why().contains("has format 2 of its spool"), "{error}");
}

#[test]
fn one_process_has_it_and_one_subject() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path());
    let second = Spool::open(options(folder.path(), ROOM)).unwrap_err();
    assert_eq!(second.class(), Class::Retry);
    assert!(second.why().contains(&format!("process {} uses it", std::process::id())), "{second}");
    spool.append(&entries(0..1)).unwrap();
    drop(spool);
    let other = Options { subject: "topic u".into(), ..options(folder.path(), ROOM) };
    let error = Spool::open(other.clone()).unwrap_err();
    assert_eq!(error.class(), Class::Reject);
    assert!(error.why().contains("records wait in it for topic t, not for topic u"), "{error}");
    open(folder.path()).advance(1).unwrap();
    Spool::open(other).unwrap().append(&entries(0..1)).unwrap();
}

#[test]
fn an_emptied_file_gives_its_room_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(options(folder.path(), 64 << 20)).unwrap();
    let large = Entry { value: vec![7; 1 << 20].into(), ..entry(1) };
    spool.append(&vec![large; 12]).unwrap();
    assert!(fs::metadata(file(folder.path())).unwrap().len() > 12 << 20);
    spool.advance(12).unwrap();
    assert!(fs::metadata(file(folder.path())).unwrap().len() < 1 << 20);
}

#[test]
fn what_is_set_aside_can_be_produced_again() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(options(folder.path(), 20)).unwrap();
    spool.set_aside(&entry(1)).unwrap();
    assert_eq!(fs::read_to_string(spool.refused()).unwrap(), "value 1\n");
    assert_eq!(
        spool.set_aside(&Entry { value: vec![0; 20].into(), ..entry(2) }).unwrap_err().class(),
        Class::Retry
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Appends, removals and restarts against a queue in memory.
    #[test]
    fn is_a_queue(steps in proptest::collection::vec((0..3u8, 0..6usize), 1..20)) {
        let folder = tempfile::tempdir().unwrap();
        let bytes_max = 12 * entry(1).size_bytes();
        let mut spool = Some(Spool::open(options(folder.path(), bytes_max)).unwrap());
        let mut model = VecDeque::new();
        let mut number = 0;
        for (what, count) in steps {
            let open = spool.as_mut().unwrap();
            match what {
                0 => {
                    let taken = open.append(&entries(number..number + count)).unwrap();
                    model.extend(entries(number..number + taken));
                    number += taken;
                }
                1 => {
                    open.advance(count).unwrap();
                    model.drain(..count.min(model.len()));
                }
                _ => {
                    drop(spool.take());
                    spool = Some(Spool::open(options(folder.path(), bytes_max)).unwrap());
                }
            }
            let open = spool.as_ref().unwrap();
            prop_assert_eq!(all(open), Vec::from(model.clone()));
            prop_assert_eq!(open.size_bytes(), model.iter().map(Entry::size_bytes).sum::<u64>());
        }
    }
}
