//! A call that was tried for as long as its budget allows: a pause, or dead letters.

use millrace_runtime::{Exhausted, HeldBy, RetryPolicy};
use tokio::time::{Duration, Instant};

use crate::{
    doubles::{Mood, System},
    stage::{NOW_MS, Stage, breaker, lookup, pass, paused, sink},
};

fn budget(seconds: u64, exhausted: Exhausted) -> RetryPolicy {
    RetryPolicy { budget: Some(Duration::from_secs(seconds)), exhausted, ..RetryPolicy::default() }
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_pauses_and_a_resumed_pipeline_tries_again() {
    let stage = Stage::new(2, 10);
    let system = System::new(Mood::Away);
    let mut part = sink("p", "feeds", &system, &breaker("store feeds"));
    part.retry = budget(60, Exhausted::Pause);
    let pipeline = stage.pipeline("p", vec![part]);
    let steering = pipeline.steering.clone();
    let before = Instant::now();
    let running = stage.start(vec![pipeline]);
    paused(&steering).await;
    assert_eq!(before.elapsed().as_secs(), 60);
    let pause = steering.paused().unwrap();
    assert_eq!((pause.by, pause.since_ms), (HeldBy::RetryBudget, NOW_MS));
    assert!(pause.reason.starts_with("sink:feeds: tried for 60"), "{}", pause.reason);
    assert!(pause.reason.ends_with("double: away"), "{}", pause.reason);
    let calls = system.calls();
    pass(Duration::from_secs(600)).await;
    assert_eq!(system.calls(), calls, "nobody calls while it is paused");
    // Resumed too early: it is tried for the whole budget again.
    steering.resume();
    let before = Instant::now();
    paused(&steering).await;
    assert_eq!(before.elapsed().as_secs(), 60);
    system.turn(Mood::Works);
    steering.resume();
    system.wait_for(20).await;
    stage.stop(running).await;
    assert!(stage.dead_letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_can_give_the_records_up() {
    let stage = Stage::new(1, 20);
    let (dead, fine) = (System::new(Mood::Away), System::new(Mood::Works));
    let mut part = sink("p", "feeds", &dead, &breaker("store feeds"));
    part.retry = budget(30, Exhausted::DeadLetters);
    let other = sink("p", "search", &fine, &breaker("store search"));
    let mut pipeline = stage.pipeline("p", vec![part, other]);
    pipeline.limits.batch_records_max = 10;
    let running = stage.start(vec![pipeline]);
    fine.wait_for(20).await;
    dead.turn(Mood::Works);
    dead.wait_for(10).await;
    stage.stop(running).await;
    let letters = stage.dead_letters();
    assert_eq!(letters.len(), 10, "the second batch came through");
    let [place, class, reason] = &letters[0];
    assert_eq!((place.as_str(), class.as_str()), ("sink:feeds", "retry"));
    assert!(reason.starts_with("sink:feeds: given up, tried for 30"), "{reason}");
    assert!(reason.ends_with("double: away"), "{reason}");
    assert_eq!(stage.committed("p")[0], Some(20));
}

#[tokio::test(start_paused = true)]
async fn a_lookups_records_are_given_up_too() {
    let stage = Stage::new(1, 5);
    let (store, system) = (System::new(Mood::Hangs), System::new(Mood::Works));
    let mut pipeline = stage.pipeline("p", vec![sink("p", "out", &system, &breaker("stdout"))]);
    pipeline.steps = vec![lookup(store, &breaker("store users"))];
    pipeline.retry = budget(30, Exhausted::DeadLetters);
    let running = stage.start(vec![pipeline]);
    pass(Duration::from_secs(60)).await;
    stage.stop(running).await;
    let letters = stage.dead_letters();
    assert_eq!(letters.len(), 5);
    assert_eq!(letters[0][..2], ["lookup:user", "retry"]);
    assert!(system.written().is_empty());
    assert_eq!(stage.committed("p")[0], Some(5));
}

#[tokio::test(start_paused = true)]
async fn dead_letters_that_cannot_be_written_always_pause() {
    let stage = Stage::new(1, 5);
    let system = System::new(Mood::Refuses);
    stage.letters.turn(Mood::Away);
    let mut pipeline = stage.pipeline("p", vec![sink("p", "feeds", &system, &breaker("store feeds"))]);
    pipeline.retry = budget(30, Exhausted::DeadLetters);
    let steering = pipeline.steering.clone();
    let running = stage.start(vec![pipeline]);
    paused(&steering).await;
    assert!(steering.paused().unwrap().reason.starts_with("dead-letters: tried for 30"));
    assert_eq!(stage.committed("p")[0], None);
    stage.stop(running).await;
}
