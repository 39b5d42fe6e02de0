//! Outputs of a topic, the state of an aggregate and progress are one, also for a process that is killed.
//!
//! `count-by` numbers the events of its partition: an event that was lost or counted twice, an output that was
//! appended twice, or a count that began anew would show as a number that is missing or there twice.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{millrace::Millrace, servers::required};

const EVENTS: u64 = 4_000;
const KILLS: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

fn pipelines(prefix: &str) -> String {
    format!(
        r#"version: 1
brokers:
  main: {{ kafka: {{ bootstrap: "${{KAFKA_BROKERS:-none:1}}", group_prefix: "{prefix}.", group_instance_id: one }} }}
topics:
  {prefix}-in: {{ broker: main, partitions: 1 }}
  {prefix}-out: {{ broker: main, partitions: 3 }}
pipelines:
  counts:
    from: {{ topic: {prefix}-in }}
    batch: {{ records: 20 }}
    steps: [ {{ id: count, uses: count-by, with: {{ by: payload.kind }} }} ]
    to: {{ out: {{ topic: {{ topic: {prefix}-out }} }} }}
"#
    )
}

fn event(number: u64) -> String {
    json!({ "eventId": format!("e{number}"), "eventType": "a.b.c.v1", "bizId": format!("b{}", number % 50),
        "occurredAt": "2026-01-01T00:00:00Z", "payload": { "kind": format!("k{}", number % 7) } })
    .to_string()
}

/// The numbers that the outputs carry, in no order.
fn totals(millrace: &Millrace, out: &str, flags: &[&str]) -> Vec<u64> {
    let args = [&["topic", "tail", out, "--from", "beginning", "--until-end"], flags].concat();
    let total = |line: &str| serde_json::from_str::<Value>(line).unwrap()["total"].as_u64().unwrap();
    millrace.ok(&args).stdout.lines().map(total).collect()
}

fn killed_and_started_again(millrace: &Millrace, prefix: &str, flags: &[&str]) {
    let with = |args: &[&str]| [args, flags].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let ok = |args: &[&str]| {
        let args = with(args);
        millrace.ok(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    millrace.write("pipelines.yaml", pipelines(prefix));
    millrace.write("events.ndjson", (0..EVENTS).map(|number| event(number) + "\n").collect::<String>());
    ok(&["topic", "create", "--all"]);
    let (from, out) = (format!("{prefix}-in"), format!("{prefix}-out"));
    ok(&["topic", "produce", &from, "--key", "bizId", "--file", "events.ndjson"]);
    for kill in 1..=KILLS {
        let args = with(&["run", "--listen", "off"]);
        let mut run = millrace.command(&args.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while (totals(millrace, &out, flags).len() as u64) < EVENTS * kill / (KILLS + 2) {
            assert!(Instant::now() < deadline, "the run goes on");
            assert!(run.try_wait().unwrap().is_none(), "the run goes on");
        }
        run.kill().unwrap();
        run.wait().unwrap();
    }
    ok(&["run", "--until-end", "--listen", "off"]);
    let mut totals = totals(millrace, &out, flags);
    totals.sort_unstable();
    assert!(totals.iter().copied().eq(1..=EVENTS), "{} outputs: {:?}", totals.len(), wrong(&totals));
}

/// The first number that is not as it should be, and those around it.
fn wrong(totals: &[u64]) -> &[u64] {
    let at = (1..).zip(totals).position(|(wanted, total)| wanted != *total).unwrap_or(totals.len());
    &totals[at.saturating_sub(3)..totals.len().min(at + 4)]
}

#[test]
fn embedded_outputs_and_counts_survive_kills() {
    killed_and_started_again(&Millrace::new(), "txn", &["--embedded"]);
}

#[test]
fn kafka_outputs_and_counts_survive_kills() {
    let prefix = format!("txn{:x}", std::process::id());
    let millrace = Millrace::new().env("KAFKA_BROKERS", &required("KAFKA_BROKERS"));
    killed_and_started_again(&millrace, &prefix, &[]);
}

#[test]
fn check_notes_a_topic_that_lies_elsewhere() {
    let millrace = Millrace::new();
    millrace.write(
        "pipelines.yaml",
        r#"version: 1
brokers:
  main: { kafka: { bootstrap: "a:1" } }
  other: { kafka: { bootstrap: "b:1" } }
topics: { posts: { broker: main }, far: { broker: other } }
pipelines:
  p: { from: { topic: posts }, to: { far: { topic: { topic: far } } } }
"#,
    );
    let shown = millrace.ok(&["check"]).stdout;
    assert!(
        shown.contains("note: pipelines.p.to.far: 'far' lies on the broker 'other', 'p' reads from 'main'"),
        "{shown}"
    );
}
