//! A system that is away is left alone, nothing that waits for it is lost, and no call waits for ever.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use millrace_core::{
    Answer, Call, Claim, EffectIdentity, Encoded, Error, Ledger, Message, Result, Sink, SinkId,
};
use millrace_runtime::{BreakerState, GuardedLedger, Health, PipelineState};
use millrace_testkit::memory::CommitFault;
use tokio::time::{Duration, Instant};

use crate::{
    doubles::{Mood, System},
    stage::{NOW_MS, Stage, breaker, lookup, pass, sink},
};

fn state(health: &Health, endpoint: &str) -> BreakerState {
    health.endpoints()[endpoint].breaker
}

#[tokio::test(start_paused = true)]
async fn a_dead_sink_is_left_alone_and_drained_in_order_when_it_is_back() {
    let stage = Stage::new(4, 50);
    let (system, guard) = (System::new(Mood::Away), breaker("store feeds"));
    let running = stage.start(vec![stage.pipeline("p", vec![sink("p", "feeds", &system, &guard)])]);
    pass(Duration::from_secs(60)).await;
    // Four workers; without a breaker they would have made some forty tries.
    let calls = system.calls();
    assert!((5..=14).contains(&calls), "{calls} calls within a minute");
    assert_eq!(state(&stage.health, "store feeds"), BreakerState::Open);
    let now = &stage.health.states()["p"];
    assert!(matches!(now, PipelineState::Retrying(_)), "{now:?}");
    let why = now.reason().unwrap();
    assert!(why.ends_with("double: away"), "{why}");
    let last = &stage.health.last_errors()["p"];
    assert_eq!(
        (last.place.as_str(), last.error.as_str(), last.at_ms),
        ("sink:feeds", "double: away", NOW_MS)
    );
    assert!(last.record.as_ref().unwrap().starts_with("events/"), "{last:?}");
    let text = stage.metrics.render();
    assert!(text.contains(r#"millrace_breaker_state{endpoint="store feeds"} 2"#), "{text}");
    assert!(text.contains(r#"millrace_retries_total{pipeline="p",place="sink:feeds"}"#), "{text}");

    system.turn(Mood::Works);
    let back = Instant::now();
    system.wait_for(200).await;
    assert!(back.elapsed() <= Duration::from_secs(31), "{:?}", back.elapsed());
    assert_eq!(state(&stage.health, "store feeds"), BreakerState::Closed);
    assert_eq!(stage.health.states()["p"], PipelineState::Running);
    let mut by_partition: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for id in system.written() {
        let (partition, number) = id.split_once('-').unwrap();
        by_partition.entry(partition.to_owned()).or_default().push(number.parse().unwrap());
    }
    for numbers in by_partition.values() {
        assert_eq!(*numbers, (0..50).collect::<Vec<_>>(), "in order, each once");
    }
    stage.stop(running).await;
    assert_eq!(stage.committed("p"), [Some(50); 4]);
    assert!(stage.dead_letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn pipelines_share_the_breaker_of_a_system() {
    let stage = Stage::new(1, 10);
    let (dead, idle, guard) = (System::new(Mood::Away), System::new(Mood::Works), breaker("store feeds"));
    let failing = stage.start(vec![stage.pipeline("p", vec![sink("p", "feeds", &dead, &guard)])]);
    pass(Duration::from_secs(20)).await;
    assert_eq!(state(&stage.health, "store feeds"), BreakerState::Open);
    // Another double stands for the same system: it would work, but nobody may know that.
    let waiting = stage.start(vec![stage.pipeline("q", vec![sink("q", "feeds", &idle, &guard)])]);
    pass(Duration::from_millis(100)).await;
    assert_eq!(idle.calls(), 0);
    let now = &stage.health.states()["q"];
    assert!(matches!(now, PipelineState::Retrying(_)), "{now:?}");
    let why = now.reason().unwrap();
    assert_eq!(why, "store feeds: is not called for a while, it failed last by: double: away");
    dead.turn(Mood::Works);
    idle.wait_for(10).await;
    dead.wait_for(10).await;
    stage.stop(failing).await;
    stage.stop(waiting).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_answer() {
    let stage = Stage::new(1, 40);
    let (system, guard) = (System::new(Mood::Refuses), breaker("store feeds"));
    let running = stage.start(vec![stage.pipeline("p", vec![sink("p", "feeds", &system, &guard)])]);
    pass(Duration::from_secs(5)).await;
    assert_eq!(state(&stage.health, "store feeds"), BreakerState::Closed);
    stage.stop(running).await;
    assert_eq!(stage.dead_letters().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_an_open_breaker() {
    let stage = Stage::new(2, 10);
    let (system, guard) = (System::new(Mood::Away), breaker("store feeds"));
    let running = stage.start(vec![stage.pipeline("p", vec![sink("p", "feeds", &system, &guard)])]);
    pass(Duration::from_secs(120)).await;
    let before = Instant::now();
    stage.stop(running).await;
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    assert_eq!(stage.committed("p"), [None; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_never_answers_is_tried_again_and_counts_as_a_failure() {
    let stage = Stage::new(1, 10);
    let (store, system) = (System::new(Mood::Hangs), System::new(Mood::Works));
    let mut pipeline = stage.pipeline("p", vec![sink("p", "out", &system, &breaker("stdout"))]);
    pipeline.steps = vec![lookup(store.clone(), &breaker("store users"))];
    let running = stage.start(vec![pipeline]);
    pass(Duration::from_secs(6)).await;
    let last = &stage.health.last_errors()["p"];
    assert_eq!(last.error, "store users: lookup:user: no answer within 5000 ms");
    assert_eq!((last.place.as_str(), last.record.as_deref()), ("lookup:user", Some("events/0/0")));
    pass(Duration::from_secs(60)).await;
    assert_ne!(state(&stage.health, "store users"), BreakerState::Closed);
    store.turn(Mood::Works);
    system.wait_for(10).await;
    assert_eq!(state(&stage.health, "store users"), BreakerState::Closed);
    stage.stop(running).await;
    assert_eq!(stage.committed("p")[0], Some(10));
}

#[tokio::test(start_paused = true)]
async fn dead_letters_that_are_not_acknowledged_hold_their_batch() {
    let stage = Stage::new(1, 10);
    let system = System::new(Mood::Refuses);
    stage.letters.turn(Mood::Hangs);
    let pipeline = stage.pipeline("p", vec![sink("p", "feeds", &system, &breaker("store feeds"))]);
    let running = stage.start(vec![pipeline]);
    pass(Duration::from_secs(60)).await;
    let last = &stage.health.last_errors()["p"];
    assert_eq!((last.place.as_str(), last.record.as_deref()), ("dead-letters", Some("events/0/0")));
    assert_eq!(last.error, "broker main: dead-letters: no answer within 5000 ms");
    assert_eq!(stage.committed("p")[0], None);
    stage.letters.turn(Mood::Works);
    pass(Duration::from_secs(60)).await;
    stage.stop(running).await;
    assert_eq!((stage.committed("p")[0], stage.dead_letters().len()), (Some(10), 10));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_beside_an_open_breaker_does_not_spin() {
    let stage = Stage::new(1, 0);
    let (dead, fine, broker) = (System::new(Mood::Away), System::new(Mood::Works), breaker("broker main"));
    let mut pipeline = stage.pipeline("p", vec![sink("p", "feeds", &fine, &breaker("store feeds"))]);
    (pipeline.transactions, pipeline.breaker) = (true, broker.clone());
    let running = stage.start(vec![pipeline]);
    let failing = stage.start(vec![stage.pipeline("q", vec![sink("q", "copy", &dead, &broker)])]);
    pass(Duration::from_secs(1)).await;
    stage.append(0, 0..10);
    pass(Duration::from_secs(60)).await;
    assert_eq!(state(&stage.health, "broker main"), BreakerState::Open);
    assert_eq!(stage.committed("p")[0], Some(10));
    stage.broker.arm_commits([CommitFault::Away; 12]);
    stage.append(0, 10..20);
    let before = Instant::now();
    while stage.committed("p")[0] != Some(20) {
        assert!(before.elapsed() < Duration::from_secs(3_600));
        pass(Duration::from_millis(100)).await;
    }
    assert!(before.elapsed() > Duration::from_secs(1), "{:?}", before.elapsed());
    stage.stop(failing).await;
    stage.stop(running).await;
}

/// A receiver that works, behind a ledger that may not.
struct Claiming(GuardedLedger);

#[async_trait]
impl Sink for Claiming {
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    fn encode(&self, messages: &[Message]) -> Encoded {
        let calls = (0u32..).zip(messages).map(|(index, _)| Call::single("post", index, vec![])).collect();
        Encoded { calls, rejected: Vec::new() }
    }

    async fn send(&self, calls: &[Call]) -> Vec<Answer> {
        let claimed = self.0.claim(&[], Duration::ZERO).await.map_err(|error| error.chain());
        let answer = || match &claimed {
            Ok(_) => Answer::Done,
            Err(why) => Answer::Failed(Error::retry("hook", why)),
        };
        calls.iter().map(|_| answer()).collect()
    }
}

struct Entries(Arc<System>);

#[async_trait]
impl Ledger for Entries {
    async fn claim(&self, _: &[EffectIdentity], _: Duration) -> Result<Vec<Claim>> {
        millrace_core::Lookup::close(&*self.0, &[], Duration::ZERO).await.map(|()| Vec::new())
    }

    async fn done(&self, _: &[EffectIdentity]) -> Result<()> {
        Ok(())
    }

    async fn release(&self, _: &[EffectIdentity]) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_is_away_is_not_the_receivers_fault() {
    let stage = Stage::new(1, 10);
    let (store, guard, host) = (System::new(Mood::Away), breaker("store feeds"), breaker("webhook x"));
    let ledger = GuardedLedger::new(Arc::new(Entries(store.clone())), guard.clone(), Duration::from_secs(5));
    let mut part = sink("p", "hook", &System::new(Mood::Works), &host);
    part.id = SinkId { pipeline: "p".into(), sink: "hook".into() };
    (part.sink, part.ledger) = (Arc::new(Claiming(ledger)), Some(guard));
    let running = stage.start(vec![stage.pipeline("p", vec![part])]);
    pass(Duration::from_secs(60)).await;
    assert_eq!(state(&stage.health, "store feeds"), BreakerState::Open);
    assert_eq!(stage.health.endpoints()["webhook x"].failures, 0);
    assert!(store.calls() <= 14, "{}", store.calls());
    store.turn(Mood::Works);
    pass(Duration::from_secs(31)).await;
    stage.stop(running).await;
    assert_eq!(stage.committed("p")[0], Some(10));
}
