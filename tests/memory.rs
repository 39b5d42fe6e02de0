//! Resident memory stays within what is configured while a store does not answer: more comes than the bounds hold, from
//! Kafka, and every record fans out. `tests/faults` measures the same with more of everything, and as the store comes back.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::json;
use tokio::time::{Duration, Instant};

use crate::support::{
    millrace::Millrace,
    servers::{http_text, required},
};

const DEADLINE: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;

const PARTITIONS: u64 = 16;
const FOLLOWERS: u32 = 3_000;
/// Of 16 KiB each: 64 MiB, of which the bounds hold a part.
const POSTS: u32 = 4_096;
const PADDING_BYTES: usize = 16 << 10;

/// What docs/operations.md makes of these: half of the prefetch again for what the client has under way; a partition's
/// queue, its batch, and four times what is handed to the sinks; a module and what it may grow by.
const PREFETCH_BYTES: u64 = 4 * MIB;
const QUEUE_BYTES: u64 = MIB / 4;
const BATCH_BYTES: u64 = MIB / 4;
const OUTPUT_BYTES: u64 = MIB / 4;
const MODULE_BYTES: u64 = 4 * MIB;
const BOUND_BYTES: u64 =
    PREFETCH_BYTES * 3 / 2 + PARTITIONS * (QUEUE_BYTES + BATCH_BYTES + 4 * OUTPUT_BYTES + MODULE_BYTES);

fn pipelines(prefix: &str, silent: &str) -> String {
    format!(
        r#"version: 1
brokers:
  main: {{ kafka: {{ bootstrap: "${{KAFKA_BROKERS}}", group_prefix: "{prefix}-" }} }}
stores:
  people: {{ redis: {{ url: "${{REDIS_URL}}" }} }}
  views: {{ redis: {{ url: "redis://{silent}" }} }}
topics:
  {prefix}-events: {{ broker: main, partitions: {PARTITIONS}, retention: 1d }}
pipelines:
  p:
    from: {{ topic: {prefix}-events }}
    batch: {{ bytes: {BATCH_BYTES} }}
    in_flight: {{ queue_bytes: {QUEUE_BYTES}, output_bytes: {OUTPUT_BYTES}, prefetch_bytes: {PREFETCH_BYTES} }}
    steps:
      - id: followers
        lookup: {{ store: people, members: "{prefix}:{{payload.user_id}}", into: followers }}
      - {{ id: fanout, uses: feed-fanout, with: {{ from: followers }} }}
    to:
      feeds:
        timeline:
          store: views
          key: "feed:{{follower}}"
          op: "{{op}}"
          member: "{{post_id}}"
          score: "{{created_at}}"
"#
    )
}

/// A `millrace run` that is killed at the end: a pipeline whose store is silent has nothing to finish.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// The greatest resident memory it ever had.
    fn peak_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

/// Redis behind a gate: from when the test says so, what is sent stays unread, and nothing is answered.
fn gate(redis_url: &str) -> (String, Arc<AtomicBool>) {
    let server = redis_url.trim_start_matches("redis://").trim_end_matches('/').to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let silent = Arc::new(AtomicBool::new(false));
    let shut = silent.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&server) else { continue };
            let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut answers, &mut back));
            let shut = shut.clone();
            thread::spawn(move || forward(client, server, &shut));
        }
    });
    (address, silent)
}

fn forward(mut from: TcpStream, mut to: TcpStream, shut: &AtomicBool) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        while shut.load(Ordering::Relaxed) {
            thread::park();
        }
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Looks again every twentieth of a second, which Redis waits for.
fn until(redis: &mut redis::Connection, what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !reached() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        let _: Option<(String, String)> =
            redis::cmd("BLPOP").arg("memory:nothing").arg(0.05).query(redis).unwrap();
    }
}

#[test]
fn what_waits_for_a_silent_store_is_bounded() {
    let prefix = format!("memory-{}", std::process::id());
    let (kafka, redis_url) = (required("KAFKA_BROKERS"), required("REDIS_URL"));
    let mut redis = redis::Client::open(&*redis_url).and_then(|client| client.get_connection()).unwrap();
    let mut follow = redis::cmd("ZADD");
    follow.arg(format!("{prefix}:star"));
    for number in 0..FOLLOWERS {
        follow.arg(0).arg(format!("follower-{number:05}"));
    }
    follow.exec(&mut redis).unwrap();

    let (address, silent) = gate(&redis_url);
    let millrace = Millrace::new().env("KAFKA_BROKERS", &kafka).env("REDIS_URL", &redis_url);
    millrace.write("pipelines.yaml", pipelines(&prefix, &address));
    let padding = "x".repeat(PADDING_BYTES);
    let post = |number| {
        let payload = json!({ "post_id": format!("p{number}"), "user_id": "star", "created_at": number, "text": padding });
        json!({ "eventId": format!("e{number}"), "eventType": "content.post.created.v1", "payload": payload })
            .to_string()
    };
    millrace.write("posts.ndjson", (0..POSTS).map(post).collect::<Vec<_>>().join("\n"));
    millrace.ok(&["topic", "create", "--all"]);

    let log = millrace.path().join("log");
    let mut command = millrace.command(&["run", "--listen", "127.0.0.1:0", "--log", "info"]);
    command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let running = Running(command.spawn().unwrap());
    let said = || fs::read_to_string(&log).unwrap();
    until(&mut redis, "all partitions are assigned", || {
        said().matches("partition assigned").count() as u64 >= PARTITIONS
    });
    let idle_bytes = running.peak_bytes();
    silent.store(true, Ordering::Relaxed);

    let topic = format!("{prefix}-events");
    millrace.ok(&["topic", "produce", &topic, "--key", "eventId", "--file", "posts.ndjson"]);
    let said = said();
    let address = said.split_once("metrics on ").unwrap().1.split_once("/metrics").unwrap().0;
    let fanned_out = || {
        let metrics = http_text(address, "GET", "/metrics").ok()?;
        let labels = r#"millrace_step_seconds_count{pipeline="p",step="fanout"} "#;
        metrics.lines().find_map(|line| line.strip_prefix(labels)?.parse::<f64>().ok())
    };
    until(&mut redis, "every partition waits with what it has fanned out", || {
        fanned_out().is_some_and(|times| times >= PARTITIONS as f64)
    });
    let (mut peak_bytes, mut same) = (running.peak_bytes(), 0);
    until(&mut redis, "memory grows no more", || {
        let now = running.peak_bytes();
        same = if now == peak_bytes { same + 1 } else { 0 };
        peak_bytes = now;
        same == 40
    });
    let more_bytes = peak_bytes - idle_bytes;
    assert!(
        more_bytes <= BOUND_BYTES,
        "{} MiB above the {} MiB of an idle process, {} MiB are allowed",
        more_bytes / MIB,
        idle_bytes / MIB,
        BOUND_BYTES / MIB
    );
    redis::cmd("DEL").arg(format!("{prefix}:star")).exec(&mut redis).unwrap();
}
