//! The runtime in a simulated world: processes that join, leave, crash and wake as zombies, a log and stores that
//! fail in every way they can, and at the end the state that plain code computes from the input.
//!
//! A seed is a run. `MILLRACE_SIM_SEEDS=0..10000` chooses which are run, `MILLRACE_SIM_SEED=42` runs one and shows
//! what happened in it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "tests")]

mod input;
mod life;
mod oracle;
mod pipelines;
mod setup;

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use millrace_testkit::sim::{Plant, World};
use tokio::runtime;

/// What CI runs.
const SEEDS: Range<u64> = 0..10_000;

/// A planted bug is found within this many.
const SEEDS_TO_FIND: u64 = 1_000;

/// How one seed ended.
struct Outcome {
    violations: Vec<String>,
    fingerprint: u64,
    trace: String,
}

/// Runs one seed from its beginning to its end, in this thread.
fn simulate(seed: u64, plant: Option<Plant>, traced: bool) -> Outcome {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(seed, plant, traced);
        life::live(&world).await;
        Outcome { violations: world.violations(), fingerprint: world.fingerprint(), trace: world.trace() }
    })
}

/// The first seed of a range that is violated, whoever finds it. Each core runs seeds of its own.
fn search(seeds: Range<u64>, plant: Option<Plant>) -> Option<u64> {
    let (next, found) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if !simulate(seed, plant, false).violations.is_empty() {
                        found.fetch_min(seed, Ordering::Relaxed);
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    Some(found.into_inner()).filter(|seed| *seed != u64::MAX)
}

fn fail(seed: u64) -> ! {
    let outcome = simulate(seed, None, true);
    panic!(
        "{}\nseed {seed} is violated:\n  {}\nrun it again: MILLRACE_SIM_SEED={seed} cargo test -p millrace-runtime --test simulation every_seed",
        outcome.trace,
        outcome.violations.join("\n  ")
    );
}

fn chosen(text: &str) -> Option<Range<u64>> {
    let (from, to) = text.split_once("..")?;
    Some(from.parse().ok()?..to.parse().ok()?)
}

#[test]
fn every_seed_ends_as_the_reference_says() {
    if let Ok(seed) = std::env::var("MILLRACE_SIM_SEED") {
        let seed = seed.parse().expect("MILLRACE_SIM_SEED is a number");
        let outcome = simulate(seed, None, true);
        eprintln!("{}", outcome.trace);
        assert!(outcome.violations.is_empty(), "seed {seed}:\n  {}", outcome.violations.join("\n  "));
        return;
    }
    let seeds = match std::env::var("MILLRACE_SIM_SEEDS") {
        Ok(text) => chosen(&text).expect("MILLRACE_SIM_SEEDS is a range, as 0..10000"),
        Err(_) => SEEDS,
    };
    if let Some(seed) = search(seeds, None) {
        fail(seed);
    }
}

#[test]
fn a_seed_is_one_run() {
    for seed in 0..40 {
        let one = simulate(seed, None, true);
        let other = thread::spawn(move || simulate(seed, None, true)).join().unwrap();
        let differs = one.trace.lines().zip(other.trace.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed} differs from itself");
        assert_eq!(one.trace.len(), other.trace.len(), "seed {seed} differs from itself");
        assert_eq!(one.fingerprint, other.fingerprint, "seed {seed} differs from itself");
        assert_eq!(simulate(seed, None, false).fingerprint, one.fingerprint, "seed {seed}: traced or not");
    }
}

#[test]
fn planted_bugs_are_found() {
    let plants = [
        Plant::CommitsBeforeAcknowledgement,
        Plant::AcknowledgesBeforeEffect,
        Plant::LedgerApart,
        Plant::LedgerWithoutSink,
        Plant::TombstoneBefore,
        Plant::GuardAskedOnce,
        Plant::CommitsAfterRevoke,
        Plant::MergeUnconditional,
        Plant::StatesApart,
    ];
    for plant in plants {
        let found = search(0..SEEDS_TO_FIND, Some(plant));
        let seed = found.unwrap_or_else(|| panic!("{plant:?} was not found in {SEEDS_TO_FIND} seeds"));
        eprintln!("{plant:?}: seed {seed}: {}", simulate(seed, Some(plant), false).violations[0]);
    }
}
