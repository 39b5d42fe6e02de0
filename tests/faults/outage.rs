//! Redis is away for a minute while 2,000 events a second come in.

use std::{
    io::Write,
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

use crate::{clock, faults, laboratory::Server, likes, processes::Process, say, stage::Stage};

const EVENTS_PER_SECOND: u64 = 2_000;
const PARTITIONS: u32 = 6;
/// What the pipeline may hold by its defaults: fetched ahead, and per partition queue, batch and results.
const HELD_BYTES_MAX: u64 = (32 + PARTITIONS as u64 * (4 + 1 + 4)) << 20;

/// States of a breaker, as metrics have them.
const CLOSED: f64 = 0.0;
const OPEN: f64 = 2.0;
const PATIENCE: Duration = Duration::from_secs(60);

const STORE: &str = "store counters";
const STATUS: [&str; 2] = ["status", "--json"];

/// The state of the store's breaker, as the process's metrics have it.
fn breaker(process: &Process) -> Option<f64> {
    let label = format!("endpoint=\"{STORE}\"");
    let metrics = process.metrics();
    let mut states = metrics.iter().flat_map(|m| m.of("millrace_breaker_state"));
    states.find_map(|(labels, state)| (labels == label).then_some(state))
}

/// The same as `millrace status` tells it, in a process of its own.
fn told(stage: &Stage) -> Option<String> {
    let said = stage.millrace.run(&STATUS).stdout;
    let status: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    status["endpoints"][STORE]["state"].as_str().map(str::to_owned)
}

#[test]
fn redis_may_be_away_while_events_come() {
    let stage = Stage::with("outage", |prefix| likes::pipelines(prefix, PARTITIONS));
    let away = Duration::from_secs(if faults(0) > 0 { 60 } else { 8 });
    let (enough, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let topic = stage.topic(likes::TOPIC);
    let mut producer =
        stage.millrace.command(&["topic", "produce", &topic, "--key", "payload.author_id", "--file", "-"]);
    let mut producer =
        producer.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut input = producer.stdin.take().expect("a pipe");
    let mut process = Process::start(&stage.millrace, "run", &[]).ready();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let started = Instant::now();
            while !enough.load(Ordering::Relaxed) {
                let due = started.elapsed().as_millis() as u64 * EVENTS_PER_SECOND / 1_000;
                for number in sent.load(Ordering::Relaxed)..due {
                    writeln!(input, "{}", likes::line(number)).expect("the producer reads");
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                clock::pause(Duration::from_millis(20));
            }
            drop(input);
        });
        clock::pause(Duration::from_secs(3));
        let before = process.memory_peak_bytes();
        let outage = scope.spawn(|| clock::pause(away));
        stage.lab.take_away(Server::Redis);
        let opened = clock::within(PATIENCE, || breaker(&process).filter(|state| *state == OPEN));
        let told = clock::within(PATIENCE, || told(&stage).filter(|state| state == "open"));
        outage.join().expect("time passes");
        stage.lab.start(Server::Redis);
        let after = process.memory_peak_bytes();
        clock::pause(Duration::from_secs(2));
        enough.store(true, Ordering::Relaxed);
        assert!(opened.is_some(), "no breaker opened:\n{}", process.last_words());
        assert!(told.is_some(), "status does not say so:\n{}", stage.millrace.run(&STATUS).stdout);
        writing.join().expect("everything was read");
        say(&format!(
            "Redis away for {} s: memory peak {} MiB before, {} MiB after",
            away.as_secs(),
            before >> 20,
            after >> 20
        ));
        assert!(after - before <= HELD_BYTES_MAX, "{after} bytes after {before}");
    });
    let output = producer.wait_with_output().expect("a process");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    stage.drained(&[(likes::TOPIC, likes::PIPELINE)], || process.last_words());
    assert_eq!(breaker(&process), Some(CLOSED));
    clock::until(
        PATIENCE,
        || format!("status does not say that it is closed:\n{}", stage.millrace.run(&STATUS).stdout),
        || told(&stage).filter(|state| state == "closed"),
    );
    assert!(process.ended().is_none(), "{}", process.last_words());
    let (status, log) = process.stop();
    assert!(status.success(), "{log}");
    let sent = sent.load(Ordering::Relaxed);
    likes::check(&stage, sent);
    say(&format!("{sent} events came, each is there once and in order"));
}
