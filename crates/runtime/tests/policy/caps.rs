//! When something is wrong with everything, the pipeline pauses instead of emptying its topic into the dead letters.

use millrace_runtime::{HeldBy, Mode};
use tokio::time::Duration;

use crate::{
    doubles::{Mood, System},
    stage::{Stage, breaker, pass, paused, sink},
};

#[tokio::test(start_paused = true)]
async fn too_many_dead_letters_pause_before_they_are_written() {
    let stage = Stage::new(1, 25);
    let system = System::new(Mood::Refuses);
    let mut pipeline = stage.pipeline("p", vec![sink("p", "feeds", &system, &breaker("store feeds"))]);
    (pipeline.limits.dead_letters_per_minute_max, pipeline.limits.batch_records_max) = (15, 10);
    let steering = pipeline.steering.clone();
    let running = stage.start(vec![pipeline]);
    paused(&steering).await;
    pass(Duration::from_secs(600)).await;
    assert_eq!(stage.dead_letters().len(), 10);
    assert_eq!(stage.committed("p")[0], Some(10));
    let pause = steering.paused().unwrap();
    assert_eq!(pause.by, HeldBy::DeadLetters);
    let reason =
        "more than 15 dead letters within a minute; of the next ones 10 of 10 by sink:feeds: double: refused";
    assert_eq!(pause.reason, reason);
    // Resumed after the sink was mended: what was rejected before is written, and nothing else.
    system.turn(Mood::Works);
    steering.resume();
    system.wait_for(5).await;
    stage.stop(running).await;
    assert_eq!(stage.dead_letters().len(), 20);
    assert_eq!(stage.committed("p")[0], Some(25));
}

#[tokio::test(start_paused = true)]
async fn slow_dead_letters_are_let_through() {
    let stage = Stage::new(1, 0);
    let system = System::new(Mood::Refuses);
    let mut pipeline = stage.pipeline("p", vec![sink("p", "feeds", &system, &breaker("store feeds"))]);
    pipeline.limits.dead_letters_per_minute_max = 15;
    let steering = pipeline.steering.clone();
    let running = stage.start(vec![pipeline]);
    for number in 0..10 {
        stage.append(0, number * 10..number * 10 + 10);
        pass(Duration::from_secs(61)).await;
    }
    assert_eq!((steering.paused(), stage.dead_letters().len()), (None, 100));
    stage.stop(running).await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_ends_a_run_until_the_end_with_its_reason() {
    let stage = Stage::new(2, 20);
    let system = System::new(Mood::Refuses);
    let mut pipeline = stage.pipeline("p", vec![sink("p", "feeds", &system, &breaker("store feeds"))]);
    pipeline.limits.dead_letters_per_minute_max = 15;
    let report = stage.run(vec![pipeline], Mode::UntilEnd).await.unwrap();
    let (name, error) = &report.failures[0];
    let why = error.to_string();
    assert!(why.starts_with("paused by dead-letters: more than 15 dead letters"), "{name} {why}");
    assert!(stage.dead_letters().len() <= 15);
}
