//! Pipelines that are started, ended and begun again while others go on.

use std::collections::BTreeSet;

use millrace_runtime::Fleet;

use super::*;

fn fleet(bench: &Bench, health: &Health) -> Fleet {
    let clock = Clock::fixed(1_800_000_000_000);
    Fleet::new(Mode::Forever, bench.metrics.clone(), health.clone(), clock, bench.shutdown.clone())
}

fn events(ids: std::ops::Range<u32>) -> Vec<String> {
    ids.map(|id| event(id, CREATED, &format!(r#"{{"n":{id}}}"#))).collect()
}

/// Time passes only while nobody has anything to do.
async fn until(health: &Health, name: &str, state: &str) {
    while health.states().get(name).is_none_or(|now| now.name() != state) {
        tokio::time::advance(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_ended_pipeline_begins_again_where_it_was() {
    let (bench, health) = (Bench::new(1, 10), Health::default());
    bench.broker.append(TOPIC, 0, events(0..5));
    let pipeline = bench.pipeline(Vec::new());
    let steering = pipeline.steering.clone();
    let mut fleet = fleet(&bench, &health);
    fleet.start(Arc::new(pipeline));
    bench.sink.wait_for(5).await;
    steering.set_ended(true);
    until(&health, GROUP, "stopped").await;
    assert_eq!(bench.broker.committed(GROUP, TOPIC, 0), Some(5), "what was done is committed");
    bench.broker.append(TOPIC, 0, events(5..8));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(bench.sink.written().len(), 5, "nobody reads");
    assert!(fleet.runs(GROUP), "it waits to begin again");
    steering.set_ended(false);
    assert_eq!(bench.sink.wait_for(8).await.len(), 8);
    bench.shutdown.cancel();
    let report = fleet.finish().await;
    assert_eq!(report.summaries[0].1.records, 8, "both runs are counted");
    assert_eq!(bench.broker.committed(GROUP, TOPIC, 0), Some(8));
}

#[tokio::test(start_paused = true)]
async fn one_that_starts_ended_reads_nothing() {
    let (bench, health) = (Bench::new(1, 10), Health::default());
    bench.broker.append(TOPIC, 0, events(0..5));
    let pipeline = bench.pipeline(Vec::new());
    let steering = pipeline.steering.clone();
    steering.set_ended(true);
    let mut fleet = fleet(&bench, &health);
    fleet.start(Arc::new(pipeline));
    until(&health, GROUP, "stopped").await;
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(bench.sink.written().is_empty());
    steering.set_ended(false);
    bench.sink.wait_for(5).await;
    bench.shutdown.cancel();
    assert!(fleet.finish().await.failures.is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_is_replaced_while_another_goes_on() {
    let (bench, health) = (Bench::new(1, 10), Health::default());
    bench.broker.append(TOPIC, 0, events(0..5));
    let mut fleet = fleet(&bench, &health);
    let mut other = bench.pipeline(Vec::new());
    let sink = MemorySink::new(10);
    other.name = "other".into();
    other.subscription.group = Some("other".into());
    other.sinks[0].sink = sink.clone();
    fleet.start(Arc::new(other));
    fleet.start(Arc::new(bench.pipeline(Vec::new())));
    bench.sink.wait_for(5).await;
    sink.wait_for(5).await;
    fleet.stop(&BTreeSet::from([Arc::from(GROUP)])).await;
    assert!(!fleet.runs(GROUP) && fleet.runs("other"));
    bench.broker.append(TOPIC, 0, events(5..8));
    sink.wait_for(8).await;
    assert_eq!(bench.sink.written().len(), 5);
    fleet.start(Arc::new(bench.pipeline(Vec::new())));
    assert_eq!(bench.sink.wait_for(8).await.len(), 8);
    bench.shutdown.cancel();
    let report = fleet.finish().await;
    let records: Vec<u64> = report.summaries.iter().map(|(_, summary)| summary.records).collect();
    assert_eq!(records, [8, 8]);
}
