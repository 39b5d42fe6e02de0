//! A ledger as sinks get it: under a time-out, and through the breaker of the store that keeps it.

use std::sync::Arc;

use async_trait::async_trait;
use millrace_core::{Claim, EffectIdentity, Ledger, Result};
use tokio::time::Duration;

use crate::breaker::Breaker;

/// Passes calls on to a ledger. It does not wait for the breaker, as its caller's own time is running; the
/// runtime does so before it calls the sink.
pub struct GuardedLedger {
    ledger: Arc<dyn Ledger>,
    breaker: Breaker,
    timeout: Duration,
}

impl GuardedLedger {
    /// `breaker` is that of the store; a call that takes longer than `timeout` has failed with Retry.
    pub fn new(ledger: Arc<dyn Ledger>, breaker: Breaker, timeout: Duration) -> Self {
        GuardedLedger { ledger, breaker, timeout }
    }
}

#[async_trait]
impl Ledger for GuardedLedger {
    async fn claim(&self, identities: &[EffectIdentity], hold: Duration) -> Result<Vec<Claim>> {
        self.breaker.call(self.timeout, "claim in the ledger", self.ledger.claim(identities, hold)).await
    }

    async fn done(&self, identities: &[EffectIdentity]) -> Result<()> {
        self.breaker.call(self.timeout, "entry in the ledger", self.ledger.done(identities)).await
    }

    async fn release(&self, identities: &[EffectIdentity]) -> Result<()> {
        self.breaker.call(self.timeout, "release in the ledger", self.ledger.release(identities)).await
    }
}
