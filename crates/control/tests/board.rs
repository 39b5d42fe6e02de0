//! A board on a log in memory: what one writes the others see, in the order of the log.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use millrace_control::{Board, PauseEntry, pause_key};
use millrace_core::{Admin, Broker, Class, NewRecord, Producer, TopicSpec};
use millrace_testkit::memory::MemoryBroker;
use serde_json::{Value, json};

const TOPIC: &str = "millrace.control";

fn pause(reason: &str) -> Value {
    json!({ "by": "operator", "reason": reason, "since_ms": 1 })
}

async fn opened(broker: &MemoryBroker) -> Board {
    Board::open(broker, TOPIC).await.unwrap()
}

fn reason(board: &Board, pipeline: &str) -> Option<String> {
    Some(board.get(&pause_key(pipeline))?.read::<PauseEntry>().unwrap().reason)
}

#[tokio::test]
async fn what_one_writes_all_see() {
    let broker = MemoryBroker::default();
    let one = opened(&broker).await;
    one.put(&[(pause_key("a"), Some(pause("first"))), (pause_key("b"), Some(pause("b")))]).await.unwrap();
    assert_eq!(reason(&one, "a").as_deref(), Some("first"), "the writer sees it at once");
    // One that comes later reads it whole, one that was there follows.
    let two = opened(&broker).await;
    assert_eq!(reason(&two, "a").as_deref(), Some("first"));
    let mut changes = one.changes();
    two.put(&[(pause_key("a"), None), (pause_key("b"), Some(pause("newer")))]).await.unwrap();
    while one.get(&pause_key("a")).is_some() || reason(&one, "b").as_deref() != Some("newer") {
        changes.changed().await.unwrap();
    }
    let entries = Board::look(&broker, TOPIC).await.unwrap();
    assert_eq!(entries.keys().collect::<Vec<_>>(), ["pause/b"]);
    assert_eq!(broker.records(TOPIC).len(), 2, "the topic is compacted");
}

#[tokio::test]
async fn a_look_makes_no_topic() {
    let broker = MemoryBroker::default();
    assert!(Board::look(&broker, TOPIC).await.unwrap().is_empty());
    assert_eq!(broker.admin().topic(TOPIC).await.unwrap(), None);
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let broker = MemoryBroker::default();
    let board = opened(&broker).await;
    let newer = json!({ "format": 2, "entry": { "held": true } }).to_string();
    let record = |key: &str, value: &str| NewRecord {
        key: Some(key.to_owned().into()),
        value: Some(value.to_owned().into()),
        ..NewRecord::default()
    };
    let foreign = vec![record("pause/a", &newer), record("pause/b", "no json"), record("future/x", "1")];
    for answer in broker.send(TOPIC, foreign).await {
        answer.unwrap();
    }
    let mut changes = board.changes();
    while board.entries().len() < 3 {
        changes.changed().await.unwrap();
    }
    let error = board.get("pause/a").unwrap().read::<PauseEntry>().unwrap_err();
    assert_eq!(error.class(), Class::Fatal);
    assert!(error.chain().contains("format 2"), "{}", error.chain());
    assert!(board.get("pause/b").unwrap().read::<PauseEntry>().is_err());
    let error = board.put(&[(pause_key("a"), None)]).await.unwrap_err();
    assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
    assert_eq!(broker.records(TOPIC)[0].value.as_deref(), Some(newer.as_bytes()));
}

/// A topic that somebody made with several partitions serves as well.
#[tokio::test]
async fn partitions_are_read_whole() {
    let broker = MemoryBroker::default();
    let spec = TopicSpec {
        name: TOPIC.into(),
        partitions: 4,
        retention_ms: None,
        retention_bytes: None,
        record_bytes_max: 1 << 20,
        replication: None,
        compact: true,
    };
    broker.create_topic(&spec).await.unwrap();
    let keys: Vec<String> = (0..20).map(|number| pause_key(&number.to_string())).collect();
    let entries: Vec<_> = keys.iter().map(|key| (key.clone(), Some(pause("x")))).collect();
    opened(&broker).await.put(&entries).await.unwrap();
    let broker: Arc<dyn Broker> = Arc::new(broker);
    let board = Board::open(&*broker, TOPIC).await.unwrap();
    assert_eq!(board.entries().len(), 20);
}
