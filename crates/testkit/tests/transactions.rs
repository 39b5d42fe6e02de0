//! The broker in memory passes the suite of brokers with transactions.

use millrace_testkit::{
    memory::MemoryBroker,
    transaction_suite::{self, Rig},
};

#[tokio::test]
async fn memory_passes_the_suite() {
    transaction_suite::run(Rig { broker: &MemoryBroker::default(), prefix: "suite" }).await;
}
