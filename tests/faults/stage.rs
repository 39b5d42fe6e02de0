//! The reference pipelines and a copy of the likes to a topic, set up on the laboratory's servers.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use crate::{
    clock, hanging,
    input::{Appender, CONTENT, Network, SOCIAL, USERS},
    kafka::Kafka,
    laboratory::Laboratory,
    say,
    support::{
        millrace::Millrace,
        pipelines::prefixed,
        reference::Reference,
        servers::{Servers, http, http_with},
    },
};

/// How long the pipelines may take for any progress when nothing is harmed any more.
const PATIENCE: Duration = Duration::from_secs(120);
/// The topic that a pipeline writes.
const COPIES: &str = "copies";
const LIKED: &str = "social.post.liked.v1";
/// The pipelines, with the topics they read.
pub const READERS: [(&str, &str); 7] = [
    (CONTENT, "home-feed"),
    (CONTENT, "post-summaries"),
    (CONTENT, "post-search"),
    (SOCIAL, "follows"),
    (SOCIAL, "notifications"),
    (SOCIAL, "copies"),
    (USERS, "users"),
];

pub struct Stage {
    pub lab: Laboratory,
    pub millrace: Millrace,
    pub kafka: Kafka,
    pub prefix: String,
}

impl Stage {
    /// The reference pipelines and one that copies likes, on empty stores and topics of its own.
    pub fn set(name: &str) -> Self {
        Self::with(name, pipelines)
    }

    /// Pipelines whose topics, groups and indexes begin with the prefix they are given.
    pub fn with(name: &str, pipelines: impl Fn(&str) -> String) -> Self {
        let lab = Laboratory::enter();
        let prefix = format!("{name}-{}-", std::process::id());
        let millrace = Millrace::new()
            .env("KAFKA_BROKERS", &lab.kafka)
            .env("REDIS_URL", &lab.redis)
            .env("ES_URL", &lab.elasticsearch);
        millrace.write("pipelines.yaml", pipelines(&prefix));
        let kafka = Kafka::at(&lab.kafka);
        kafka.clear();
        clear(&lab.elasticsearch);
        let stage = Stage { lab, millrace, kafka, prefix };
        stage.world().flush();
        stage.millrace.ok(&["topic", "create", "--all"]);
        stage
    }

    pub fn appender(&self) -> Appender {
        Appender::connect(&self.lab.kafka, &self.prefix)
    }

    /// What readers see.
    pub fn world(&self) -> Servers {
        Servers::connect(&self.lab.redis, &self.lab.elasticsearch, &self.prefix)
    }

    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The people and whom they follow, all written: feeds are filled by who follows when a post comes.
    pub fn people(&self, network: &Network) {
        self.appender().append_all(&network.people());
        self.millrace.ok(&["run", "--until-end", "--listen", "off"]);
        // A killed Elasticsearch repeats what it has not flushed before it answers; that shall not grow with the trial.
        let flush = r#"{ "index.translog.flush_threshold_size": "1mb" }"#;
        let settings = format!("/{}*/_settings", self.prefix);
        let answer = http_with(&self.lab.elasticsearch, "PUT", &settings, flush).expect("an answer");
        assert!(answer.contains("\"acknowledged\":true"), "{answer}");
    }

    /// Waits until these pipelines have committed all of the topics they read. Fails when they stand still.
    pub fn drained(&self, readers: &[(&str, &str)], more: impl Fn() -> String) {
        let lags = || -> BTreeMap<&str, i64> {
            let lag = |topic, pipeline| self.kafka.lag(&self.topic(pipeline), &self.topic(topic));
            readers.iter().map(|(topic, pipeline)| (*pipeline, lag(topic, pipeline))).collect()
        };
        let mut left = i64::MAX;
        while left > 0 {
            left = clock::until(
                PATIENCE,
                || {
                    let lost = hanging::transactions().unwrap_or_default();
                    format!("no progress: {:?}\n{lost}\n{}", lags(), more())
                },
                || Some(lags().values().sum()).filter(|now| *now < left),
            );
        }
    }

    /// Feeds, posts, search and counters are those of the reference; the copies are those of the likes; nothing is a
    /// dead letter.
    pub fn check(&self, network: &Network) {
        if let Some(lost) = hanging::transactions() {
            panic!("{lost}");
        }
        Reference::of(&network.corpus).assert_seen_in(&mut self.world());
        for topic in [CONTENT, SOCIAL, USERS] {
            let letters = self.kafka.read(&self.topic(&format!("{topic}.dlq")));
            assert!(letters.is_empty(), "{topic}: {} dead letters, as {:?}", letters.len(), letters[0]);
        }
        let (likes, copies) = (self.likes(SOCIAL), self.likes(COPIES));
        let times = |id: &String| copies.get(id).copied().unwrap_or_default();
        let lost: u64 = likes.iter().map(|(id, count)| count.saturating_sub(times(id))).sum();
        let repeated: u64 = likes.iter().map(|(id, count)| times(id).saturating_sub(*count)).sum();
        say(&format!("of {} likes, copies lost: {lost}, repeated: {repeated}", likes.len()));
        assert!(copies.keys().all(|id| likes.contains_key(id)), "a copy of what is no like");
        assert_eq!((lost, repeated), (0, 0), "copies lost and repeated, of {} likes", likes.len());
    }

    /// How often each like stands in a topic.
    fn likes(&self, topic: &str) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (_, value) in self.kafka.read(&self.topic(topic)) {
            let event: Value = serde_json::from_str(&value).expect("an event");
            if event["eventType"] == LIKED {
                *counts.entry(event["eventId"].as_str().expect("an id").to_owned()).or_default() += 1;
            }
        }
        counts
    }
}

/// No index of a test before.
fn clear(elasticsearch: &str) {
    for index in http(elasticsearch, "GET", "/_cat/indices?format=json").as_array().expect("indexes") {
        http(elasticsearch, "DELETE", &format!("/{}", index["index"].as_str().expect("a name")));
    }
}

/// The reference pipelines with short waits, so that faults fit into them, and one that copies.
fn pipelines(prefix: &str) -> String {
    let waits = "    retry: { initial: 50ms, max: 500ms }\n    send_timeout: 2500ms\n    drain_timeout: 2500ms\n    to:\n";
    let copies = format!(
        "\n  copies:\n    from: {{ topic: {prefix}{SOCIAL}, events: [{LIKED}] }}\n    to:\n      copies: {{ topic: {{ topic: {prefix}{COPIES} }} }}\n"
    );
    let topics =
        format!("\ntopics:\n  {prefix}{COPIES}: {{ broker: main, partitions: 6, retention: 168h }}\n");
    let text = format!("{}{copies}", prefixed(prefix));
    let breaker = " }, breaker: { open_for: 200ms, open_for_max: 500ms } }\n";
    let (systems, rest) = text.split_once("\ntopics:\n").expect("topics");
    // A transaction that a killed process has begun holds up the next owner of its partition.
    let systems = systems.replace("group_prefix:", "transaction_timeout: 5s, group_prefix:");
    let text = format!("{}{topics}{rest}", systems.replace(" } }\n", breaker));
    text.replace("    to:\n", waits)
}
