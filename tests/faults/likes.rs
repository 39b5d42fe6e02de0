//! Likes by the thousand, counted per author in Redis and copied to a topic: who was counted twice, or not at all, or
//! out of order shows.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{stage::Stage, support::servers::World};

pub const TOPIC: &str = "likes";
pub const PIPELINE: &str = "counted";
const COPIES: &str = "copies";
const AUTHORS: u64 = 50;

/// The pipeline.
pub fn pipelines(prefix: &str, partitions: u32) -> String {
    format!(
        r#"version: 1
brokers:
  main:
    kafka: {{ bootstrap: "${{KAFKA_BROKERS}}", group_prefix: "{prefix}", heartbeat: 200ms, session_timeout: 6s, transaction_timeout: 5s }}
    breaker: {{ open_for: 200ms, open_for_max: 500ms }}
stores:
  counters: {{ redis: {{ url: "${{REDIS_URL}}" }}, breaker: {{ open_for: 200ms, open_for_max: 500ms }} }}
topics:
  {prefix}{TOPIC}: {{ broker: main, partitions: {partitions} }}
  {prefix}{COPIES}: {{ broker: main, partitions: {partitions} }}
pipelines:
  {PIPELINE}:
    from: {{ topic: {prefix}{TOPIC} }}
    retry: {{ initial: 50ms, max: 500ms }}
    send_timeout: 2500ms
    drain_timeout: 2500ms
    to:
      unread: {{ counter: {{ store: counters, key: "unread:{{payload.author_id}}" }} }}
      copies: {{ topic: {{ topic: {prefix}{COPIES} }} }}
"#
    )
}

pub fn author(number: u64) -> String {
    format!("a{}", number * 7 % AUTHORS)
}

/// The number-th like.
pub fn line(number: u64) -> String {
    let author = author(number);
    json!({ "eventId": format!("l{number}"), "eventType": "social.post.liked.v1", "bizId": author,
        "occurredAt": "2023-11-14T22:13:20Z", "source": "test", "correlationId": "c",
        "payload": { "author_id": author, "number": number } })
    .to_string()
}

/// Everybody who may be liked.
pub fn authors() -> impl Iterator<Item = String> {
    (0..AUTHORS).map(author)
}

/// Likes 0 to `count` were each counted once, and copied once in the order of their author.
pub fn check(stage: &Stage, count: u64) {
    let mut due: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for number in 0..count {
        due.entry(author(number)).or_default().push(number);
    }
    let mut world = stage.world();
    for (author, numbers) in &due {
        assert_eq!(world.unread(author), Some(numbers.len() as i64), "likes of {author}");
    }
    let mut copies: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (author, value) in stage.kafka.read(&stage.topic(COPIES)) {
        let event: Value = serde_json::from_str(&value).expect("an event");
        copies.entry(author).or_default().push(event["payload"]["number"].as_u64().expect("a number"));
    }
    for (author, numbers) in &due {
        let copies = copies.remove(author).unwrap_or_default();
        assert!(
            copies == *numbers,
            "{author}: {} copies of {}, or not in order",
            copies.len(),
            numbers.len()
        );
    }
    assert!(copies.is_empty(), "copies of what was never appended");
}
