//! The connector against real brokers: the conformance suite, and what only Kafka has.

#[path = "server/behaviour.rs"]
mod behaviour;
#[path = "server/conformance.rs"]
mod conformance;
#[path = "server/rig.rs"]
mod rig;
#[path = "server/security.rs"]
mod security;
#[path = "server/transactions.rs"]
mod transactions;
