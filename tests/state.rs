//! Pipelines as state: planned, applied, followed by running processes, stopped and rewound.

mod applying;
mod following;
mod quarantine;
mod secrets;
mod swapping;
mod trials;

use serde_json::Value;
use tokio::time::{Duration, Instant};

use crate::support::{
    millrace::{Millrace, Ran},
    running::Running,
    servers::required,
};

/// The longest wait for something that must come: joining a group of a real broker takes seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// A folder with the program, and a broker of its own.
pub(crate) struct Stage {
    pub(crate) millrace: Millrace,
    flags: Vec<&'static str>,
    /// Begins the topics of the test.
    prefix: String,
    kafka: String,
}

/// A pipeline that copies a topic to another one.
pub(crate) struct Copy {
    pub(crate) name: &'static str,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    /// Further keys of the pipeline, a line.
    pub(crate) more: &'static str,
}

impl Copy {
    pub(crate) fn of(name: &'static str, from: &'static str, to: &'static str) -> Self {
        Copy { name, from, to, more: "" }
    }
}

impl Stage {
    fn embedded() -> Self {
        let millrace = Millrace::new().env("MILLRACE_STATE", "embedded:.millrace");
        Stage {
            millrace,
            flags: vec!["--embedded"],
            prefix: String::new(),
            kafka: "localhost:9092".to_owned(),
        }
    }

    /// With topics, groups and a control topic of its own.
    pub(crate) fn kafka(name: &str) -> Self {
        let (kafka, prefix) = (required("KAFKA_BROKERS"), format!("state-{name}-{}-", std::process::id()));
        let state = format!("kafka://{kafka}?group_prefix={prefix}.");
        Stage { millrace: Millrace::new().env("MILLRACE_STATE", &state), flags: vec![], prefix, kafka }
    }

    pub(crate) fn write(&self, pipelines: &[Copy]) {
        self.write_as("pipelines.yaml", pipelines);
    }

    fn write_as(&self, name: &str, pipelines: &[Copy]) {
        let Stage { prefix, kafka, .. } = self;
        let mut file = format!(
            "version: 1
brokers:
  main: {{ kafka: {{ bootstrap: \"{kafka}\", group_prefix: \"{prefix}.\" }} }}
topics:
  {prefix}in: {{ broker: main, partitions: 2 }}
  {prefix}one: {{ broker: main, partitions: 1 }}
  {prefix}two: {{ broker: main, partitions: 1 }}
pipelines:
"
        );
        for Copy { name, from, to, more } in pipelines {
            file.push_str(&format!(
                "  {name}:
    from: {{ topic: {prefix}{from}, format: bytes }}
    to: {{ out: {{ topic: {{ topic: {prefix}{to} }} }} }}
    {more}
"
            ));
        }
        self.millrace.write(name, file);
    }

    /// Runs a command on the file.
    fn run(&self, args: &[&str]) -> Ran {
        let args: Vec<&str> = args.iter().copied().chain(self.flags.iter().copied()).collect();
        self.millrace.run(&args)
    }

    fn ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        ran
    }

    pub(crate) fn apply(&self) -> Ran {
        self.ok(&["apply", "-f", "pipelines.yaml"])
    }

    fn plan(&self) -> Value {
        json(&self.ok(&["plan", "-f", "pipelines.yaml", "--json"]))
    }

    fn hash(&self) -> String {
        self.plan()["hash"].as_str().unwrap().to_owned()
    }

    /// A process that follows what is applied.
    pub(crate) fn follow(&self) -> Running {
        Running::start(self.millrace.command(&["run", "--listen", "127.0.0.1:0"]))
    }

    /// Each with a key of its own, so that some are on each partition: without one a client may stay with a partition.
    pub(crate) fn produce(&self, numbers: std::ops::Range<u32>) {
        let lines: String = numbers.map(|n| format!("{{\"n\":{n}}}\n")).collect();
        self.send(&lines, &["--key", "n"]);
    }

    fn send(&self, lines: &str, more: &[&str]) {
        self.millrace.write("lines", lines);
        self.ok(&[&["topic", "produce", &format!("{}in", self.prefix), "--file", "lines"], more].concat());
    }

    /// The numbers in a topic, sorted.
    pub(crate) fn numbers(&self, topic: &str) -> Vec<u32> {
        let number = |value: &str| serde_json::from_str::<Value>(value).unwrap()["n"].as_u64().unwrap();
        let values = self.values(topic).into_iter();
        let mut numbers: Vec<u32> = values.map(|(_, value)| u32::try_from(number(&value)).unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// The pipelines in `status`, by name, as the applied state has them.
    pub(crate) fn status(&self) -> Vec<Value> {
        let ran = self.millrace.run(&["status", "--json"]);
        let look: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:#?}"));
        look["pipelines"].as_array().unwrap().clone()
    }

    /// Looks until it is so.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&[Value]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pipelines = self.status();
            if holds(&pipelines) {
                return;
            }
            assert!(Instant::now() < deadline, "not seen: {what}; {pipelines:#?}");
        }
    }

    /// Waits until these pipelines, and no others, run as in this generation and have read all there is.
    pub(crate) fn until_done(&self, names: &[&str], generation: u64) {
        self.until(&format!("{names:?} are done in generation {generation}"), |pipelines| {
            let done = |pipeline: &Value| {
                let workers = pipeline["workers"].as_array().unwrap();
                pipeline["state"] == "running"
                    && pipeline["lag"] == 0
                    && !workers.is_empty()
                    && workers.iter().all(|worker| worker["generation"] == generation)
            };
            let seen: Vec<&str> =
                pipelines.iter().map(|pipeline| pipeline["pipeline"].as_str().unwrap()).collect();
            seen == names && pipelines.iter().all(done)
        });
    }
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:#?}"))
}

/// `0..count`, as many times.
pub(crate) fn times(count: u32, times: usize) -> Vec<u32> {
    (0..count).flat_map(|number| std::iter::repeat_n(number, times)).collect()
}
