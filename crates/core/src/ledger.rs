//! The ledger for effects that cannot be made idempotent where they happen: webhooks, mail.

use async_trait::async_trait;
use tokio::time::Duration;

use crate::{error::Result, identity::EffectIdentity};

/// What a claim found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody has done it: the caller may send, and must call [`Ledger::done`] afterwards.
    Granted,
    /// It was sent before: nothing to do.
    Done,
    /// Another worker holds a claim that has not run out: ask again later.
    Held,
}

/// Claim → send → done. The window in which a crash repeats a send is between the send and `done`.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Claims each identity for `hold`; called before sending. Cancel-safe: a claim runs out by itself.
    ///
    /// # Errors
    /// Retry when the store is away; Fatal when it can never hold a ledger.
    async fn claim(&self, identities: &[EffectIdentity], hold: Duration) -> Result<Vec<Claim>>;

    /// Marks as sent; kept for the ledger's lifetime. Called after the receiver acknowledged.
    async fn done(&self, identities: &[EffectIdentity]) -> Result<()>;

    /// Gives claims back after a send that certainly had no effect, so that the next try need not wait.
    async fn release(&self, identities: &[EffectIdentity]) -> Result<()>;
}
