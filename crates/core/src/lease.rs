//! The right to write for a partition, which runs out by itself.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::time::{Duration, Instant};

/// A partition's lease: valid while its source has polled recently and has not lost the partition.
///
/// A process that was stopped for longer than its session wakes up as a former owner before its client knows.
/// Workers ask the lease before every call to a sink; the source renews it with every poll.
#[derive(Debug)]
pub struct Lease {
    started: Instant,
    valid_until_ms: AtomicI64,
    revoked: AtomicBool,
}

impl Lease {
    /// A lease that is valid for `session`, to be renewed.
    pub fn new(session: Duration) -> Self {
        let lease = Lease {
            started: Instant::now(),
            valid_until_ms: AtomicI64::new(0),
            revoked: AtomicBool::new(false),
        };
        lease.renew(session);
        lease
    }

    /// A lease that never runs out, for sources without groups.
    pub fn unbounded() -> Self {
        Lease {
            started: Instant::now(),
            valid_until_ms: AtomicI64::new(i64::MAX),
            revoked: AtomicBool::new(false),
        }
    }

    /// Called by the source after each poll: valid for `session` from now.
    pub fn renew(&self, session: Duration) {
        let until = (self.started.elapsed() + session).as_millis();
        self.valid_until_ms.store(i64::try_from(until).unwrap_or(i64::MAX), Ordering::Release);
    }

    /// Called by the source when the partition is gone. Final.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    /// Whether the partition is gone for good.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// Whether effects may be sent now.
    pub fn is_valid(&self) -> bool {
        let now = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        !self.is_revoked() && now < self.valid_until_ms.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn runs_out_and_is_renewed() {
        let lease = Lease::new(Duration::from_secs(10));
        assert!(lease.is_valid());
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(!lease.is_valid());
        lease.renew(Duration::from_secs(10));
        assert!(lease.is_valid());
        lease.revoke();
        assert!(!lease.is_valid());
    }
}
