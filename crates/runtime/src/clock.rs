//! Wall-clock time as something given: the system's in production, any other in tests.

use std::{fmt, sync::Arc};

/// Tells the time of day.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Clock(Arc::new(system_ms))
    }

    /// A clock that says what `tell` does, in milliseconds since 1970.
    pub fn told_by(tell: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Clock(Arc::new(tell))
    }

    /// A clock that always says the same.
    pub fn fixed(ms: i64) -> Self {
        Clock::told_by(move || ms)
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place where the runtime asks the system for the time of day"
)]
fn system_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|elapsed| i64::try_from(elapsed.as_millis()).ok()).unwrap_or(0)
}
