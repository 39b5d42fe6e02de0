//! What an operator sees and steers: one process runs, others hold it, look at it and let it go on.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::Value;
use tokio::time::{Duration, Instant};

use crate::support::{
    millrace::{Millrace, Ran},
    running::Running,
    servers::required,
};

/// The longest wait for something that must come: joining a group of a real broker takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program with one pipeline.
struct Stage {
    millrace: Millrace,
    flags: Vec<&'static str>,
    prefix: String,
}

impl Stage {
    /// A pipeline that copies a topic.
    fn new(flags: Vec<&'static str>, prefix: &str, kafka: &str) -> Self {
        let file = format!(
            "version: 1
brokers:
  main: {{ kafka: {{ bootstrap: \"{kafka}\", group_prefix: \"{prefix}.\" }} }}
topics:
  {prefix}in: {{ broker: main, partitions: 2 }}
  {prefix}out: {{ broker: main, partitions: 1 }}
pipelines:
  copy:
    from: {{ topic: {prefix}in, format: bytes }}
    to: {{ out: {{ topic: {{ topic: {prefix}out }} }} }}
"
        );
        Self::of(&file, flags, prefix)
    }

    fn of(file: &str, flags: Vec<&'static str>, prefix: &str) -> Self {
        let millrace = Millrace::new();
        millrace.write("pipelines.yaml", file);
        Stage { millrace, flags, prefix: prefix.to_owned() }
    }

    fn embedded() -> Self {
        let stage = Self::new(vec!["--embedded"], "", "localhost:9092");
        stage.ok(&["topic", "create", "--all"]);
        stage
    }

    /// With topics and a control topic of its own.
    fn kafka(name: &str) -> Self {
        let prefix = format!("control-{name}-{}-", std::process::id());
        let stage = Self::new(vec![], &prefix, &required("KAFKA_BROKERS"));
        stage.ok(&["topic", "create", "--all"]);
        stage
    }

    fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        args.iter().copied().chain(self.flags.iter().copied()).collect()
    }

    fn ok(&self, args: &[&str]) -> Ran {
        self.millrace.ok(&self.args(args))
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.millrace.run(&self.args(args))
    }

    fn produce(&self, lines: std::ops::Range<u32>) {
        let lines: String = lines.map(|line| format!("{line}\n")).collect();
        self.millrace.write("lines", lines);
        self.ok(&["topic", "produce", &format!("{}in", self.prefix), "--file", "lines"]);
    }

    /// What the pipeline has written.
    fn copied(&self) -> usize {
        let out = format!("{}out", self.prefix);
        self.ok(&["topic", "tail", &out, "--from", "beginning", "--until-end"]).stdout.lines().count()
    }

    fn start(&self) -> Running {
        Running::start(self.millrace.command(&self.args(&["run", "--listen", "127.0.0.1:0"])))
    }

    /// The one pipeline in `status --json`, and the exit code.
    fn status(&self) -> (Value, Option<i32>) {
        let ran = self.run(&["status", "--json"]);
        let look: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:#?}"));
        (look["pipelines"][0].clone(), ran.code)
    }

    /// Looks until it is so.
    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (pipeline, code) = self.status();
            if holds(&pipeline) {
                return code;
            }
            assert!(Instant::now() < deadline, "not seen: {what}; {pipeline:#}");
        }
    }
}

/// Ages differ from run to run; their column is five wide.
fn without_ages(text: &str) -> String {
    (0..60).fold(text.to_owned(), |text, seconds| {
        text.replace(&format!("  {:<5}  ", format!("{seconds}s")), "  _s     ")
    })
}

fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |pipeline| {
        let workers = pipeline["workers"].as_array().unwrap();
        pipeline["state"] == state && workers.len() == 1 && workers[0]["state"] == state
    }
}

fn held_across_restarts(stage: &Stage) {
    stage.produce(0..10);
    let running = stage.start();
    let done = |pipeline: &Value| is("running")(pipeline) && pipeline["lag"] == 0;
    assert_eq!(stage.until("all is read", done), Some(0));
    assert_eq!(stage.copied(), 10);
    assert_eq!(running.readyz().0, 200);

    stage.ok(&["pause", "copy", "--reason", "reindexing"]);
    assert_eq!(stage.until("the worker is held", is("paused")), Some(1));
    let (code, ready) = running.readyz();
    assert_eq!(code, 503);
    let copy = &ready["pipelines"]["copy"];
    assert_eq!(
        (&copy["state"], &copy["by"], &copy["reason"]),
        (&"paused".into(), &"operator".into(), &"reindexing".into())
    );
    stage.produce(10..15);
    let waits = |pipeline: &Value| is("paused")(pipeline) && pipeline["lag"] == 5;
    stage.until("what is new waits", waits);

    // The process ends and is started again: it stays held, and takes nothing in.
    running.stop();
    let gone = |pipeline: &Value| {
        pipeline["state"] == "paused" && pipeline["workers"].as_array().unwrap().is_empty()
    };
    assert_eq!(stage.until("the process has left the board", gone), Some(1));
    let running = stage.start();
    stage.until("it is held again", waits);
    assert_eq!(running.readyz().0, 503);
    assert_eq!(stage.copied(), 10);

    stage.ok(&["resume", "copy"]);
    assert_eq!(stage.until("it goes on", done), Some(0));
    assert_eq!(running.readyz().0, 200);
    running.stop();
    assert_eq!(stage.copied(), 15);
}

#[test]
fn a_pause_holds_across_restarts_embedded() {
    held_across_restarts(&Stage::embedded());
}

