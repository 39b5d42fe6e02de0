//! The clock of deadlines: a thread that counts ticks of ten milliseconds and ends the calls that are due.
//!
//! Each wake-up is one tick, however late it comes: while the process is stopped or starved the clock stands
//! still, and no module is blamed for time it did not have. For the same reason deadlines, budgets and rates are
//! counted in these ticks and not in wall-clock time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
};

use tokio::time::Duration;

use crate::deadline::Deadlines;

/// The length of a tick in milliseconds.
pub(crate) const TICK_MS: u64 = 10;

/// Reads the clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticks(Arc<AtomicU64>);

/// The thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Clock {
    ticks: Ticks,
    deadlines: Deadlines,
    _stop: SyncSender<()>,
}

impl Ticks {
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn advance(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Clock {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let ticks = Ticks::default();
        let deadlines = Deadlines::new(ticks.clone());
        let (clock, ends) = (ticks.clone(), deadlines.clone());
        thread::Builder::new().name("millrace-clock".to_owned()).spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(TICK_MS)) == Err(RecvTimeoutError::Timeout) {
                ends.end_due(clock.advance());
            }
        })?;
        Ok(Clock { ticks, deadlines, _stop: stop })
    }

    pub(crate) fn ticks(&self) -> &Ticks {
        &self.ticks
    }

    pub(crate) fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }
}

/// The ticks that make up at least so many milliseconds: the current tick is partly gone.
pub(crate) fn ticks_of(milliseconds: u64) -> u64 {
    milliseconds.div_ceil(TICK_MS) + 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_thread_ends_with_its_owner() {
        let clock = Clock::start().unwrap();
        let ticks = clock.ticks().clone();
        while ticks.now() == 0 {
            thread::yield_now();
        }
        drop(clock);
        // The thread holds the other references to the clock until it ends.
        while Arc::strong_count(&ticks.0) > 1 {
            thread::yield_now();
        }
    }

    #[test]
    fn a_deadline_is_never_short() {
        assert_eq!(ticks_of(1), 2);
        assert_eq!(ticks_of(1_000), 101);
    }
}
