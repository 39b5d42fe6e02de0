//! Resident memory stays within what is configured: posts with 10,000 followers, values of 900 KB, 64 partitions and a
//! store that stands still.

use std::time::Duration;

use serde_json::json;

use crate::{clock, faults, input::Event, laboratory::Server, processes::Process, say, stage::Stage};

const FOLLOWERS: u32 = 10_000;
const FANNED: u32 = 64;
const LARGE: u32 = 16;
const LARGE_BYTES: usize = 900_000;
const PATIENCE: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;

/// Of each pipeline: fetched ahead; of each partition: queue and batch, the results, and the module's memory. A batch
/// and a queue take one record beyond their bounds, and a message is there as text and as parsed.
const BOUND_BYTES: u64 = 2 * 8 * MIB
    + FANNED as u64 * (MIB / 2 + MIB / 4 + 10 * MIB)
    + LARGE as u64 * (2 * (MIB / 4) + 4 * LARGE_BYTES as u64);

fn pipelines(prefix: &str) -> String {
    let bounds = "    batch: { bytes: 256KiB }\n    in_flight: { queue_bytes: 256KiB, output_bytes: 256KiB, prefetch_bytes: 8MiB }\n    send_timeout: 2500ms\n    drain_timeout: 2500ms\n    retry: { initial: 50ms, max: 500ms }";
    format!(
        r#"version: 1
brokers:
  main: {{ kafka: {{ bootstrap: "${{KAFKA_BROKERS}}", group_prefix: "{prefix}", heartbeat: 200ms, session_timeout: 6s }} }}
stores:
  views: {{ redis: {{ url: "${{REDIS_URL}}" }} }}
topics:
  {prefix}posts: {{ broker: main, partitions: {FANNED} }}
  {prefix}large: {{ broker: main, partitions: {LARGE}, max_record_bytes: 1MiB }}
pipelines:
  fanned:
    from: {{ topic: {prefix}posts }}
    steps:
      - id: followers
        lookup: {{ store: views, members: "followers:{{payload.user_id}}", into: followers }}
      - {{ id: fanout, uses: feed-fanout, with: {{ from: followers }} }}
{bounds}
    to:
      feeds:
        timeline:
          store: views
          key: "feed:{{follower}}"
          op: "{{op}}"
          member: "{{post_id}}"
          score: "{{created_at}}"
  large:
    from: {{ topic: {prefix}large }}
{bounds}
    to:
      kept: {{ document: {{ store: views, key: "large:{{payload.id}}", version: "{{payload.version}}", document: "{{payload}}" }} }}
"#
    )
}

fn event(topic: &'static str, number: u32, event_type: &str, payload: &serde_json::Value) -> Event {
    let line = json!({ "eventId": format!("{topic}{number}"), "eventType": event_type, "bizId": "b", "source": "test",
        "occurredAt": "2023-11-14T22:13:20Z", "correlationId": "c", "payload": payload });
    Event { topic, key: number.to_string(), line: line.to_string() }
}

#[test]
fn memory_is_bounded_by_configuration() {
    let stage = Stage::with("memory", pipelines);
    let mut redis = redis::Client::open(stage.lab.redis.as_str()).and_then(|c| c.get_connection()).unwrap();
    let mut follow = redis::cmd("ZADD");
    follow.arg("followers:star");
    for number in 0..FOLLOWERS {
        follow.arg(0).arg(format!("follower-{number:05}"));
    }
    follow.exec(&mut redis).unwrap();
    let times = if faults(0) > 0 { 8 } else { 2 };
    let mut appender = stage.appender();
    let process = Process::start(&stage.millrace, "run", &[]).ready();
    clock::until(
        PATIENCE,
        || process.last_words(),
        || (process.said().matches("partition assigned").count() >= (FANNED + LARGE) as usize).then_some(()),
    );
    let before = process.memory_peak_bytes();
    for number in 0..FANNED * times {
        let payload = json!({ "post_id": format!("p{number}"), "user_id": "star", "created_at": number + 1 });
        appender.append(&event("posts", number, "content.post.created.v1", &payload));
    }
    let text = "x".repeat(LARGE_BYTES);
    for number in 0..LARGE * 10 * times {
        let payload = json!({ "id": format!("{}", number % 8), "version": number, "text": text });
        appender.append(&event("large", number, "large", &payload));
    }
    stage.lab.freeze(Server::Redis, Duration::from_secs(4));
    appender.flush();
    stage.drained(&[("posts", "fanned"), ("large", "large")], || process.last_words());
    let after = process.memory_peak_bytes();
    say(&format!(
        "memory peak: {} MiB with {} partitions assigned, {} MiB after {} posts of {FOLLOWERS} followers and {} values of {LARGE_BYTES} bytes; {} MiB more are allowed",
        before / MIB,
        FANNED + LARGE,
        after / MIB,
        FANNED * times,
        LARGE * 10 * times,
        BOUND_BYTES / MIB,
    ));
    assert!(after - before <= BOUND_BYTES, "{after} bytes after {before}");
    let (status, log) = process.stop();
    assert!(status.success(), "{log}");
    let feed: u32 = redis::cmd("ZCARD").arg("feed:follower-00077").query(&mut redis).unwrap();
    assert_eq!(feed, (FANNED * times).min(1_000));
}
