//! Waiting between tries: exponential, capped, with jitter.

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Duration;

/// How long to wait between tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The upper bound of the first wait.
    pub initial: Duration,
    /// The upper bound of every wait.
    pub max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy { initial: Duration::from_millis(100), max: Duration::from_secs(30) }
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

    /// The next wait: between half of and the whole bound, so that a herd spreads but nobody spins.
    pub fn next_wait(&mut self) -> Duration {
        let bound = self.policy.initial.saturating_mul(1 << self.tries.min(20)).min(self.policy.max);
        self.tries = self.tries.saturating_add(1);
        bound.mul_f64(self.rng.random_range(0.5..=1.0))
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
    fn grows_to_the_cap_and_is_repeatable() {
        let policy = RetryPolicy { initial: Duration::from_millis(100), max: Duration::from_secs(1) };
        let waits = |seed| {
            let mut backoff = Backoff::new(policy, seed);
            (0..6).map(|_| backoff.next_wait()).collect::<Vec<_>>()
        };
        let series = waits(1);
        assert_eq!(series, waits(1));
        for (index, wait) in series.iter().enumerate() {
            let bound = Duration::from_millis(100 << index).min(Duration::from_secs(1));
            assert!(*wait <= bound && *wait >= bound / 2, "{wait:?} of {bound:?}");
        }
    }
}
