//! What a folder keeps: through crashes, in a newer format, after a file was deleted, beyond retention.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use millrace_core::{
    Broker, Class, CreateOutcome, Error, NewRecord, PartitionSpan, Source, SourceEvent, Start, Subscription,
    TopicPartition, TopicSpec,
};
use millrace_embedded::{EmbeddedBroker, EmbeddedSettings};
use rusqlite::Connection;
use tokio::time::{Duration, timeout};

use self::support::folder_with;

mod support;

const PATIENCE: Duration = Duration::from_secs(30);

fn broker(folder: &Path) -> EmbeddedBroker {
    EmbeddedBroker::new(EmbeddedSettings { dir: folder.to_owned() })
}

fn spec(name: &str) -> TopicSpec {
    TopicSpec {
        name: name.into(),
        partitions: 1,
        retention_ms: None,
        retention_bytes: None,
        record_bytes_max: 1 << 20,
        replication: None,
        compact: false,
    }
}

fn group(topic: &str) -> Subscription {
    Subscription {
        topic: topic.into(),
        group: Some("g".into()),
        partitions: None,
        start: Start::Beginning,
        prefetch_bytes_max: 1 << 20,
        batch_records_max: 100,
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<NewRecord> {
    range.map(|n| NewRecord { value: Some(n.to_string().into()), ..NewRecord::default() }).collect()
}

async fn append(broker: &EmbeddedBroker, topic: &str, records: Vec<NewRecord>) -> Vec<i64> {
    let producer = broker.producer().await.expect("a producer");
    let answers = producer.send(topic, records).await;
    answers.into_iter().map(|answer| answer.expect("appended").offset).collect()
}

async fn next(source: &mut dyn Source) -> SourceEvent {
    let event = timeout(PATIENCE, source.next()).await.expect("an event in time");
    event.expect("a source that works").expect("a source that goes on")
}

/// Offsets up to the first end that is told.
async fn read_to_end(source: &mut dyn Source) -> Vec<i64> {
    let mut offsets = Vec::new();
    loop {
        match next(source).await {
            SourceEvent::Batch(batch) => offsets.extend(batch.records.iter().map(|record| record.offset)),
            SourceEvent::CaughtUp { .. } => return offsets,
            SourceEvent::Assigned(_) | SourceEvent::Revoked { .. } | SourceEvent::Gap { .. } => {}
        }
    }
}

async fn span(broker: &EmbeddedBroker, topic: &str) -> PartitionSpan {
    broker.admin().topic(topic).await.expect("a look").expect("the topic").partitions[&0]
}

fn zero(topic: &str) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition: 0 }
}

/// A process that dies closes nothing: its files are copied while it has them open.
#[tokio::test]
async fn what_was_acknowledged_survives_a_crash() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = broker(folder.path());
    first.admin().create_topic(&spec("t")).await.expect("created");
    append(&first, "t", numbers(0..250)).await;
    let mut source = first.subscribe(group("t")).await.expect("a source");
    assert_eq!(read_to_end(&mut *source).await.len(), 250);
    source.control().commit(&[(zero("t"), 100)]).await.expect("committed");

    let after = tempfile::tempdir().expect("a folder");
    for file in std::fs::read_dir(folder.path()).expect("a list").flatten() {
        std::fs::copy(file.path(), after.path().join(file.file_name())).expect("copied");
    }
    let second = broker(after.path());
    assert_eq!(span(&second, "t").await, PartitionSpan { start: 0, end: 250 });
    let mut source = second.subscribe(group("t")).await.expect("a source");
    assert_eq!(read_to_end(&mut *source).await, (100..250).collect::<Vec<_>>());
    assert_eq!(append(&second, "t", numbers(0..2)).await, [250, 251]);
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = broker(folder.path());
    first.admin().create_topic(&spec("t")).await.expect("created");
    drop(first);
    let log = Connection::open(folder.path().join("log.db")).expect("the log");
    log.execute("UPDATE millrace_format SET format = 9 WHERE part = 'log'", ()).expect("a newer format");
    let second = broker(folder.path());
    let errors: [Error; 3] = [
        second.admin().topics().await.expect_err("refused"),
        second.admin().create_topic(&spec("u")).await.expect_err("refused"),
        second.producer().await.expect("lazy").send("t", numbers(0..1)).await.remove(0).expect_err("refused"),
    ];
    for error in errors {
        assert_eq!(error.class(), Class::Fatal);
        assert!(error.to_string().contains("format 9"), "{error}");
    }
}

