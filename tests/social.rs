//! A social network's events to feeds, posts, search and counters: compared with a reference computed straight
//! from the events, embedded and on real servers, in every order of arrival.

use std::path::Path;

use crate::support::{
    corpus::Corpus,
    millrace::{Millrace, Ran},
    pipelines::{REFERENCE, prefixed},
    reference::Reference,
    servers::{Embedded, Servers, World, required},
};

const PEOPLE: u32 = 40;
const POSTS: u32 = 250;

/// The program, set up for one test on one kind of systems.
struct Stage {
    millrace: Millrace,
    flags: Vec<&'static str>,
    prefix: String,
    corpus: Corpus,
    reference: Reference,
}

impl Stage {
    fn embedded(seed: u64) -> Self {
        let millrace = Millrace::new();
        millrace.write("pipelines.yaml", REFERENCE);
        Self::new(millrace, vec!["--embedded"], String::new(), seed)
    }

    /// On Kafka, Redis and Elasticsearch: with topics, groups and indexes of its own, and a Redis database.
    fn servers(name: &str, database: u32, seed: u64) -> (Self, Servers) {
        let prefix = format!("{name}-{}-", std::process::id());
        let redis = format!("{}/{database}", required("REDIS_URL"));
        let elasticsearch = required("ES_URL");
        let millrace = Millrace::new()
            .env("KAFKA_BROKERS", &required("KAFKA_BROKERS"))
            .env("REDIS_URL", &redis)
            .env("ES_URL", &elasticsearch);
        millrace.write("pipelines.yaml", prefixed(&prefix));
        let mut servers = Servers::connect(&redis, &elasticsearch, &prefix);
        servers.flush();
        (Self::new(millrace, vec![], prefix, seed), servers)
    }

    fn new(millrace: Millrace, flags: Vec<&'static str>, prefix: String, seed: u64) -> Self {
        let corpus = Corpus::generate(PEOPLE, POSTS, seed);
        let reference = Reference::of(&corpus);
        let stage = Stage { millrace, flags, prefix, corpus, reference };
        stage.ok(&["topic", "create", "--all"]);
        stage
    }

    fn ok(&self, args: &[&str]) -> Ran {
        let args: Vec<&str> = args.iter().chain(&self.flags).copied().collect();
        self.millrace.ok(&args)
    }

    fn produce(&self, topic: &str, key: &str, lines: &[String]) {
        let file = self.millrace.write("input.ndjson", lines.join("\n"));
        let topic = format!("{}{topic}", self.prefix);
        self.ok(&["topic", "produce", &topic, "--key", key, "--file", &file.to_string_lossy()]);
    }

    fn follows(&self) {
        self.produce("social-events", "payload.follower_id", &self.corpus.follows);
        self.run();
    }

    fn created(&self) {
        self.produce("content-events", "payload.user_id", &self.corpus.created);
    }

    fn updated(&self) {
        self.produce("content-events", "payload.post_id", &self.corpus.updated);
    }

    fn deleted(&self) {
        self.produce("content-events", "payload.post_id", &self.corpus.deleted);
    }

    fn likes_and_users(&self) {
        self.produce("social-events", "payload.post_id", &self.corpus.likes);
        self.produce("user-events", "payload.user_id", &self.corpus.users);
    }

    fn run(&self) {
        let ran = self.ok(&["run", "--until-end", "--listen", "off", "--json"]);
        assert!(!ran.stdout.contains(r#""dead_letters":1"#), "{ran:#?}");
    }

    /// Two processes that share the groups.
    fn run_two(&self) {
        let mut args = vec!["run", "--until-end", "--listen", "off"];
        args.extend(&self.flags);
        let start = || self.millrace.command(&args).stderr(std::process::Stdio::piped()).spawn().unwrap();
        for process in [start(), start()] {
            let output = process.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    fn check(&self, world: &mut dyn World) {
        self.reference.assert_seen_in(world);
    }
}

fn embedded_views(stage: &Stage) -> Embedded {
    Embedded::open(&Path::new(stage.millrace.path()).join(".millrace"))
}

/// Everything produced, then run; then everything produced and run once more, which changes nothing.
fn twice(stage: &Stage, run: impl Fn(), mut world: impl FnMut() -> Box<dyn World>) {
    for _ in 0..2 {
        stage.follows();
        stage.created();
        stage.updated();
        stage.deleted();
        stage.likes_and_users();
        run();
        stage.check(&mut *world());
    }
}

/// Deletes first, then updates, then creates, each run to its end before the next is produced.
fn backwards(stage: &Stage) {
    stage.follows();
    stage.deleted();
    stage.run();
    stage.updated();
    stage.run();
    stage.created();
    stage.likes_and_users();
    stage.run();
}

#[test]
fn embedded_in_order_and_again() {
    let stage = Stage::embedded(1);
    twice(&stage, || stage.run(), || Box::new(embedded_views(&stage)));
}

#[test]
fn embedded_backwards() {
    let stage = Stage::embedded(2);
    backwards(&stage);
    stage.check(&mut embedded_views(&stage));
}

#[test]
fn servers_in_order_by_two_processes_and_again() {
    let (stage, _) = Stage::servers("order", 1, 3);
    let connect =
        || Servers::connect(&format!("{}/1", required("REDIS_URL")), &required("ES_URL"), &stage.prefix);
    twice(&stage, || stage.run_two(), || Box::new(connect()));
}

#[test]
fn servers_backwards() {
    let (stage, mut servers) = Stage::servers("backwards", 2, 4);
    backwards(&stage);
    stage.check(&mut servers);
}
