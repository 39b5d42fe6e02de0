//! Applying is killed at every call it makes, before and after the call took effect, and done again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use millrace_control::{AppliedEntry, Board, Chain, GENERATIONS_KEPT, chain};
use millrace_core::{
    Admin, Answer, Broker, Call, CreateOutcome, Encoded, Error, Message, NewRecord, Position, Producer,
    Result, Sink, Source, Subscription, TopicInfo, TopicSpec,
};
use millrace_testkit::memory::MemoryBroker;

use super::{Outcome, Work, carry_out};

const CONTROL: &str = "millrace.control";

/// Counts the calls of one applier, and lets none through from the one on at which it is killed.
#[derive(Default)]
struct Life {
    calls: AtomicUsize,
    /// The call, and whether it still takes effect.
    killed: Mutex<Option<(usize, bool)>>,
}

impl Life {
    /// Whether this call takes effect, and whether anybody hears of it.
    fn call(&self) -> (bool, bool) {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        match *self.killed.lock().unwrap() {
            Some((at, effective)) if number == at => (effective, false),
            Some((at, _)) if number > at => (false, false),
            _ => (true, true),
        }
    }
}

async fn lived<T>(life: &Life, work: impl Future<Output = Result<T>>) -> Result<T> {
    let killed = || Error::retry("test", "killed");
    // So that two who apply take turns.
    tokio::task::yield_now().await;
    match life.call() {
        (true, true) => work.await,
        (true, false) => {
            let _ = work.await;
            Err(killed())
        }
        (false, _) => Err(killed()),
    }
}

#[derive(Clone)]
struct Mortal {
    real: MemoryBroker,
    life: Arc<Life>,
}

#[async_trait]
impl Broker for Mortal {
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Source>> {
        lived(&self.life, self.real.subscribe(subscription)).await
    }

    async fn producer(&self) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(self.clone()))
    }

    fn admin(&self) -> Arc<dyn Admin> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl Producer for Mortal {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<Position>> {
        let count = records.len();
        let sent = lived(&self.life, async { Ok(self.real.send(topic, records).await) }).await;
        sent.unwrap_or_else(|error| (0..count).map(|_| Err(Error::retry("test", error.chain()))).collect())
    }
}

#[async_trait]
impl Admin for Mortal {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<CreateOutcome> {
        lived(&self.life, self.real.create_topic(spec)).await
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        lived(&self.life, self.real.topics()).await
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicInfo>> {
        lived(&self.life, self.real.topic(name)).await
    }

    async fn progress(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        lived(&self.life, self.real.progress(group, topic)).await
    }

    async fn offsets_at(&self, topic: &str, at_ms: i64) -> Result<BTreeMap<i32, i64>> {
        lived(&self.life, self.real.offsets_at(topic, at_ms)).await
    }

    async fn set_progress(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        lived(&self.life, self.real.set_progress(group, topic, offsets)).await
    }

    async fn forget_progress(&self, group: &str, topic: &str) -> Result<()> {
        lived(&self.life, self.real.forget_progress(group, topic)).await
    }
}

/// An index that is made once.
struct MortalIndex {
    made: Arc<AtomicUsize>,
    life: Arc<Life>,
}

#[async_trait]
impl Sink for MortalIndex {
    async fn prepare(&self) -> Result<()> {
        let make = async {
            self.made.store(1, Ordering::SeqCst);
            Ok(())
        };
        lived(&self.life, make).await
    }

    fn encode(&self, _: &[Message]) -> Encoded {
        Encoded::default()
    }

    async fn send(&self, _: &[Call]) -> Vec<Answer> {
        Vec::new()
    }
}

#[derive(Default)]
struct Stage {
    broker: MemoryBroker,
    made: Arc<AtomicUsize>,
}

fn spec(name: &str) -> TopicSpec {
    TopicSpec {
        name: name.to_owned(),
        partitions: 2,
        retention_ms: None,
        retention_bytes: None,
        record_bytes_max: 1 << 20,
        replication: None,
        compact: false,
    }
}

impl Stage {
    async fn chain(&self) -> Chain {
        chain(Board::look_in_order(&self.broker, CONTROL).await.unwrap())
    }

    /// The hashes that were in force, oldest first, and what else there is.
    async fn state(&self) -> (Vec<String>, Vec<String>, usize) {
        let history = self.chain().await.history().iter().map(|applied| applied.entry.hash.clone()).collect();
        let topics = self.broker.topics().await.unwrap().into_iter().map(|info| info.name).collect();
        (history, topics, self.made.load(Ordering::SeqCst))
    }

