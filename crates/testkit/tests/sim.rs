//! The simulated log and store pass the suites that real ones pass, so that what a simulation shows of the runtime
//! holds with those too.

use std::sync::{Arc, Mutex};

use millrace_testkit::{
    broker_suite,
    index_suite::{self, Rig},
    sim::{Faults, Kept, Log, Process, SimBroker, SimStore, StoreReader, System, World},
    transaction_suite,
    views_suite::{self, Subject},
};

/// A world where messages take their time, and nothing else happens to them.
fn calm(seed: u64) -> (World, Process) {
    let world = World::new(seed, None, false);
    world.set_faults(Faults { latency_ms_max: 2, fetch_ms_max: 1, ..Faults::default() });
    (world, Process::new("p"))
}

fn store(seed: u64) -> (SimStore, StoreReader) {
    let (world, process) = calm(seed);
    let kept = Arc::new(Mutex::new(Kept::default()));
    (SimStore::new(&world, &process, &System::new("store"), &kept, 100), StoreReader(kept))
}

#[tokio::test(start_paused = true)]
async fn views_conform() {
    let (store, reader) = store(1);
    views_suite::all(&Subject { store: &store, reader: &reader, prefix: "suite" }).await;
}

#[tokio::test(start_paused = true)]
async fn indexes_conform() {
    let (store, reader) = store(2);
    index_suite::run(Rig { store: &store, reader: &reader, prefix: "suite", types_checked: false }).await;
}

#[tokio::test(start_paused = true)]
async fn the_log_conforms() {
    let (world, process) = calm(3);
    let log = Log::new(&world);
    let broker = SimBroker::new(&log, &process);
    let discard = |partition: millrace_core::TopicPartition, before: i64| {
        log.expire(&partition.topic, partition.partition, before);
        Box::pin(std::future::ready(())) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>
    };
    let rig = broker_suite::Rig { broker: &broker, discard: &discard, prefix: "suite" };
    broker_suite::run(rig).await;
    broker_suite::groups(rig).await;
}

#[tokio::test(start_paused = true)]
async fn transactions_conform() {
    let (world, process) = calm(4);
    let broker = SimBroker::new(&Log::new(&world), &process);
    transaction_suite::run(transaction_suite::Rig { broker: &broker, prefix: "suite" }).await;
}
