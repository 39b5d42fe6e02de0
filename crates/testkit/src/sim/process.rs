//! A process as the world sees it. Its tasks are the runtime's own; what makes it stopped or dead is that nothing
//! it asks for leaves it any more, and no answer reaches it.
//!
//! A task of a stopped process may still run up to its next request: its time-outs and leases run out meanwhile,
//! as those of a real one have when it wakes.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, Ordering},
};

use tokio::sync::Notify;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    Stopped,
    Dead,
}

/// Cloning shares it.
#[derive(Clone)]
pub struct Process {
    name: Arc<str>,
    life: Arc<Mutex<Life>>,
    /// How far its clock is ahead of the world's, ms.
    ahead_ms: Arc<AtomicI64>,
    /// Not a watch channel: that wakes its waiters in an order of its own.
    woken: Arc<Notify>,
}

impl Process {
    /// A running process.
    pub fn new(name: &str) -> Self {
        Process {
            name: name.into(),
            life: Arc::new(Mutex::new(Life::Running)),
            ahead_ms: Arc::default(),
            woken: Arc::default(),
        }
    }

    /// Its name in the trace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How far its time of day is ahead of the world's, ms; time that passes is the same everywhere.
    pub fn ahead_ms(&self) -> i64 {
        self.ahead_ms.load(Ordering::Relaxed)
    }

    /// Its time of day jumps: it is so far ahead from now on.
    pub fn set_ahead_ms(&self, ms: i64) {
        self.ahead_ms.store(ms, Ordering::Relaxed);
    }

    /// Stops it, until it is woken.
    pub fn stop(&self) {
        self.change(Life::Stopped);
    }

    /// Lets it run on where it was.
    pub fn wake(&self) {
        self.change(Life::Running);
    }

    /// Ends it without a farewell.
    pub fn kill(&self) {
        self.change(Life::Dead);
    }

    /// Whether it was killed.
    pub fn is_dead(&self) -> bool {
        self.life() == Life::Dead
    }

    /// Whether it is stopped.
    pub fn is_stopped(&self) -> bool {
        self.life() == Life::Stopped
    }

    /// Returns at once while it runs, when it is woken if it is stopped, and never if it is dead.
    pub async fn running(&self) {
        loop {
            let woken = self.woken.notified();
            if self.life() == Life::Running {
                return;
            }
            woken.await;
        }
    }

    fn life(&self) -> Life {
        *self.life.lock().expect("invariant: nobody panics while holding a life")
    }

    fn change(&self, to: Life) {
        if self.life() != Life::Dead {
            *self.life.lock().expect("invariant: nobody panics while holding a life") = to;
            self.woken.notify_waiters();
        }
    }
}
