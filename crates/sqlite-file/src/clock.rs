//! The clock that timestamps and expiries are read from: given, so that a test can set it.

use std::{sync::Arc, time::SystemTime};

/// Milliseconds since 1970. May go back.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The machine's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        #[expect(clippy::disallowed_methods, reason = "the clock that is given to everything else")]
        let now = SystemTime::now();
        now.duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    })
}
