//! A registry on a log in memory: the suite of all brokers, and what needs a look into the log or a crash in the middle.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod suite;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use millrace_core::{
    Admin, Broker, Class, Error, NewRecord, Position, Producer, Record, Result, Source, Subscription,
};
use millrace_registry::{Deployed, ModuleRegistry, NewModule, TopicRegistry};
use millrace_testkit::memory::MemoryBroker;
use suite::{module, noise};

const TOPIC: &str = "millrace.modules";
const HOUR_MS: i64 = 3_600_000;

#[tokio::test]
async fn passes_the_suite() {
    suite::run(Arc::new(MemoryBroker::default()), "suite").await;
}

/// A broker whose process dies after so many records.
struct Mortal {
    inner: MemoryBroker,
    left: Arc<AtomicUsize>,
}

#[async_trait]
impl Broker for Mortal {
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Source>> {
        self.inner.subscribe(subscription).await
    }

    async fn producer(&self) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(Mortal { inner: self.inner.clone(), left: self.left.clone() }))
    }

    fn admin(&self) -> Arc<dyn Admin> {
        self.inner.admin()
    }
}

#[async_trait]
impl Producer for Mortal {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<Position>> {
        let mut answers = Vec::new();
        for record in records {
            let lives =
                self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            answers.push(match lives {
                Ok(_) => self.inner.send(topic, vec![record]).await.remove(0),
                Err(_) => Err(Error::retry("test", "killed")),
            });
        }
        answers
    }
}

/// The keys that hold something.
fn keys(broker: &MemoryBroker) -> Vec<String> {
    let live = broker.records(TOPIC).into_iter().filter(|record| record.value.is_some());
    let mut keys: Vec<String> =
        live.map(|record| String::from_utf8(record.key.unwrap().to_vec()).unwrap()).collect();
    keys.sort();
    keys
}

/// Nothing but two versions, each with its pieces, and what the latest is.
fn assert_clean(broker: &MemoryBroker, pieces: usize) {
    let keys = keys(broker);
    let of = |prefix: &str| keys.iter().filter(|key| key.starts_with(prefix)).count();
    assert_eq!((of("module/"), of("latest/"), of("upload/"), of("chunk/")), (2, 2, 0, pieces), "{keys:?}");
}

/// Wherever a deploy is killed, the version is there whole or not at all; a later deploy finishes it, or begins anew
/// and removes what was left.
#[tokio::test]
async fn a_deploy_may_be_killed_anywhere() {
    let wasm = noise(3 << 20, 1);
    let mut survived = false;
    for lives in 0.. {
        let broker = MemoryBroker::default();
        let mortal = Mortal { inner: broker.clone(), left: Arc::new(AtomicUsize::new(lives)) };
        let end = TopicRegistry::new(Arc::new(mortal), TOPIC).deploy(module("a", "1.0.0", &wasm)).await;
        survived |= end.is_ok();
        let registry = TopicRegistry::new(Arc::new(broker.clone()), TOPIC);
        for manifest in
            registry.list().await.unwrap().modules.values().flat_map(|versions| versions.all.values())
        {
            assert!(registry.fetch(manifest).await.unwrap() == wasm, "killed after {lives} records");
        }
        let later =
            |name, wasm| NewModule { at_ms: 1_700_000_000_000 + 2 * HOUR_MS, ..module(name, "1.0.0", wasm) };
        registry.deploy(later("a", &wasm)).await.unwrap();
        registry.deploy(later("b", b"other")).await.unwrap();
        let shelf = registry.list().await.unwrap();
        assert_eq!(
            shelf.modules["a"].latest.as_ref().unwrap().to_string(),
            "1.0.0",
            "killed after {lives} records"
        );
        assert_clean(&broker, 7 + 1);
        if survived {
            assert!(lives > 9, "begun, seven pieces, a claim, the latest, ended");
            return;
        }
    }
}

#[tokio::test]
async fn a_delete_may_be_killed_anywhere() {
    let wasm = noise(1 << 20, 1);
    for lives in 0.. {
        let broker = MemoryBroker::default();
        let registry = TopicRegistry::new(Arc::new(broker.clone()), TOPIC);
        registry.deploy(module("a", "1.0.0", &wasm)).await.unwrap();
        registry.deploy(module("a", "2.0.0", b"other")).await.unwrap();
        let mortal = Mortal { inner: broker.clone(), left: Arc::new(AtomicUsize::new(lives)) };
        let version = "1.0.0".parse().unwrap();
        let end = TopicRegistry::new(Arc::new(mortal), TOPIC).delete("a", &version).await;
        if let Some(manifest) = registry.list().await.unwrap().modules["a"].all.get(&version) {
            assert!(registry.fetch(manifest).await.unwrap() == wasm, "killed after {lives} records");
            registry.delete("a", &version).await.unwrap();
        }
        let later = NewModule { at_ms: 1_700_000_000_000 + 2 * HOUR_MS, ..module("b", "1.0.0", b"third") };
        registry.deploy(later).await.unwrap();
        assert_clean(&broker, 2);
        if end.is_ok() {
            return;
        }
    }
}