    /// What the command does: looks, and then applies what it found to do.
    async fn apply(&self, hash: &str, life: &Arc<Life>) -> Result<Outcome> {
        let chain = self.chain().await;
        let last = chain.in_force().unwrap();
        let entry = AppliedEntry {
            generation: last.map_or(1, |last| last.entry.generation + 1),
            predecessor: last.map(|last| last.offset),
            hash: hash.to_owned(),
            ..AppliedEntry::default()
        };
        let broker: Arc<dyn Broker> = Arc::new(Mortal { real: self.broker.clone(), life: life.clone() });
        let index = MortalIndex { made: self.made.clone(), life: life.clone() };
        let work = Work {
            topics: ["a", "b", "c"].map(|name| (broker.clone(), spec(name))).into(),
            indexes: vec![("posts".to_owned(), Arc::new(index))],
            state: (broker, CONTROL.to_owned()),
            entry: (last.map(|last| last.entry.hash.as_str()) != Some(hash)).then_some(entry),
        };
        carry_out(&work, drop).await
    }

    /// With more history than is kept, so that there is something to tidy up, losers among it.
    async fn with_history() -> Self {
        let stage = Stage::default();
        for number in 0..GENERATIONS_KEPT {
            stage.apply(&number.to_string(), &Arc::default()).await.unwrap();
        }
        let board = Board::open(&stage.broker, CONTROL).await.unwrap();
        for nonce in 0..3 {
            let lost = serde_json::json!(AppliedEntry { generation: 2, ..AppliedEntry::default() });
            board.put(&[(millrace_control::applied_key(2, nonce), Some(lost))]).await.unwrap();
        }
        for number in 0..2 {
            let hash = (100 + number).to_string();
            stage.apply(&hash, &Arc::default()).await.unwrap();
        }
        stage
    }
}

#[tokio::test(start_paused = true)]
async fn killed_anywhere_and_done_again_it_ends_in_the_same_state() {
    let undisturbed = Stage::with_history().await;
    let life = Arc::<Life>::default();
    undisturbed.apply("new", &life).await.unwrap();
    let (expected, calls) = (undisturbed.state().await, life.calls.load(Ordering::SeqCst));
    assert_eq!(expected.0.last().map(String::as_str), Some("new"));
    assert!(calls >= 10, "{calls} calls, each is a place to be killed before and after");
    let mut kills = 0;
    for at in 0..calls {
        for effective in [false, true] {
            let stage = Stage::with_history().await;
            let life = Arc::new(Life { killed: Mutex::new(Some((at, effective))), ..Life::default() });
            let killed = stage.apply("new", &life).await;
            assert!(killed.is_err(), "killed at {at}: {killed:?}");
            stage.apply("new", &Arc::default()).await.unwrap();
            let (mut history, topics, made) = stage.state().await;
            // Twice in force says the same as once.
            history.dedup();
            assert_eq!((&history, &topics, made), (&expected.0, &expected.1, expected.2), "killed at {at}");
            let again = stage.apply("new", &Arc::default()).await.unwrap();
            assert_eq!(again, Outcome::Unchanged, "killed at {at}");
            kills += 1;
        }
    }
    assert!(kills >= 20, "{kills} kills");
}

#[tokio::test(start_paused = true)]
async fn of_two_at_once_one_wins_and_the_other_is_told() {
    let stage = Stage::default();
    stage.apply("first", &Arc::default()).await.unwrap();
    let (one, two) = (Arc::default(), Arc::default());
    let ends = tokio::join!(stage.apply("one", &one), stage.apply("two", &two));
    let ends = [("one", ends.0.unwrap()), ("two", ends.1.unwrap())];
    let in_force = stage.chain().await.in_force().unwrap().unwrap().clone();
    for (hash, end) in ends {
        match end {
            Outcome::InForce { generation: 2 } => assert_eq!(in_force.entry.hash, hash),
            Outcome::Lost { winner } => assert_eq!(winner.entry.hash, in_force.entry.hash),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stage.chain().await.history().len(), 2);
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_anything_is_written() {
    let stage = Stage::default();
    let state: (Arc<dyn Broker>, String) = (Arc::new(stage.broker.clone()), CONTROL.to_owned());
    let entry = AppliedEntry { text: "x".repeat(1 << 20), ..AppliedEntry::default() };
    let work = Work { topics: Vec::new(), indexes: Vec::new(), state, entry: Some(entry) };
    let error = carry_out(&work, drop).await.unwrap_err();
    assert!(error.chain().contains("too large"), "{}", error.chain());
    assert!(stage.broker.records(CONTROL).is_empty());
}
