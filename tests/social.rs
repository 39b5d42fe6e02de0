//! A social network's events to feeds, posts, search and counters: compared with a reference computed straight
//! from the events, embedded and on real servers, in every order of arrival.

use std::path::Path;

use crate::support::{
    corpus::{Corpus, user},
    millrace::{Millrace, Ran},
    reference::Reference,
    servers::{Embedded, Servers, World, required},
};

const PIPELINES: &str = include_str!("../pipelines.yaml");
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
        millrace.write("pipelines.yaml", PIPELINES);
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
        let reference = &self.reference;
        for person in 0..PEOPLE {
            let user = user(person);
            let feed = world.feed(&user);
            assert_eq!(feed, reference.feeds.get(&user).cloned().unwrap_or_default(), "the feed of {user}");
            assert_eq!(
                world.unread(&user).unwrap_or(0),
                reference.unread.get(&user).copied().unwrap_or(0),
                "unread of {user}"
            );
        }
        let found = world.index("posts");
        let ids = |posts: &std::collections::BTreeMap<String, serde_json::Value>| {
            posts.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(ids(&found), ids(&reference.posts));
        for (id, post) in &reference.posts {
            assert_same(&found[id], post, "the index");
            assert_same(
                &world.post(id).unwrap_or_else(|| panic!("post:{id} is missing")),
                post,
                "the summary",
            );
        }
        for number in 0..POSTS {
            let id = format!("p{number}");
            assert_eq!(world.post(&id).is_some(), reference.posts.contains_key(&id), "post:{id}");
        }
        assert_eq!(
            world.index("users").into_keys().collect::<std::collections::BTreeSet<_>>(),
            reference.users
        );
    }
}

/// Every field of the reference; what is beside them is bookkeeping.
fn assert_same(seen: &serde_json::Value, post: &serde_json::Value, what: &str) {
    for (field, value) in post.as_object().unwrap() {
        assert_eq!(&seen[field], value, "{field} of {} in {what}", post["post_id"]);
    }
}

/// The reference pipelines with topics, groups and indexes that begin with `prefix`.
fn prefixed(prefix: &str) -> String {
    let mut text = PIPELINES.to_owned();
    for topic in ["content-events", "user-events", "social-events", "order-events"] {
        text = text.replace(topic, &format!("{prefix}{topic}"));
    }
    // A short heartbeat, so that a second process gets its partitions while there is still something to do.
    let kafka =
        format!("kafka: {{ group_prefix: \"{prefix}\", heartbeat: 200ms, session_timeout: 6s, bootstrap:");
    text = text.replace("kafka: { bootstrap:", &kafka);
    let (head, rest) = text.split_once("\nindexes:\n").unwrap();
    let (indexes, pipelines) = rest.split_once("\npipelines:\n").unwrap();
    let (mut indexes, mut pipelines) = (format!("\n{indexes}"), pipelines.to_owned());
    for index in ["posts", "users", "notifications", "orders"] {
        indexes = indexes.replace(&format!("\n  {index}:\n"), &format!("\n  {prefix}{index}:\n"));
        pipelines = pipelines.replace(&format!("index: {index}\n"), &format!("index: {prefix}{index}\n"));
    }
    format!("{head}\nindexes:\n{indexes}\npipelines:\n{pipelines}")
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