/// Views and progress are one file: without it everything is read again.
#[tokio::test]
async fn without_its_views_a_folder_is_read_from_the_beginning() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = broker(folder.path());
    first.admin().create_topic(&spec("t")).await.expect("created");
    append(&first, "t", numbers(0..5)).await;
    let mut source = first.subscribe(group("t")).await.expect("a source");
    read_to_end(&mut *source).await;
    source.control().commit(&[(zero("t"), 5)]).await.expect("committed");
    let other = folder_with("log.db", folder.path());
    let second = broker(other.path());
    assert_eq!(second.admin().progress("g", "t").await.expect("progress"), BTreeMap::new());
    let mut source = second.subscribe(group("t")).await.expect("a source");
    assert_eq!(read_to_end(&mut *source).await, [0, 1, 2, 3, 4]);
}

/// Progress of a log that is gone would skip the records of the new one.
#[tokio::test]
async fn progress_of_another_log_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = broker(folder.path());
    first.admin().create_topic(&spec("t")).await.expect("created");
    append(&first, "t", numbers(0..5)).await;
    let source = first.subscribe(group("t")).await.expect("a source");
    source.control().commit(&[(zero("t"), 5)]).await.expect("committed");
    let other = folder_with("views.db", folder.path());
    let second = broker(other.path());
    second.admin().create_topic(&spec("t")).await.expect("created");
    append(&second, "t", numbers(0..50)).await;
    let error = second.subscribe(group("t")).await.err().expect("refused");
    assert_eq!(error.class(), Class::Fatal);
    assert!(error.to_string().contains("another log.db"), "{error}");
}

#[tokio::test]
async fn a_group_has_one_member_per_topic() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = broker(folder.path());
    for topic in ["t", "u"] {
        broker.admin().create_topic(&spec(topic)).await.expect("created");
    }
    let first = broker.subscribe(group("t")).await.expect("a source");
    let error = broker.subscribe(group("t")).await.err().expect("refused");
    assert_eq!(error.class(), Class::Fatal);
    assert!(error.to_string().contains("another member of group g"), "{error}");
    broker.subscribe(group("u")).await.expect("another topic");
    let control = first.control();
    drop(first);
    let second = broker.subscribe(group("t")).await.expect("free again");
    second.control().commit(&[(zero("t"), 0)]).await.expect("committed");
    control.commit(&[(zero("t"), 7)]).await.expect("ignored");
    assert_eq!(broker.admin().progress("g", "t").await.expect("progress"), BTreeMap::from([(0, 0)]));
}

/// Bytes bound a partition at every append; offsets never go back, also when nothing is left.
#[tokio::test]
async fn old_records_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = Arc::new(AtomicI64::new(1_000_000));
    let clock = now.clone();
    let settings = EmbeddedSettings { dir: folder.path().to_owned() };
    let broker = EmbeddedBroker::with_clock(settings, Arc::new(move || clock.load(Ordering::Relaxed)));
    let by_bytes = TopicSpec { retention_bytes: Some(1_000), ..spec("bytes") };
    let by_age = TopicSpec { retention_ms: Some(60_000), ..spec("age") };
    for spec in [&by_bytes, &by_age] {
        assert_eq!(broker.admin().create_topic(spec).await.expect("created"), CreateOutcome::Created);
    }
    let hundred = || NewRecord { value: Some(vec![7; 100].into()), ..NewRecord::default() };
    for _ in 0..20 {
        append(&broker, "bytes", vec![hundred(); 10]).await;
    }
    assert_eq!(span(&broker, "bytes").await, PartitionSpan { start: 190, end: 200 });

    append(&broker, "age", numbers(0..10)).await;
    now.fetch_add(50_000, Ordering::Relaxed);
    append(&broker, "age", numbers(0..10)).await;
    now.fetch_add(50_000, Ordering::Relaxed);
    append(&broker, "age", numbers(0..1)).await;
    assert_eq!(span(&broker, "age").await, PartitionSpan { start: 10, end: 21 });
    // Without appends the writer does it when it is idle.
    now.fetch_add(100_000, Ordering::Relaxed);
    let emptied = async {
        while span(&broker, "age").await.start < 21 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, emptied).await.expect("the idle writer removes what is too old");
    assert_eq!(append(&broker, "age", numbers(0..1)).await, [21]);
}

