//! The ledger: a row per effect, claimed by one holder or done.

use std::sync::Arc;

use async_trait::async_trait;
use millrace_core::{Claim, EffectIdentity, Ledger, Result};
use millrace_sqlite_file::Failure;
use rusqlite::OptionalExtension;
use tokio::time::Duration;

use crate::{
    schema::{after, milliseconds},
    writer::{Tx, Writer},
};

/// A claim that is held for longer than anybody claims was made before the clock went back.
const FIND: &str = "SELECT state FROM ledger
    WHERE identity = ?1 AND until_ms > ?2 AND (state = 'done' OR until_ms <= ?2 + ?3)";
const STORE: &str = "INSERT INTO ledger(identity, state, holder, until_ms) VALUES (?, ?, ?, ?)
    ON CONFLICT (identity) DO UPDATE
    SET state = excluded.state, holder = excluded.holder, until_ms = excluded.until_ms";
const RELEASE: &str = "DELETE FROM ledger WHERE identity = ? AND holder = ? AND state = 'claimed'";

/// A ledger and the holder of its claims.
pub(crate) struct SqliteLedger {
    writer: Writer,
    ttl: Duration,
    holder: Arc<str>,
}

impl SqliteLedger {
    /// Entries live for `ttl`.
    pub(crate) fn new(writer: Writer, ttl: Duration) -> Self {
        // Tells claims of this ledger from those of every other process.
        let holder = format!("{:032x}", rand::random::<u128>()).into();
        SqliteLedger { writer, ttl, holder }
    }

    /// Does something with each identity in one transaction.
    async fn each<T: Send + 'static>(
        &self,
        identities: &[EffectIdentity],
        work: impl Fn(&Tx<'_>, &str, &str) -> Result<T, Failure> + Send + 'static,
    ) -> Result<Vec<T>> {
        if identities.is_empty() {
            return Ok(Vec::new());
        }
        let (identities, holder) = (identities.to_vec(), self.holder.clone());
        let all = move |tx: &Tx<'_>| {
            identities.iter().map(|identity| work(tx, identity.as_str(), &holder)).collect()
        };
        self.writer.run(all).await.map_err(|failure| self.writer.error(failure))
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn claim(&self, identities: &[EffectIdentity], hold: Duration) -> Result<Vec<Claim>> {
        self.each(identities, move |tx, identity, holder| {
            let mut find = tx.statement(FIND)?;
            let known = (identity, tx.now_ms, milliseconds(hold));
            let state: Option<String> = find.query_row(known, |row| row.get(0)).optional()?;
            match state.as_deref() {
                Some("done") => Ok(Claim::Done),
                Some(_) => Ok(Claim::Held),
                None => {
                    let until_ms = after(tx.now_ms, hold);
                    tx.statement(STORE)?.execute((identity, "claimed", holder, until_ms))?;
                    Ok(Claim::Granted)
                }
            }
        })
        .await
    }

    async fn done(&self, identities: &[EffectIdentity]) -> Result<()> {
        let ttl = self.ttl;
        let done = self.each(identities, move |tx, identity, holder| {
            tx.statement(STORE)?.execute((identity, "done", holder, after(tx.now_ms, ttl)))?;
            Ok(())
        });
        done.await.map(drop)
    }

    async fn release(&self, identities: &[EffectIdentity]) -> Result<()> {
        let released = self.each(identities, |tx, identity, holder| {
            tx.statement(RELEASE)?.execute((identity, holder))?;
            Ok(())
        });
        released.await.map(drop)
    }
}
