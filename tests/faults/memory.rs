//! Resident memory stays within what is configured, however large what comes is, while a store stands still: posts with
//! 10,000 followers on 64 partitions, and values of 900 KB.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{clock, faults, input::Event, laboratory::Server, processes::Process, say, stage::Stage};

const PATIENCE: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;

/// Bytes fetched ahead, and of each partition: waiting, in a batch, handed to the sinks. The bounds are those of
/// docs/operations.md: the client may have half of the prefetch under way, and results are held four times.
const PREFETCH_BYTES: u64 = 8 * MIB;
const QUEUE_BYTES: u64 = MIB / 4;
const BATCH_BYTES: u64 = MIB / 4;
const OUTPUT_BYTES: u64 = MIB / 4;
const FETCHED_BYTES: u64 = PREFETCH_BYTES * 3 / 2;
const RESULTS: u64 = 4;
/// An instance of a module that never frees what it answers is replaced when it has grown by 2 MiB.
const MODULE_BYTES: u64 = 4 * MIB;

const TOPIC: &str = "events";
const PIPELINE: &str = "work";

fn pipelines(prefix: &str, partitions: u32, work: &str) -> String {
    format!(
        r#"version: 1
brokers:
  main: {{ kafka: {{ bootstrap: "${{KAFKA_BROKERS}}", group_prefix: "{prefix}" }} }}
stores:
  views: {{ redis: {{ url: "${{REDIS_URL}}" }} }}
topics:
  {prefix}{TOPIC}: {{ broker: main, partitions: {partitions}, max_record_bytes: 1MiB }}
pipelines:
  {PIPELINE}:
    from: {{ topic: {prefix}{TOPIC} }}
    retry: {{ initial: 50ms, max: 500ms }}
    batch: {{ bytes: {BATCH_BYTES} }}
    in_flight: {{ queue_bytes: {QUEUE_BYTES}, output_bytes: {OUTPUT_BYTES}, prefetch_bytes: {PREFETCH_BYTES} }}
{work}
"#
    )
}

fn event(number: u32, event_type: &str, payload: &Value) -> Event {
    let line = json!({ "eventId": format!("e{number}"), "eventType": event_type, "bizId": "b", "source": "test",
        "occurredAt": "2023-11-14T22:13:20Z", "correlationId": "c", "payload": payload });
    Event { topic: TOPIC, key: number.to_string(), line: line.to_string() }
}

/// Runs all events through the pipeline, with the store standing still at first, and compares the peak of resident
/// memory with that of the process when all its partitions were assigned and idle.
fn peak_stays_below(stage: &Stage, partitions: u32, events: impl Iterator<Item = Event>, bound_bytes: u64) {
    let process = Process::start(&stage.millrace, "run", &[]).ready();
    clock::until(
        PATIENCE,
        || process.last_words(),
        || (process.said().matches("partition assigned").count() >= partitions as usize).then_some(()),
    );
    let idle = process.memory_peak_bytes();
    let mut appender = stage.appender();
    events.for_each(|event| appender.append(&event));
    stage.lab.freeze(Server::Redis, Duration::from_secs(4));
    appender.flush();
    stage.drained(&[(TOPIC, PIPELINE)], || process.last_words());
    let more = process.memory_peak_bytes() - idle;
    say(&format!(
        "{} events on {partitions} partitions: memory peak {} MiB above the {} MiB of an idle process, {} MiB are allowed",
        appender.sent(),
        more / MIB,
        idle / MIB,
        bound_bytes / MIB,
    ));
    assert!(more <= bound_bytes, "{more} bytes, {bound_bytes} are allowed");
    let (status, log) = process.stop();
    assert!(status.success(), "{log}");
}

/// How much comes: twice what would fill the bounds, or far more.
fn times() -> u32 {
    if faults(0) > 0 { 8 } else { 2 }
}

#[test]
fn a_large_fan_out_stays_within_its_bounds() {
    const FOLLOWERS: u32 = 10_000;
    const PARTITIONS: u32 = 64;
    let work = r#"    steps:
      - id: followers
        lookup: { store: views, members: "followers:{payload.user_id}", into: followers }
      - { id: fanout, uses: feed-fanout, with: { from: followers } }
    to:
      feeds:
        timeline:
          store: views
          key: "feed:{follower}"
          op: "{op}"
          member: "{post_id}"
          score: "{created_at}""#;
    let stage = Stage::with("fanned", |prefix| pipelines(prefix, PARTITIONS, work));
    let mut redis = redis::Client::open(stage.lab.redis.as_str()).and_then(|c| c.get_connection()).unwrap();
    let mut follow = redis::cmd("ZADD");
    follow.arg("followers:star");
    for number in 0..FOLLOWERS {
        follow.arg(0).arg(format!("follower-{number:05}"));
    }
    follow.exec(&mut redis).unwrap();
    let posts = PARTITIONS * times();
    let events = (0..posts).map(|number| {
        let payload = json!({ "post_id": format!("p{number}"), "user_id": "star", "created_at": number + 1 });
        event(number, "content.post.created.v1", &payload)
    });
    let of_a_partition = QUEUE_BYTES + BATCH_BYTES + RESULTS * OUTPUT_BYTES + MODULE_BYTES;
    peak_stays_below(&stage, PARTITIONS, events, FETCHED_BYTES + u64::from(PARTITIONS) * of_a_partition);
    let feed: u32 = redis::cmd("ZCARD").arg("feed:follower-00077").query(&mut redis).unwrap();
    assert_eq!(feed, posts.min(1_000));
}

#[test]
fn large_values_stay_within_their_bounds() {
    const VALUE_BYTES: usize = 900_000;
    const PARTITIONS: u32 = 16;
    let work = r#"    to:
      kept:
        document: { store: views, key: "large:{payload.id}", version: "{payload.version}", document: "{payload}" }"#;
    let stage = Stage::with("large", |prefix| pipelines(prefix, PARTITIONS, work));
    let text = "x".repeat(VALUE_BYTES);
    let events = (0..PARTITIONS * 10 * times()).map(|number| {
        let payload = json!({ "id": format!("{}", number % 8), "version": number, "text": text });
        event(number, "large", &payload)
    });
    // A record that is larger than a bound goes alone: one waits, one is the batch, one is the result. While it is
    // encoded it is there as parsed JSON and as fields too, on each core.
    const CORES: u64 = 2;
    let of_a_partition = (1 + 1 + RESULTS) * VALUE_BYTES as u64;
    let encoding = 2 * CORES * VALUE_BYTES as u64;
    let bound_bytes = FETCHED_BYTES + u64::from(PARTITIONS) * of_a_partition + encoding;
    peak_stays_below(&stage, PARTITIONS, events, bound_bytes);
}
