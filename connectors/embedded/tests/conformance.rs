//! The embedded log passes the suite of all brokers.

use std::{future::Future, pin::Pin};

use millrace_core::TopicPartition;
use millrace_embedded::{EmbeddedBroker, EmbeddedSettings};
use millrace_testkit::broker_suite::{self, Rig};
use rusqlite::Connection;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_suite() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = EmbeddedBroker::new(EmbeddedSettings { dir: folder.path().to_owned() });
    let path = folder.path().join("log.db");
    let discard = move |partition: TopicPartition, below: i64| {
        let log = Connection::open(&path).expect("the log");
        cut(&log, &partition, below).expect("the head is cut off");
        Box::pin(async {}) as Pin<Box<dyn Future<Output = ()> + Send>>
    };
    broker_suite::run(Rig { broker: &broker, discard: &discard, prefix: "suite" }).await;
}

/// What retention does, at an offset of the test's choice.
fn cut(log: &Connection, partition: &TopicPartition, below: i64) -> rusqlite::Result<()> {
    let id: i64 =
        log.query_row("SELECT id FROM topics WHERE name = ?", (&*partition.topic,), |row| row.get(0))?;
    let first = i64::from(partition.partition) << 40;
    log.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         DELETE FROM records_{id} WHERE position >= {first} AND position < {};
         UPDATE partitions SET start_offset = {below} WHERE topic = {id} AND partition = {};
         COMMIT",
        first + below,
        partition.partition
    ))
}