#[test]
fn a_pause_holds_across_restarts_on_kafka() {
    held_across_restarts(&Stage::kafka("one"));
}

/// All processes of a deployment obey, and each tells of itself.
#[test]
fn two_processes_are_held_and_let_go_together() {
    let stage = Stage::kafka("two");
    let both = [stage.start(), stage.start()];
    let are = |state: &'static str| {
        move |pipeline: &Value| {
            let workers = pipeline["workers"].as_array().unwrap();
            workers.len() == 2 && workers.iter().all(|worker| worker["state"] == state)
        }
    };
    stage.until("both run", are("running"));
    stage.ok(&["pause", "copy"]);
    stage.until("both are held", are("paused"));
    stage.ok(&["resume", "--all"]);
    assert_eq!(stage.until("both go on", are("running")), Some(0));
    both.into_iter().for_each(Running::stop);
}

/// Nobody answers at its webhook, which has progress and a retry budget of its own.
const ISOLATED: &str = r#"version: 1
brokers: { main: { kafka: { bootstrap: "localhost:9092" } } }
stores: { views: { redis: { url: "redis://localhost:6379" } } }
topics: { in: { broker: main, partitions: 1 }, out: { broker: main, partitions: 1 } }
pipelines:
  p:
    from: { topic: in }
    to:
      out: { topic: { topic: out } }
      hook:
        webhook: { url: "http://127.0.0.1:9/", allow_http: true, allow_private: [127.0.0.1], secret: s, ledger: views }
        isolated: true
        retry: { max: 200ms, budget: 1s }
"#;

/// A pause that the runtime makes survives restarts as a person's does, and holds its own lane only.
#[test]
fn a_used_up_retry_budget_holds_its_lane_until_it_is_resumed() {
    let stage = Stage::of(ISOLATED, vec!["--embedded"], "");
    stage.ok(&["topic", "create", "--all"]);
    let event = |id: u32| {
        format!(
            "{{\"eventId\":\"{id}\",\"eventType\":\"a.b.v1\",\"occurredAt\":\"2026-01-01T00:00:00Z\",\"payload\":{{}}}}\n"
        )
    };
    stage.millrace.write("lines", (0..3).map(event).collect::<String>());
    stage.ok(&["topic", "produce", "in", "--file", "lines"]);
    let held = |pipeline: &Value| {
        pipeline["state"] == "paused" && pipeline["by"] == "retry-budget" && pipeline["lag"] == 0
    };
    let running = stage.start();
    assert_eq!(stage.until("the lane is held, the other has done its work", held), Some(1));
    let (first, _) = stage.status();
    assert!(first["reason"].as_str().unwrap().starts_with("sink hook: "), "{first:#}");
    assert_eq!(first["isolated"]["hook"]["lag"], 3, "{first:#}");
    let error = &first["last_error"];
    assert!(error["place"].as_str().unwrap().contains("hook") && error["record"].is_string(), "{first:#}");
    assert_eq!(stage.copied(), 3);

    running.stop();
    let running = stage.start();
    let both = |pipeline: &Value| held(pipeline) && pipeline["workers"].as_array().unwrap().len() == 2;
    stage.until("it is held by the same pause", |pipeline| {
        both(pipeline) && pipeline["since_ms"] == first["since_ms"]
    });
    stage.ok(&["resume", "p"]);
    stage.until("it has tried for as long again", |pipeline| {
        both(pipeline) && pipeline["since_ms"] != first["since_ms"]
    });
    running.stop();
}

#[test]
fn what_an_operator_reads() {
    let stage = Stage::embedded();
    let mut seen = String::new();
    let mut show = |args: &[&str]| {
        let ran = stage.run(args);
        seen.push_str(&without_ages(&ran.snapshot()));
    };
    show(&["status"]);
    show(&["pause", "copy", "--reason", "reindexing"]);
    show(&["pause", "copy"]);
    stage.produce(0..3);
    show(&["status"]);
    show(&["run", "--until-end", "--listen", "off", "--log", "off"]);
    show(&["resume", "--all"]);
    show(&["resume", "copy", "--json"]);
    show(&["pause", "cpoy"]);
    show(&["pause", "copy", "--reason", "two\nlines"]);
    insta::assert_snapshot!(seen);
    // The run that was held has left nothing but the pause's reason.
    stage.ok(&["run", "--until-end", "--listen", "off"]);
    assert_eq!(stage.copied(), 3);
}

#[test]
fn a_broker_that_is_away_is_named() {
    let stage = Stage::new(vec![], "away-", "127.0.0.1:9");
    let ran = stage.run(&["status", "--timeout-ms", "3000"]);
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    assert!(ran.stdout.contains("unknown"), "{ran:#?}");
    assert!(ran.stderr.contains("broker main"), "{ran:#?}");
    let (pipeline, code) = {
        let ran = stage.run(&["status", "--timeout-ms", "3000", "--json"]);
        (serde_json::from_str::<Value>(&ran.stdout).unwrap()["pipelines"][0].clone(), ran.code)
    };
    assert_eq!((&pipeline["state"], code), (&"unknown".into(), Some(3)), "{pipeline:#}");
}

#[test]
fn a_watch_looks_again() {
    let stage = Stage::embedded();
    let mut command = stage.millrace.command(&stage.args(&["status", "--watch", "--json"]));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let states: Vec<Value> = lines
        .take(2)
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()["pipelines"][0]["state"].clone())
        .collect();
    assert_eq!(states, ["no worker", "no worker"]);
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
