//! Whole pipelines through the real binary: events per second and CPU time per event.
//!
//! On the embedded log always; on Kafka, Redis and Elasticsearch where KAFKA_BROKERS, REDIS_URL and ES_URL are set. CPU time is
//! the program's own user and system time, as the operating system counts it, so that it is comparable between
//! machines under different load. Run with `cargo bench --bench pipeline [-- EVENTS]`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_types,
    reason = "a benchmark"
)]

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::json;

const FOLLOWERS: usize = 10;

/// The pipelines, by what they show.
const CASES: [(&str, &str); 3] =
    [("topic-to-topic", "visible"), ("topic-to-timelines", "feeds"), ("topic-to-index", "posts")];

fn main() {
    let events: usize = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(100_000);
    println!("{events} events of about 1 KB; {FOLLOWERS} followers for each author\n");
    println!("{:<10} {:<20} {:>12} {:>14}", "systems", "pipeline", "events/s", "CPU us/event");
    run("embedded", events);
    if ["KAFKA_BROKERS", "REDIS_URL", "ES_URL"].iter().all(|name| std::env::var_os(name).is_some()) {
        run("servers", events);
    }
}

fn run(systems: &str, events: usize) {
    let dir = tempfile::tempdir().unwrap();
    let prefix = format!("bench{}-", std::process::id());
    std::fs::write(dir.path().join("pipelines.yaml"), pipelines(&prefix)).unwrap();
    write_events(dir.path(), events);
    let flag = if systems == "embedded" { vec!["--embedded"] } else { vec![] };
    let millrace = |args: &[&str]| {
        let (began, before) = (Instant::now(), children_cpu_seconds());
        let status = Command::new(env!("CARGO_BIN_EXE_millrace"))
            .args(args)
            .args(&flag)
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "millrace {args:?} failed on {systems}");
        (began.elapsed().as_secs_f64(), children_cpu_seconds() - before)
    };
    millrace(&["topic", "create", "--all"]);
    let (follows, posts) = (format!("{prefix}follows"), format!("{prefix}posts"));
    millrace(&["topic", "produce", &follows, "--key", "payload.follower_id", "--file", "follows.ndjson"]);
    millrace(&["run", "--only", &format!("{prefix}follow"), "--until-end", "--listen", "off"]);
    let (seconds, cpu) =
        millrace(&["topic", "produce", &posts, "--key", "payload.user_id", "--file", "posts.ndjson"]);
    row(systems, "file-to-topic", events, seconds, cpu);
    for (name, pipeline) in CASES {
        let pipeline = format!("{prefix}{pipeline}");
        let (seconds, cpu) = millrace(&["run", "--only", &pipeline, "--until-end", "--listen", "off"]);
        row(systems, name, events, seconds, cpu);
    }
}

fn row(systems: &str, name: &str, events: usize, seconds: f64, cpu: f64) {
    let count = events as f64;
    println!("{systems:<10} {name:<20} {:>12.0} {:>14.1}", count / seconds, cpu * 1e6 / count);
}

fn write_events(dir: &Path, events: usize) {
    let authors = 1_000;
    let envelope = |id: String, event_type: &str, payload: serde_json::Value| {
        json!({ "eventId": id, "eventType": event_type, "bizId": "b", "occurredAt": "2026-01-01T00:00:00Z",
            "source": "bench", "correlationId": "0123456789abcdef0123456789abcdef", "payload": payload })
        .to_string()
    };
    let posts: Vec<String> = (0..events)
        .map(|number| {
            let visibility = if number % 10 == 0 { "PRIVATE" } else { "PUBLIC" };
            let payload = json!({ "post_id": format!("p{number}"), "user_id": format!("u{}", number % authors),
                "content": "x".repeat(640), "type": "TEXT", "visibility": visibility, "tags": ["a", "b"],
                "created_at": 1_700_000_000_000u64 + number as u64, "version": 1 });
            envelope(format!("e{number}"), "content.post.created.v1", payload)
        })
        .collect();
    let follows: Vec<String> = (0..authors * FOLLOWERS)
        .map(|number| {
            let (author, follower) = (number % authors, number / authors * 97 + number % 977);
            let payload = json!({ "follower_id": format!("f{follower}-{}", number / authors),
                "followee_id": format!("u{author}"), "at": 1 });
            envelope(format!("f{number}"), "social.user.followed.v1", payload)
        })
        .collect();
    std::fs::write(dir.join("posts.ndjson"), posts.join("\n")).unwrap();
    std::fs::write(dir.join("follows.ndjson"), follows.join("\n")).unwrap();
}

fn pipelines(prefix: &str) -> String {
    format!(
        r#"version: 1
brokers:
  main: {{ kafka: {{ bootstrap: "${{KAFKA_BROKERS:-localhost:9092}}" }} }}
stores:
  feeds: {{ redis: {{ url: "${{REDIS_URL:-redis://localhost:6379}}" }} }}
  search: {{ elasticsearch: {{ url: "${{ES_URL:-http://localhost:9200}}" }} }}
topics:
  {prefix}posts: {{ broker: main, partitions: 4 }}
  {prefix}follows: {{ broker: main, partitions: 4 }}
  {prefix}out: {{ broker: main, partitions: 4 }}
indexes:
  {prefix}posts: {{ fields: {{ post_id: keyword, content: text, created_at: date }} }}
pipelines:
  {prefix}follow:
    from: {{ topic: {prefix}follows }}
    to:
      followers:
        members: {{ store: feeds, key: "{prefix}followers:{{payload.followee_id}}", member: "{{payload.follower_id}}", version: "{{payload.at}}" }}
  {prefix}visible:
    from: {{ topic: {prefix}posts }}
    steps: [ {{ id: visible, uses: visible-posts }} ]
    to: {{ out: {{ topic: {{ topic: {prefix}out }} }} }}
  {prefix}feeds:
    from: {{ topic: {prefix}posts }}
    steps:
      - {{ id: visible, uses: visible-posts }}
      - {{ id: followers, lookup: {{ store: feeds, members: "{prefix}followers:{{payload.user_id}}", into: followers }} }}
      - {{ id: fanout, uses: feed-fanout }}
    to:
      feeds: {{ timeline: {{ store: feeds, key: "{prefix}feed:{{follower}}", op: "{{op}}", member: "{{post_id}}", score: "{{created_at}}" }} }}
  {prefix}posts:
    from: {{ topic: {prefix}posts }}
    steps: [ {{ id: document, uses: search-document, with: {{ id: post_id }} }} ]
    to:
      posts: {{ index: {{ store: search, index: {prefix}posts, mode: merge, op: "{{op}}", id: "{{id}}", version: "{{version}}", document: "{{document}}" }} }}
"#
    )
}

/// User and system seconds of all children that have ended: fields 16 and 17 of the process's own statistics.
fn children_cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = &stat[stat.rfind(')').unwrap() + 2..];
    let ticks: f64 = after_name.split(' ').skip(13).take(2).map(|field| field.parse::<f64>().unwrap()).sum();
    ticks / TICKS_PER_SECOND
}
