//! The ledger: an entry per effect, held by one claimant or done.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use millrace_core::{Claim, EffectIdentity, Error, Ledger, Result};
use redis::{Cmd, Value};
use tokio::time::Duration;

use crate::{
    connection::{Connection, text_of},
    script::{Script, Verb},
};

static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/claim.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/release.lua")));

/// A ledger and the claimant that its claims are held by.
pub(crate) struct RedisLedger {
    connection: Arc<Connection>,
    ttl_ms: u64,
    claimant: String,
}

impl RedisLedger {
    /// Entries live for `ttl`; `claimant` is unique among all processes.
    pub(crate) fn new(connection: Arc<Connection>, ttl: Duration, claimant: String) -> Self {
        RedisLedger { connection, ttl_ms: milliseconds(ttl), claimant }
    }

    async fn invoke(
        &self,
        script: &Script,
        identities: &[EffectIdentity],
        arguments: &[&str],
    ) -> Result<Vec<Value>> {
        let compose = |index: usize, verb: Verb<'_>| {
            let mut command = Cmd::new();
            command.arg(&verb).arg(1).arg(entry(&identities[index])).arg(arguments);
            command
        };
        let results = script.invoke(&self.connection, identities.len(), compose).await?;
        results.into_iter().map(|result| result.map_err(|error| self.connection.error(error))).collect()
    }
}

#[async_trait]
impl Ledger for RedisLedger {
    async fn claim(&self, identities: &[EffectIdentity], hold: Duration) -> Result<Vec<Claim>> {
        let hold_ms = milliseconds(hold).to_string();
        let answers = self.invoke(&CLAIM, identities, &[&self.claimant, &hold_ms]).await?;
        answers
            .iter()
            .map(|answer| match text_of(answer).as_str() {
                "granted" => Ok(Claim::Granted),
                "done" => Ok(Claim::Done),
                "held" => Ok(Claim::Held),
                _ => Err(Error::retry(self.connection.who(), "the answer to a claim cannot be understood")),
            })
            .collect()
    }

    async fn done(&self, identities: &[EffectIdentity]) -> Result<()> {
        let commands = identities
            .iter()
            .map(|identity| {
                let mut set = redis::cmd("SET");
                set.arg(entry(identity)).arg("done").arg("PX").arg(self.ttl_ms);
                set
            })
            .collect();
        for result in self.connection.run(commands).await? {
            result.map_err(|error| self.connection.error(error))?;
        }
        Ok(())
    }

    async fn release(&self, identities: &[EffectIdentity]) -> Result<()> {
        self.invoke(&RELEASE, identities, &[&self.claimant]).await.map(drop)
    }
}

fn entry(identity: &EffectIdentity) -> String {
    format!("ledger:{}", identity.as_str())
}

/// Redis refuses a life of 0.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
