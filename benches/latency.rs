//! How long an event is under way from topic to topic through the real binary, with transactions and without.
//!
//! Events are appended at a steady rate, each with the time of its append; a reader of committed records notes when
//! each output arrives. Time is one process's, so no two clocks are compared. On the embedded log always; on Kafka
//! where KAFKA_BROKERS is set. Run alone on a machine: `cargo bench --bench latency [-- RATE [SECONDS]]`.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a benchmark")]

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use millrace_core::{
    Broker, NewRecord, Producer, Record, Source, SourceEvent, Start, Subscription,
    settings::{Key, Location, Node, NodeKind, Problems, Settings},
};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, timeout};

/// Events are appended so often, as many as the rate asks for.
const TICK: Duration = Duration::from_millis(5);
/// The first part of a run is not counted: the group is formed, modules and caches warm up.
const WARM_UP: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse::<u64>().ok());
    let (rate, seconds) = (numbers.next().unwrap_or(1_000), numbers.next().unwrap_or(20));
    println!("{rate} events/s of about 1 KB for {seconds} s, topic -> filter -> topic, 4 partitions\n");
    println!(
        "{:<10} {:<13} {:>8} {:>9} {:>9} {:>9} {:>9}",
        "system", "transactions", "events", "p50 ms", "p95 ms", "p99 ms", "max ms"
    );
    for transactions in [false, true, false, true] {
        let folder = tempfile::tempdir().unwrap();
        let settings = millrace_embedded::EmbeddedSettings { dir: folder.path().join("log") };
        let broker = Arc::new(millrace_embedded::EmbeddedBroker::new(settings));
        measure(broker, folder.path(), "embedded", transactions, rate, seconds).await;
    }
    let Ok(bootstrap) = std::env::var("KAFKA_BROKERS") else { return };
    for transactions in [false, true, false, true] {
        let folder = tempfile::tempdir().unwrap();
        measure(Arc::new(kafka(&bootstrap)), folder.path(), "kafka", transactions, rate, seconds).await;
    }
}

fn kafka(bootstrap: &str) -> millrace_kafka::KafkaBroker {
    let at = Location::default();
    let scalar = |text: &str| Node { at, kind: NodeKind::Scalar { text: text.into(), plain: true } };
    let entries = [("bootstrap", bootstrap), ("linger", "0ms")];
    let entries = entries.map(|(key, text)| (Key { at, text: key.into() }, scalar(text)));
    let node = Node { at, kind: NodeKind::Map(entries.into()) };
    let settings = Settings::new(node, "bench");
    let options = millrace_kafka::Options::read(&settings, &mut Problems::default()).unwrap();
    millrace_kafka::KafkaBroker::open("bench", options).unwrap()
}

/// Ends the program when the measurement ends, however it does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn measure(
    broker: Arc<dyn Broker>,
    folder: &Path,
    system: &str,
    transactions: bool,
    rate: u64,
    seconds: u64,
) {
    let prefix = format!("latency-{}-{transactions}-{}", std::process::id(), rand::random::<u32>());
    std::fs::write(folder.join("pipelines.yaml"), pipelines(system, &prefix, transactions)).unwrap();
    let millrace = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.args(args).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(millrace(&["topic", "create", "--all"]).status().unwrap().success());
    let _running = Running(millrace(&["run", "--listen", "off"]).spawn().unwrap());
    let (from, out) = (format!("{prefix}-in"), format!("{prefix}-out"));
    let source = broker.subscribe(alone(&out)).await.unwrap();
    let started = Instant::now();
    let warm_up = rate * WARM_UP.as_secs();
    let total = warm_up + rate * seconds;
    let reading = tokio::spawn(read(source, started, warm_up, total));
    append(&*broker.producer().await.unwrap(), &from, started, rate, total).await;
    let mut late: Vec<f64> = reading.await.unwrap();
    assert_eq!(late.len() as u64, rate * seconds, "each event arrives once");
    late.sort_by(f64::total_cmp);
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    let told = if transactions { "on" } else { "off" };
    println!(
        "{system:<10} {told:<13} {:>8} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
        late.len(),
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0)
    );
}

async fn append(producer: &dyn Producer, topic: &str, started: Instant, rate: u64, total: u64) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sent = 0;
    while sent < total {
        tick.tick().await;
        let due = (started.elapsed().as_micros() as u64 * rate / 1_000_000).min(total);
        let records = (sent..due).map(|number| event(number, started.elapsed())).collect();
        sent = due;
        for answer in producer.send(topic, records).await {
            answer.unwrap();
        }
    }
}

/// The times, in milliseconds, of those that were appended after the warm-up.
async fn read(mut source: Box<dyn Source>, started: Instant, counted_from: u64, total: u64) -> Vec<f64> {
    let (mut seen, mut late) = (0, Vec::new());
    while seen < total {
        let event = timeout(PATIENCE, source.next()).await.expect("no output for a minute").unwrap().unwrap();
        let SourceEvent::Batch(batch) = event else { continue };
        let now = started.elapsed();
        for record in &batch.records {
            seen += 1;
            let (number, appended) = stamp(record);
            if number >= counted_from {
                late.push(now.saturating_sub(appended).as_secs_f64() * 1_000.0);
            }
        }
    }
    late
}

fn event(number: u64, at: Duration) -> NewRecord {
    let payload = json!({ "post_id": format!("p{number}"), "number": number, "user_id": format!("u{}", number % 997),
        "content": "x".repeat(640), "type": "TEXT", "visibility": "PUBLIC", "appended_us": at.as_micros() as u64 });
    let envelope = json!({ "eventId": format!("e{number}"), "eventType": "content.post.created.v1", "bizId": "b",
        "occurredAt": "2026-01-01T00:00:00Z", "source": "bench", "payload": payload });
    NewRecord {
        key: Some(format!("u{}", number % 997).into()),
        value: Some(envelope.to_string().into()),
        ..NewRecord::default()
    }
}

/// An output's number, and when its event was appended.
fn stamp(record: &Record) -> (u64, Duration) {
    let event: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
    let field = |name: &str| event["payload"][name].as_u64().unwrap();
    (field("number"), Duration::from_micros(field("appended_us")))
}

fn alone(topic: &str) -> Subscription {
    Subscription {
        topic: topic.into(),
        group: None,
        partitions: None,
        start: Start::Beginning,
        prefetch_bytes_max: 32 << 20,
        batch_records_max: 1_000,
    }
}

fn pipelines(system: &str, prefix: &str, transactions: bool) -> String {
    let broker = match system {
        "embedded" => "embedded: { dir: log }",
        _ => "kafka: { bootstrap: \"${KAFKA_BROKERS}\" }",
    };
    format!(
        r#"version: 1
brokers:
  main: {{ {broker} }}
topics:
  {prefix}-in: {{ broker: main, partitions: 4 }}
  {prefix}-out: {{ broker: main, partitions: 4 }}
pipelines:
  {prefix}:
    from: {{ topic: {prefix}-in }}
    transactions: {transactions}
    steps: [ {{ id: visible, uses: visible-posts }} ]
    to: {{ out: {{ topic: {{ topic: {prefix}-out }} }} }}
"#
    )
}
