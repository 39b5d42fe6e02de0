//! The integration tests of the program, one binary. Each drives the real `millrace`.
//!
//! - `cli`: what each command prints and how it ends
//! - `control`: status, pause and resume
//! - `dlq`: dead letters shown, mended, replayed and discarded, with poison in every place of a pipeline
//! - `demo`: the demo from start to end
//! - `social`: a social network's events to feeds, posts, search and counters, embedded and on real servers
//! - `modules`: modules of others, good and bad
//! - `smartmodules`: deployed modules, from a new crate to a version that is taken back
//! - `produce`: lines reach their topic, or wait in the spool, whatever broker, disk and process do
//! - `rebalance`: processes on Kafka that come, go and come back while records flow
//! - `transactions`: outputs and counts are exact, also for processes that are killed
//! - `hostile`: malformed records become dead letters and nothing else is held up
//! - `memory`: resident memory is bounded while a store is silent
//! - `state`: what is planned, applied, followed, stopped and rewound
//! - `upgrade`: the previous commit's program and this one, side by side
//! - `isolation`: a sink that is away stops no other one, and misses nothing
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod cli;
mod control;
mod demo;
mod dlq;
mod hostile;
mod isolation;
mod memory;
mod modules;
mod produce;
mod rebalance;
mod smartmodules;
mod social;
mod state;
mod support;
mod transactions;
mod upgrade;
