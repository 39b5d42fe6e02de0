//! Real processes on real Kafka that come, go and come back while records flow: each record is processed once, not
//! merely counted once. What the processes say they read adds up to what was produced, so that no handover repeats
//! anything; and counters of single events and of all say that none was left out.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::support::{millrace::Millrace, servers::required};

const DEADLINE: Duration = Duration::from_secs(120);

/// One record a batch, so that signals come in the middle of the work.
const PIPELINES: &str = r#"version: 1
brokers:
  main:
    kafka: { bootstrap: "${KAFKA_BROKERS}", group_prefix: "PREFIX-", heartbeat: 200ms, session_timeout: 10s, INSTANCE }
stores:
  counts: { redis: { url: "${REDIS_URL}" } }
topics:
  PREFIX-events: { broker: main, partitions: 6, retention: 1d }
pipelines:
  count:
    from: { topic: PREFIX-events }
    batch: { records: 1 }
    to:
      each: { counter: { store: counts, key: "PREFIX:each:{eventId}" } }
      all: { counter: { store: counts, key: "PREFIX:all" } }
"#;

struct Stage {
    millrace: Millrace,
    prefix: String,
    redis: redis::Connection,
    produced: usize,
    started: usize,
}

/// A `millrace run`, its log in a file.
struct Running {
    child: Child,
    log: std::path::PathBuf,
}

impl Stage {
    fn new(name: &str, instance: &str) -> Self {
        let prefix = format!("{name}-{}", std::process::id());
        let (kafka, redis) = (required("KAFKA_BROKERS"), required("REDIS_URL"));
        let millrace = Millrace::new().env("KAFKA_BROKERS", &kafka).env("REDIS_URL", &redis);
        let millrace = millrace.env("MILLRACE_LOG", "info").env("INSTANCE", "nobody");
        millrace.write("pipelines.yaml", PIPELINES.replace("PREFIX", &prefix).replace("INSTANCE", instance));
        millrace.ok(&["topic", "create", "--all"]);
        let redis = redis::Client::open(redis).and_then(|client| client.get_connection()).unwrap();
        Stage { millrace, prefix, redis, produced: 0, started: 0 }
    }

    fn produce(&mut self, count: usize) {
        let line = |n| json!({ "eventId": format!("e{n}"), "eventType": "a", "payload": {} }).to_string();
        let lines: Vec<String> = (self.produced..self.produced + count).map(line).collect();
        self.millrace.write("input.ndjson", lines.join("\n"));
        let topic = format!("{}-events", self.prefix);
        self.millrace.ok(&["topic", "produce", &topic, "--key", "eventId", "--file", "input.ndjson"]);
        self.produced += count;
    }

    fn start(&mut self, instance: &str) -> Running {
        self.started += 1;
        let log = self.millrace.path().join(format!("log-{}", self.started));
        let mut command = self.millrace.command(&["run", "--listen", "off", "--json"]);
        command.env("INSTANCE", instance).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        Running { child: command.spawn().unwrap(), log }
    }

    fn all(&mut self) -> usize {
        let key = format!("{}:all", self.prefix);
        redis::cmd("GET").arg(key).query::<Option<usize>>(&mut self.redis).unwrap().unwrap_or(0)
    }

    /// Until `reached`, looking again every twentieth of a second, which Redis waits for.
    fn until(&mut self, what: &str, mut reached: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !reached(self) {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            let nothing = format!("{}:nothing", self.prefix);
            let _: Option<(String, String)> =
                redis::cmd("BLPOP").arg(nothing).arg(0.05).query(&mut self.redis).unwrap();
        }
    }

    /// Until so many more are counted while there are others to come: more are produced where all were done before
    /// anybody looked.
    fn in_the_middle(&mut self, more: usize) {
        for _ in 0..20 {
            let goal = (self.all() + more).min(self.produced);
            self.until(&format!("{goal} are counted"), |stage| stage.all() >= goal);
            if self.all() < self.produced {
                return;
            }
            self.produce(6_000);
        }
        panic!("all {} were done before anything happened", self.produced);
    }

    fn until_all(&mut self) {
        let produced = self.produced;
        self.until(&format!("all {produced} are counted"), |stage| stage.all() >= produced);
    }

