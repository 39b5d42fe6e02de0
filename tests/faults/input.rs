//! A social network that goes on and on: generated as it is appended, at a steady rate, and remembered.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rdkafka::{
    ClientConfig, ClientContext,
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};
use serde_json::Value;

use crate::{clock, support::corpus::Corpus};

/// Events that may overtake each other.
const SHUFFLED: usize = 400;
/// One of so many events is appended twice.
const AGAIN: u32 = 20;
/// How often the producer appends.
const STEP: Duration = Duration::from_millis(20);

/// Where events go, and by which field they are keyed.
pub const CONTENT: &str = "content-events";
pub const SOCIAL: &str = "social-events";
pub const USERS: &str = "user-events";

/// One event as it is appended.
pub struct Event {
    pub topic: &'static str,
    pub key: String,
    pub line: String,
}

impl Event {
    pub fn new(topic: &'static str, key: &str, line: &str) -> Self {
        let event: Value = serde_json::from_str(line).expect("an event");
        let key = event["payload"][key].as_str().expect("a key").to_owned();
        Event { topic, key, line: line.to_owned() }
    }
}

/// Posts, edits, deletes and likes without end, in a shuffled order.
pub struct Network {
    rng: SmallRng,
    id: u64,
    people: u32,
    posts: u32,
    waiting: Vec<Event>,
    /// All that was generated, the people and their follows included.
    pub corpus: Corpus,
}

impl Network {
    pub fn new(people: u32, seed: u64) -> Self {
        // Ids of people and follows are below those of posts.
        let corpus = Corpus::generate(people, 0, seed);
        let rng = SmallRng::seed_from_u64(seed);
        Network { rng, id: 1_000_000, people, posts: 0, waiting: Vec::new(), corpus }
    }

    /// Those of the people, which come before all others.
    pub fn people(&self) -> Vec<Event> {
        let users = self.corpus.users.iter().map(|line| Event::new(USERS, "user_id", line));
        users.chain(self.corpus.follows.iter().map(|line| Event::new(SOCIAL, "follower_id", line))).collect()
    }

    /// The next event.
    pub fn next(&mut self) -> Event {
        while self.waiting.len() < SHUFFLED {
            self.post();
        }
        self.take()
    }

    /// What is left of the posts that were begun.
    pub fn rest(&mut self) -> Vec<Event> {
        let mut rest = Vec::new();
        while !self.waiting.is_empty() {
            rest.push(self.take());
        }
        rest
    }

    fn take(&mut self) -> Event {
        let at = self.rng.random_range(0..self.waiting.len());
        self.waiting.swap_remove(at)
    }

    fn post(&mut self) {
        let mut fresh = Corpus::default();
        fresh.post(&mut self.rng, &mut self.id, self.people, self.posts);
        self.posts += 1;
        let kinds = [
            (CONTENT, "user_id", &fresh.created, &mut self.corpus.created),
            (CONTENT, "post_id", &fresh.updated, &mut self.corpus.updated),
            (CONTENT, "post_id", &fresh.deleted, &mut self.corpus.deleted),
            (SOCIAL, "post_id", &fresh.likes, &mut self.corpus.likes),
        ];
        for (topic, key, lines, all) in kinds {
            for line in lines {
                let times = if self.rng.random_range(0..AGAIN) == 0 { 2 } else { 1 };
                self.waiting.extend((0..times).map(|_| Event::new(topic, key, line)));
                all.push(line.clone());
            }
        }
    }
}

/// Counts what the broker acknowledged.
#[derive(Default)]
struct Acknowledged {
    records: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = if result.is_ok() { &self.records } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// How much of a network is let through: on slow machines faults take long, and what waits shall not grow with them.
#[derive(Default)]
pub struct Tap {
    events: AtomicU64,
    closed: AtomicBool,
}

impl Tap {
    /// Lets so many more events through.
    pub fn open(&self, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

/// Appends to topics that begin with a prefix, and waits for the broker as long as it takes.
pub struct Appender {
    producer: ThreadedProducer<Acknowledged>,
    prefix: String,
    sent: u64,
}

impl Appender {
    pub fn connect(bootstrap: &str, prefix: &str) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("broker.address.family", "v4")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "0")
            .set("message.max.bytes", "1100000")
            .set("partitioner", "murmur2_random")
            .set("reconnect.backoff.max.ms", "500")
            .create_with_context(Acknowledged::default())
            .expect("a producer");
        Appender { producer, prefix: prefix.to_owned(), sent: 0 }
    }

    pub fn append(&mut self, event: &Event) {
        let topic = format!("{}{}", self.prefix, event.topic);
        let mut record = BaseRecord::to(&topic).key(&event.key).payload(&event.line);
        // The queue is full when the broker is away for long; then the network waits.
        while let Err((error, again)) = self.producer.send(record) {
            let full = error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull);
            assert!(full, "appending to {topic}: {error}");
            record = again;
            clock::pause(STEP);
        }
        self.sent += 1;
    }

    pub fn append_all(&mut self, events: &[Event]) {
        events.iter().for_each(|event| self.append(event));
        self.flush();
    }

    /// Appends what the network gives, as the tap lets it; when the tap is closed, the rest.
    pub fn run(&mut self, network: &mut Network, per_second: u32, tap: &Tap) {
        let step = u64::from(per_second) * STEP.as_millis() as u64 / 1_000;
        while !tap.closed.load(Ordering::Relaxed) {
            let open = tap.events.load(Ordering::Relaxed).saturating_sub(self.sent);
            for _ in 0..open.min(step) {
                self.append(&network.next());
            }
            clock::pause(STEP);
        }
        self.append_all(&network.rest());
    }

    /// Waits until everything is acknowledged.
    pub fn flush(&self) {
        self.producer.flush(Duration::from_secs(120)).expect("the broker acknowledges");
        let counts = self.producer.context();
        assert_eq!(counts.failed.load(Ordering::Relaxed), 0, "appends failed");
        assert_eq!(counts.records.load(Ordering::Relaxed), self.sent, "acknowledged appends");
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }
}
