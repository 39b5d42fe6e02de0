//! Whether a pipeline takes in records, and if not, who holds it and why.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use millrace_core::Result;
use tokio::sync::{Notify, watch};

/// Who holds a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// A person, by `millrace pause`.
    Operator,
    /// More records a minute became dead letters than the pipeline allows.
    DeadLetters,
    /// A call was tried again for as long as the pipeline's retry budget allows.
    RetryBudget,
    /// A module failed on more records in a row than its step allows.
    Quarantine,
}

impl HeldBy {
    const ALL: [HeldBy; 4] = [HeldBy::Operator, HeldBy::DeadLetters, HeldBy::RetryBudget, HeldBy::Quarantine];

    /// The name in `status`, in metrics and in the control topic.
    pub fn name(self) -> &'static str {
        match self {
            HeldBy::Operator => "operator",
            HeldBy::DeadLetters => "dead-letters",
            HeldBy::RetryBudget => "retry-budget",
            HeldBy::Quarantine => "quarantine",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.name() == name)
    }
}

/// A pause: it lasts until somebody resumes the pipeline, across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Who asked for it.
    pub by: HeldBy,
    /// Why, for people.
    pub reason: String,
    /// Since when, ms since 1970.
    pub since_ms: i64,
}

/// Asked before a pipeline begins, so that one that was held before the process started takes nothing in.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Returns when the pauses that stand are known and set.
    ///
    /// # Errors
    /// Retry: not known yet, ask again. Any other ends the pipeline.
    async fn ready(&self) -> Result<()>;
}

/// The handle to hold a pipeline and to let it go. Cloning shares it.
#[derive(Clone)]
pub struct Steering {
    state: Arc<watch::Sender<Option<Pause>>>,
    /// For the workers: a watch channel wakes many waiters in an order that differs from run to run.
    changed: Arc<Notify>,
    /// Whether it is ended: nobody is to read as its group.
    ended: Arc<watch::Sender<bool>>,
    gate: Option<Arc<dyn Gate>>,
}

impl Default for Steering {
    fn default() -> Self {
        Steering {
            state: Arc::new(watch::Sender::new(None)),
            changed: Arc::default(),
            ended: Arc::new(watch::Sender::new(false)),
            gate: None,
        }
    }
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Steering").field(&self.paused()).finish()
    }
}

impl Steering {
    /// The same handle for a pipeline that waits for the gate before it begins.
    #[must_use]
    pub fn behind(self, gate: Arc<dyn Gate>) -> Self {
        Steering { gate: Some(gate), ..self }
    }

    /// Whether the pipeline may begin, or begin held.
    ///
    /// # Errors
    /// Those of the gate.
    pub async fn ready(&self) -> Result<()> {
        match &self.gate {
            None => Ok(()),
            Some(gate) => gate.ready().await,
        }
    }

    /// Holds the pipeline: batches in flight end, no further ones begin. A pause that stands is kept as it is.
    pub fn pause(&self, pause: Pause) {
        self.state.send_if_modified(|state| {
            let changed = state.is_none();
            state.get_or_insert(pause);
            changed
        });
        self.changed.notify_waiters();
    }

    /// Lets the pipeline go on.
    pub fn resume(&self) {
        self.state.send_if_modified(|state| state.take().is_some());
        self.changed.notify_waiters();
    }

    /// Ends the pipeline, or lets it begin again: unlike a paused one it leaves its group.
    pub fn set_ended(&self, ended: bool) {
        self.ended.send_if_modified(|state| std::mem::replace(state, ended) != ended);
    }

    /// Whether it is ended.
    pub fn is_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Returns when the pipeline is ended, or with `false` when it may begin. Cancel-safe.
    pub async fn until_ended(&self, ended: bool) {
        let mut state = self.ended.subscribe();
        // The sender is here, so there is no end to wait for.
        let _ = state.wait_for(|state| *state == ended).await;
    }

    /// The pause that stands.
    pub fn paused(&self) -> Option<Pause> {
        self.state.borrow().clone()
    }

    /// Returns when no pause stands; at once if there is none. Cancel-safe.
    pub async fn resumed(&self) {
        self.until(false).await;
    }

    /// Returns when a pause stands; at once if there is one. Cancel-safe.
    pub async fn held(&self) {
        self.until(true).await;
    }

    async fn until(&self, held: bool) {
        loop {
            // Made before looking, so that a change in between is not missed.
            let changed = self.changed.notified();
            if self.state.borrow().is_some() == held {
                return;
            }
            changed.await;
        }
    }

    /// Sees every change from now on.
    pub fn watch(&self) -> watch::Receiver<Option<Pause>> {
        self.state.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_pause_stands_until_it_is_resumed() {
        let steering = Steering::default();
        steering.resumed().await;
        let pause = |reason: &str| Pause { by: HeldBy::Operator, reason: reason.into(), since_ms: 1 };
        steering.pause(pause("first"));
        steering.pause(pause("second"));
        assert_eq!(steering.paused(), Some(pause("first")));
        let resumed = tokio::spawn({
            let steering = steering.clone();
            async move { steering.resumed().await }
        });
        steering.held().await;
        steering.resume();
        resumed.await.expect("resumed");
        assert_eq!(steering.paused(), None);
    }

    #[test]
    fn names_lead_back() {
        for by in HeldBy::ALL {
            assert_eq!(HeldBy::named(by.name()), Some(by));
        }
        assert_eq!(HeldBy::named("nobody"), None);
    }
}
