//! Waiting: for something to become true, with a deadline; and for nothing, because faults come at their own time.

use std::time::Duration;

use tokio::time::Instant;

/// Waits until `attempt` gives something. Fails after `limit`, with what `what` says then.
pub fn until<T>(limit: Duration, what: impl Fn() -> String, attempt: impl FnMut() -> Option<T>) -> T {
    within(limit, attempt).unwrap_or_else(|| panic!("after {} s: {}", limit.as_secs(), what()))
}

/// What `attempt` gives; None when it gave nothing within `limit`.
pub fn within<T>(limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        let found = attempt();
        if found.is_some() || Instant::now() >= end {
            return found;
        }
        pause(Duration::from_millis(20));
    }
}

/// The time between faults, or between looks.
#[expect(
    clippy::disallowed_methods,
    reason = "a fault comes at its own time, and real servers have real clocks"
)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
