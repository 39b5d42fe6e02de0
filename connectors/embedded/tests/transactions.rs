//! Transactions of the embedded log: the suite, and what a crash between its two files leaves.

use std::path::Path;

use millrace_core::{
    Broker, CommitOutcome, NewRecord, Record, Source, SourceEvent, Start, States, Subscription, TopicSpec,
    Transactor,
};
use millrace_embedded::{EmbeddedBroker, EmbeddedSettings};
use millrace_testkit::transaction_suite::{self, Rig};
use rusqlite::Connection;
use tokio::time::{Duration, timeout};

use self::support::folder_with;

mod support;

const PATIENCE: Duration = Duration::from_secs(30);

fn broker(folder: &Path) -> EmbeddedBroker {
    EmbeddedBroker::new(EmbeddedSettings { dir: folder.to_owned() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_suite() {
    let folder = tempfile::tempdir().expect("a folder");
    transaction_suite::run(Rig { broker: &broker(folder.path()), prefix: "suite" }).await;
}

async fn topics(broker: &EmbeddedBroker) {
    for name in ["in", "out"] {
        let spec = TopicSpec {
            name: name.into(),
            partitions: 1,
            retention_ms: None,
            retention_bytes: None,
            record_bytes_max: 2 << 20,
            replication: None,
            compact: false,
        };
        broker.admin().create_topic(&spec).await.expect("a topic");
    }
    let records = (0..9).map(|n| numbered(n, "in")).collect();
    let producer = broker.producer().await.expect("a producer");
    assert!(producer.send("in", records).await.iter().all(Result::is_ok));
}

fn numbered(offset: i64, text: &str) -> NewRecord {
    let value = Some(format!("{offset} {text}").into());
    NewRecord { value, source_offset: Some(offset), ..NewRecord::default() }
}

fn subscription(topic: &str, group: Option<&str>) -> Subscription {
    Subscription {
        topic: topic.into(),
        group: group.map(str::to_owned),
        partitions: None,
        start: Start::Beginning,
        prefetch_bytes_max: 4 << 20,
        batch_records_max: 100,
    }
}

async fn next(source: &mut dyn Source) -> SourceEvent {
    let event = timeout(PATIENCE, source.next()).await.expect("an event in time");
    event.expect("a source that works").expect("a source that goes on")
}

/// A worker's place: its source, its transactor, and where it starts.
async fn worker(broker: &EmbeddedBroker) -> (Box<dyn Source>, std::sync::Arc<dyn Transactor>, i64, States) {
    let mut source = broker.subscribe(subscription("in", Some("g"))).await.expect("a source");
    let SourceEvent::Assigned(all) = next(&mut *source).await else { unreachable!("assigned comes first") };
    let transactor = source.control().transactor(&all[0]).expect("a group has one");
    let states = transactor.restore().await.expect("states");
    (source, transactor, all[0].next_offset, states)
}

async fn append(transactor: &dyn Transactor, offsets: std::ops::Range<i64>, text: &str) {
    let records = offsets.map(|offset| numbered(offset, text)).collect();
    assert!(transactor.send("out", records).await.iter().all(Result::is_ok));
}

async fn commit(transactor: &dyn Transactor, next_offset: i64, sum: &'static str) {
    let states = States::from([("sum".into(), sum.into())]);
    let outcome = transactor.commit(next_offset, &states).await.expect("an answer");
    assert!(matches!(outcome, CommitOutcome::Committed));
}

async fn outputs(broker: &EmbeddedBroker) -> Vec<String> {
    let mut source = broker.subscribe(subscription("out", None)).await.expect("a source");
    let mut values = Vec::new();
    let text = |record: &Record| String::from_utf8_lossy(record.value.as_deref().unwrap_or(b"")).into_owned();
    loop {
        match next(&mut *source).await {
            SourceEvent::Batch(batch) => values.extend(batch.records.iter().map(text)),
            SourceEvent::CaughtUp { .. } => return values,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_that_are_ahead_of_progress_are_not_repeated() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = broker(folder.path());
    topics(&first).await;
    let (source, transactor, ..) = worker(&first).await;
    append(&*transactor, 0..2, "a").await;
    commit(&*transactor, 2, "2").await;
    append(&*transactor, 2..5, "a").await;
    commit(&*transactor, 5, "5").await;
    drop((source, transactor, first));
    // The machine has lost the last transaction of the one file, and not that of the other.
    let views = Connection::open(folder.path().join("views.db")).expect("the views' file");
    views
        .execute_batch("UPDATE progress SET next_offset = 2; UPDATE states SET state = CAST('2' AS BLOB)")
        .expect("an older state");
    let second = broker(folder.path());
    let (source, transactor, start, states) = worker(&second).await;
    assert_eq!((start, states), (2, States::from([("sum".into(), "2".into())])));
    // A batch with another end than the first time.
    append(&*transactor, 2..9, "b").await;
    commit(&*transactor, 9, "9").await;
    drop((source, transactor));
    let wanted = ["0 a", "1 a", "2 a", "3 a", "4 a", "5 b", "6 b", "7 b", "8 b"];
    assert_eq!(outputs(&second).await, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_built_anew_do_not_repeat_outputs() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = broker(folder.path());
    topics(&first).await;
    let (source, transactor, ..) = worker(&first).await;
    append(&*transactor, 0..9, "a").await;
    commit(&*transactor, 9, "9").await;
    drop((source, transactor, first));
    let other = folder_with("log.db", folder.path());
    let second = broker(other.path());
    let (_source, transactor, start, states) = worker(&second).await;
    assert_eq!((start, states), (0, States::new()));
    append(&*transactor, 0..9, "b").await;
    commit(&*transactor, 9, "9").await;
    assert_eq!(outputs(&second).await.len(), 9);
}