/// Records that cannot all be stored are not stored in part.
#[tokio::test]
async fn a_failed_append_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = broker(folder.path());
    broker.admin().create_topic(&spec("t")).await.expect("created");
    append(&broker, "t", numbers(0..3)).await;
    let log = Connection::open(folder.path().join("log.db")).expect("the log");
    // Stands for a disk that fails in the middle of a send.
    log.execute_batch(
        "CREATE TRIGGER full BEFORE INSERT ON records_1 WHEN new.value = CAST('13' AS BLOB)
         BEGIN SELECT raise(ABORT, 'no space'); END",
    )
    .expect("a trigger");
    let producer = broker.producer().await.expect("a producer");
    let answers = producer.send("t", numbers(10..20)).await;
    assert_eq!(answers.len(), 10);
    assert!(answers.iter().all(Result::is_err));
    assert_eq!(span(&broker, "t").await, PartitionSpan { start: 0, end: 3 });
    log.execute_batch("DROP TRIGGER full").expect("the disk is well again");
    assert_eq!(append(&broker, "t", numbers(10..20)).await, (3..13).collect::<Vec<_>>());
}

#[tokio::test]
async fn names_and_sizes_of_topics_are_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = broker(folder.path());
    let wrong = [
        spec(""),
        spec("a b"),
        spec("x\"; DROP TABLE topics; --"),
        spec(&"x".repeat(250)),
        TopicSpec { partitions: 0, ..spec("t") },
        TopicSpec { partitions: 1_000_000, ..spec("t") },
        TopicSpec { record_bytes_max: usize::MAX, ..spec("t") },
    ];
    for spec in wrong {
        let error = broker.admin().create_topic(&spec).await.expect_err("refused");
        assert_eq!(error.class(), Class::Fatal, "{error}");
    }
    assert!(broker.admin().topics().await.expect("a list").is_empty());
}

/// A compacted topic holds one record a key, and a tombstone for a day.
#[tokio::test]
async fn superseded_records_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = Arc::new(AtomicI64::new(1_000_000));
    let clock = now.clone();
    let settings = EmbeddedSettings { dir: folder.path().to_owned() };
    let broker = EmbeddedBroker::with_clock(settings, Arc::new(move || clock.load(Ordering::Relaxed)));
    broker.admin().create_topic(&TopicSpec { compact: true, ..spec("c") }).await.expect("created");
    let keyed = |key: &str, value: Option<&str>| NewRecord {
        key: Some(key.to_owned().into()),
        value: value.map(|value| value.to_owned().into()),
        ..NewRecord::default()
    };
    let log = Connection::open(folder.path().join("log.db")).expect("the log");
    let held = || {
        let sql =
            "SELECT group_concat(key || '=' || ifnull(value, '-'), ',' ORDER BY \"offset\") FROM \"topic/c\"";
        log.query_row(sql, (), |row| row.get::<_, Option<String>>(0)).expect("a list")
    };
    let bytes =
        || log.query_row("SELECT bytes FROM partitions", (), |row| row.get::<_, i64>(0)).expect("bytes");
    for round in ["1", "2", "3"] {
        append(&broker, "c", vec![keyed("a", Some(round)), keyed("b", Some(round))]).await;
    }
    assert_eq!((held().as_deref(), bytes()), (Some("a=3,b=3"), 4));
    append(&broker, "c", vec![keyed("b", None)]).await;
    assert_eq!((held().as_deref(), bytes()), (Some("a=3,b=-"), 3));

    now.fetch_add(86_400_001, Ordering::Relaxed);
    let gone = async {
        while bytes() > 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the idle writer removes old tombstones");
    // The end is told although the last records are gone.
    let mut source = broker.subscribe(Subscription { group: None, ..group("c") }).await.expect("a source");
    let mut values = Vec::new();
    loop {
        match next(&mut *source).await {
            SourceEvent::Batch(batch) => values.extend(batch.records.into_iter().map(|r| r.offset)),
            SourceEvent::CaughtUp { next_offset, .. } => {
                assert_eq!((values, next_offset), (vec![4], 7));
                break;
            }
            _ => {}
        }
    }
}