/// A deploy under way is left alone by one that begins meanwhile; a claim that lost and was never taken back is not.
#[tokio::test]
async fn only_what_is_old_is_swept() {
    let broker = MemoryBroker::default();
    let mortal = Mortal { inner: broker.clone(), left: Arc::new(AtomicUsize::new(3)) };
    let wasm = noise(3 << 20, 1);
    TopicRegistry::new(Arc::new(mortal), TOPIC).deploy(module("a", "1.0.0", &wasm)).await.unwrap_err();
    let registry = TopicRegistry::new(Arc::new(broker.clone()), TOPIC);
    registry.deploy(module("b", "1.0.0", b"b")).await.unwrap();
    assert_eq!(keys(&broker).iter().filter(|key| key.starts_with("upload/")).count(), 1);
    // As one that was killed between its claim and the look at who has won.
    let Deployed::New(mut lost) = registry.deploy(module("c", "1.0.0", b"c")).await.unwrap() else {
        panic!("new")
    };
    lost.upload = "f00d".to_owned();
    let entry = serde_json::json!({ "format": 1, "entry": lost }).to_string();
    put(&broker, "module/c/1.0.0/f00d", Some(&entry)).await;
    let held = registry.list().await.unwrap().modules["c"].all.values().next().unwrap().upload.clone();
    assert_ne!(held, "f00d", "the first claim holds");
    let later = NewModule { at_ms: 1_700_000_000_000 + 2 * HOUR_MS, ..module("d", "1.0.0", b"d") };
    registry.deploy(later).await.unwrap();
    let left: Vec<_> =
        keys(&broker).into_iter().filter(|key| key.contains("f00d") || key.starts_with("upload/")).collect();
    assert!(left.is_empty(), "{left:?}");
}

async fn put(broker: &MemoryBroker, key: &str, value: Option<&str>) {
    let value = value.map(|value| value.to_owned().into());
    let record =
        NewRecord { key: Some(key.to_owned().into()), value, partition: Some(0), ..NewRecord::default() };
    broker.send(TOPIC, vec![record]).await.remove(0).unwrap();
}

#[tokio::test]
async fn what_a_newer_program_wrote_is_kept_and_what_is_damaged_is_not_there() {
    let broker = MemoryBroker::default();
    let registry = TopicRegistry::new(Arc::new(broker.clone()), TOPIC);
    registry.deploy(module("a", "1.0.0", b"a")).await.unwrap();
    put(&broker, "module/a/2.0.0/x", Some(r#"{"format": 2, "entry": {}}"#)).await;
    put(&broker, "module/a/3.0.0/x", Some("no json")).await;
    put(&broker, "latest/a", Some(r#"{"format": 2, "entry": {}}"#)).await;
    let shelf = registry.list().await.unwrap();
    let error = shelf.resolve(&"a@2.0.0".parse().unwrap()).unwrap_err();
    assert!(error.chain().contains("newer program"), "{}", error.chain());
    assert!(shelf.resolve(&"a@3.0.0".parse().unwrap()).is_err());
    assert!(shelf.resolve(&"a@1.0.0".parse().unwrap()).is_ok());
    for refused in [
        registry.deploy(module("a", "2.0.0", b"b")).await.map(drop),
        registry.delete("a", &"2.0.0".parse().unwrap()).await.map(drop),
        registry.roll_back("a").await.map(drop),
        registry.point("a", &"1.0.0".parse().unwrap()).await.map(drop),
    ] {
        assert!(refused.unwrap_err().chain().contains("newer program"));
    }
}

#[tokio::test]
async fn code_that_is_not_what_was_deployed_is_refused() {
    let broker = MemoryBroker::default();
    let registry = TopicRegistry::new(Arc::new(broker.clone()), TOPIC);
    let Deployed::New(manifest) = registry.deploy(module("a", "1.0.0", b"a")).await.unwrap() else {
        panic!("new")
    };
    let Deployed::New(other) = registry.deploy(module("a", "1.0.1", b"b")).await.unwrap() else {
        panic!("new")
    };
    let piece = |upload: &str| {
        let key = format!("chunk/{upload}/0");
        let is_it = |record: &Record| record.key.as_deref() == Some(key.as_bytes());
        broker.records(TOPIC).into_iter().find(is_it).unwrap()
    };
    let mut exchanged = NewRecord::copy_of(&piece(&other.upload));
    exchanged.key = piece(&manifest.upload).key;
    exchanged.partition = Some(1);
    broker.send(TOPIC, vec![exchanged]).await.remove(0).unwrap();
    let error = registry.fetch(&manifest).await.unwrap_err();
    assert_eq!(error.class(), Class::Fatal);
    assert!(error.chain().contains("damaged"), "{}", error.chain());
    let mut endless = manifest.clone();
    endless.chunks = u32::MAX;
    assert!(registry.fetch(&endless).await.is_err());
    endless.chunks = 1;
    endless.size_bytes = u64::MAX;
    assert!(registry.fetch(&endless).await.is_err());
}

#[tokio::test]
async fn a_topic_that_somebody_made_is_told_apart() {
    let broker = MemoryBroker::with_topic(TOPIC, 1);
    let registry = TopicRegistry::new(Arc::new(broker), TOPIC);
    for error in
        [registry.deploy(module("a", "1.0.0", b"a")).await.map(drop), registry.list().await.map(drop)]
    {
        assert!(error.unwrap_err().chain().contains("needs 2"));
    }
}
