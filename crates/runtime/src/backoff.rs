//! Waiting between tries: exponential, capped, with full jitter; and for how long trying makes sense at all.

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Duration;

/// The least wait: nobody spins.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// How long to wait between tries, and what to do when they lead nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The upper bound of the first wait.
    pub initial: Duration,
    /// The upper bound of every wait.
    pub max: Duration,
    /// How long one call may be tried; none: for ever.
    pub budget: Option<Duration>,
    /// What happens when that is over.
    pub exhausted: Exhausted,
}

/// What happens when a call was tried for as long as its budget allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// The pipeline is paused until somebody resumes it; then the call is tried again.
    Pause,
    /// The records concerned become dead letters of class retry.
    DeadLetters,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(30),
            budget: None,
            exhausted: Exhausted::Pause,
        }
    }
}

/// The waits of one series of tries.
#[derive(Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    tries: u32,
    rng: SmallRng,
}

impl Backoff {
    /// A new series. The seed makes the jitter repeatable; workers differ in it.
    pub fn new(policy: RetryPolicy, seed: u64) -> Self {
        Backoff { policy, tries: 0, rng: SmallRng::seed_from_u64(seed) }
    }

    /// How many waits were taken since the last reset.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// The next wait: anything up to the bound, so that a herd spreads as far as it can.
    pub fn next_wait(&mut self) -> Duration {
        let bound = self.policy.initial.saturating_mul(1 << self.tries.min(20)).min(self.policy.max);
        self.tries = self.tries.saturating_add(1);
        bound.mul_f64(self.rng.random_range(0.0..=1.0)).max(WAIT_MIN)
    }

    /// Begins again after a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_with_full_jitter_and_is_repeatable() {
        let (initial, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let policy = RetryPolicy { initial, max, ..RetryPolicy::default() };
        let waits = |seed| {
            let mut backoff = Backoff::new(policy, seed);
            (0..6).map(|_| backoff.next_wait()).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        let bound = |index: usize| Duration::from_millis(100 << index).min(max);
        let all: Vec<Vec<Duration>> = (0..200).map(waits).collect();
        for index in 0..6 {
            let at = || all.iter().map(|series| series[index]);
            assert!(at().all(|wait| wait >= WAIT_MIN && wait <= bound(index)));
            let low = at().filter(|wait| *wait < bound(index) / 2).count();
            assert!((60..=140).contains(&low), "{low} of 200 below half of {:?}", bound(index));
        }
    }
}
