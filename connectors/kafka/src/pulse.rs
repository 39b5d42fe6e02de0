//! How long the leases of a source hold after each poll.

use tokio::time::{Duration, Instant};

/// Knows when the source polled last, and whether it was away for so long that the group may have given its
/// partitions away without it having heard of it.
pub struct Pulse {
    span: Duration,
    doubt: Duration,
    last: Instant,
    doubtful_until: Option<Instant>,
}

impl Pulse {
    /// The broker may have heard from us a heartbeat before the poll, so a lease is that much shorter than the
    /// session.
    pub fn new(session: Duration, heartbeat: Duration, now: Instant) -> Self {
        let span = session.saturating_sub(heartbeat);
        // The answer to a heartbeat takes its time where connections have to be made anew.
        Pulse { span, doubt: heartbeat.max(session / 3), last: now, doubtful_until: None }
    }

    /// How long a new lease holds.
    pub fn span(&self) -> Duration {
        self.span
    }

    /// Called after each poll: how long leases hold from now, or none while there is doubt. After an absence
    /// as long as a lease the group is believed only after a third of the session, in which a loss would have shown.
    pub fn beat(&mut self, now: Instant) -> Option<Duration> {
        if now.duration_since(self.last) >= self.span {
            self.doubtful_until = Some(now + self.doubt);
        }
        self.last = now;
        match self.doubtful_until {
            Some(until) if now < until => None,
            _ => {
                self.doubtful_until = None;
                Some(self.span)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::Lease;

    use super::*;

    const SESSION: Duration = Duration::from_secs(45);
    const HEARTBEAT: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_stopped_writes_nothing_until_it_is_believed() {
        let mut pulse = Pulse::new(SESSION, HEARTBEAT, Instant::now());
        let lease = Lease::new(pulse.span());
        let beat = |pulse: &mut Pulse| {
            if let Some(span) = pulse.beat(Instant::now()) {
                lease.renew(span);
            }
            lease.is_valid()
        };
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(20)).await;
            assert!(beat(&mut pulse), "polled in time");
        }
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(!lease.is_valid(), "it runs out by itself, before the session does");
        tokio::time::advance(Duration::from_secs(600)).await;
        assert!(!beat(&mut pulse), "the first poll after a long stop proves nothing");
        tokio::time::advance(Duration::from_secs(14)).await;
        assert!(!beat(&mut pulse));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(beat(&mut pulse), "a third of the session has gone by and nothing was lost");
    }
}
