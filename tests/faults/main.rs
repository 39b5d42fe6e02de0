//! The fault laboratory: real servers and real `millrace` processes that are killed, stopped and starved while they
//! work, and what readers see in the end compared with a reference computed without Millrace's code.
//!
//! - `busy_search`: an Elasticsearch that answers 429, takes half of a bulk, or loses its answers
//! - `clock_jumps`: the time of day of running processes, by hours
//! - `disk_full`: the embedded log and views on a disk without space
//! - `kills`: Kafka, Redis, Elasticsearch and millrace killed with -9 and stopped at random, all at once
//! - `membership`: processes come and go
//! - `memory`: resident memory against what is configured
//! - `outage`: Redis away while events come
//! - `unfit_redis`: a Redis that evicts, and one that is full
//!
//! Servers that are harmed are those of `scripts/laboratory`, one test at a time. `MILLRACE_FAULTS=50` makes the short
//! forms long ones, and `MILLRACE_FAULTS_SEED` chooses another schedule.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod busy_search;
mod clock;
mod clock_jumps;
mod disk_full;
mod hanging;
mod input;
mod kafka;
mod kills;
mod laboratory;
mod likes;
mod membership;
mod memory;
mod outage;
mod processes;
mod proxy;
mod stage;
#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "../support/mod.rs"]
mod support;
mod unfit_redis;

/// How often each kind of fault happens: `MILLRACE_FAULTS`, or `short`.
fn faults(short: usize) -> usize {
    std::env::var("MILLRACE_FAULTS").map_or(short, |text| text.parse().expect("MILLRACE_FAULTS is a number"))
}

/// Chooses the schedule.
fn seed() -> u64 {
    std::env::var("MILLRACE_FAULTS_SEED")
        .map_or(1, |text| text.parse().expect("MILLRACE_FAULTS_SEED is a number"))
}

/// For whoever watches: past the test runner, which keeps what passing tests print.
fn say(line: &str) {
    use std::io::Write;
    // Nobody may be watching.
    let _ = writeln!(std::io::stderr(), "faults: {line}");
}