    /// Every event counted once by each sink, and every record read once by the processes, all told.
    fn check(mut self, records: &[u64]) {
        let keys: Vec<String> = (0..self.produced).map(|n| format!("{}:each:e{n}", self.prefix)).collect();
        let each: Vec<Option<u32>> = redis::cmd("MGET").arg(&keys).query(&mut self.redis).unwrap();
        let wrong: Vec<_> = each.iter().zip(&keys).filter(|(count, _)| **count != Some(1)).collect();
        assert!(
            wrong.is_empty(),
            "{} events not counted once: {:?}",
            wrong.len(),
            &wrong[..wrong.len().min(5)]
        );
        assert_eq!(self.all(), self.produced);
        assert_eq!(records.iter().sum::<u64>(), self.produced as u64, "{records:?}: some were read twice");
        let ledgers = keys.iter().map(|key| format!("processed:{{{key}}}"));
        let all = format!("{}:all", self.prefix);
        let rest = [format!("processed:{{{all}}}"), all];
        let keys: Vec<String> = keys.iter().cloned().chain(ledgers).chain(rest).collect();
        redis::cmd("UNLINK").arg(&keys).exec(&mut self.redis).unwrap();
    }
}

impl Running {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// How often partitions were given to it or taken from it.
    fn rebalances(&self) -> usize {
        self.log()
            .lines()
            .filter(|line| line.contains("partitions assigned") || line.contains("partitions revoked"))
            .count()
    }

    fn has_partitions(&self) -> bool {
        self.log().contains("partition assigned")
    }

    /// Ends it by SIGTERM; gives how many records it has read.
    fn end(self) -> u64 {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let log = self.log.clone();
        let output = self.child.wait_with_output().unwrap();
        let log = std::fs::read_to_string(log).unwrap();
        assert_eq!(output.status.code(), Some(0), "{log}");
        assert!(!log.contains("will be repeated") && !log.contains("before their work had ended"), "{log}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        report["pipelines"][0]["records"].as_u64().unwrap()
    }
}

#[test]
fn a_process_that_is_told_to_end_leaves_nothing_half_done() {
    let mut stage = Stage::new("sigterm", "");
    stage.produce(6_000);
    let mut records = Vec::new();
    for _ in 0..3 {
        let running = stage.start("");
        stage.in_the_middle(300);
        records.push(running.end());
        assert_eq!(stage.all() as u64, records.iter().sum::<u64>(), "what was read has had its effect");
    }
    assert!(records.iter().all(|read| *read > 0), "{records:?}");
    let last = stage.start("");
    stage.until_all();
    records.push(last.end());
    stage.check(&records);
}

#[test]
fn processes_that_come_and_go_read_each_record_once() {
    let mut stage = Stage::new("rebalance", "");
    stage.produce(6_000);
    let first = stage.start("");
    stage.in_the_middle(300);
    let second = stage.start("");
    stage.until("the second has its share", |_| second.has_partitions());
    stage.produce(6_000);
    stage.in_the_middle(300);
    let third = stage.start("");
    stage.until("the third has its share", |_| third.has_partitions());
    stage.produce(6_000);
    stage.in_the_middle(300);
    let mut records = vec![first.end()];
    stage.produce(6_000);
    stage.in_the_middle(300);
    records.push(second.end());
    stage.until_all();
    records.push(third.end());
    assert!(records.iter().all(|read| *read > 0), "{records:?}");
    stage.check(&records);
}

#[test]
fn a_named_process_that_comes_back_moves_no_partition() {
    let mut stage = Stage::new("named", "group_instance_id: \"${INSTANCE}\"");
    stage.produce(6_000);
    let one = stage.start("one");
    stage.until("the first has partitions", |_| one.has_partitions());
    let two = stage.start("two");
    stage.until("the second has its share", |_| two.has_partitions());
    stage.produce(6_000);
    stage.in_the_middle(300);
    let before = two.rebalances();
    let mut records = vec![one.end()];
    let one = stage.start("one");
    stage.until("the first has its partitions again", |_| one.has_partitions());
    stage.until_all();
    assert_eq!(two.rebalances(), before, "nothing was taken from the other or given to it:\n{}", two.log());
    records.extend([one.end(), two.end()]);
    stage.check(&records);
}
