//! Lookups and the ledger of a simulated store.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use millrace_core::{Claim, EffectIdentity, Ledger, Lookup, Page, PageRequest, Result};
use tokio::time::Duration;

use super::{kept::Kept, store::Link, world::Plant};

pub(super) struct SimLookup {
    pub(super) link: Link,
    /// The guards that were seen open; used by a planted bug alone.
    pub(super) seen_open: Arc<Mutex<BTreeSet<String>>>,
}

impl Link {
    async fn on_kept<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&mut Kept) -> T + Send + 'static,
    ) -> Result<T> {
        let kept = self.kept.clone();
        let work =
            Box::pin(async move { work(&mut kept.lock().expect("invariant: no panic under the lock")) });
        self.world.ask(&self.process, &self.system, what, work).await
    }
}

#[async_trait]
impl Lookup for SimLookup {
    async fn members(&self, requests: &[PageRequest]) -> Result<Vec<Page>> {
        let requests = requests.to_vec();
        let page = |kept: &Kept, request: &PageRequest| {
            let all = kept.members_of(&request.key);
            let from = request.after.as_ref().map_or(0, |after| all.partition_point(|m| m <= after));
            let members: Vec<String> =
                all[from..].iter().take(request.members_max as usize).cloned().collect();
            Page { more: from + members.len() < all.len(), members }
        };
        let read = move |kept: &mut Kept| requests.iter().map(|request| page(kept, request)).collect();
        self.link.on_kept("members", read).await
    }

    async fn documents(&self, keys: &[String]) -> Result<Vec<Option<String>>> {
        let keys = keys.to_vec();
        let read = move |kept: &mut Kept| keys.iter().map(|key| kept.document_text(key)).collect();
        self.link.on_kept("documents", read).await
    }

    async fn close(&self, guards: &[String], _ttl: Duration) -> Result<()> {
        let guards = guards.to_vec();
        self.link.on_kept("close", move |kept| kept.guards.extend(guards)).await
    }

    async fn closed(&self, guards: &[String]) -> Result<Vec<bool>> {
        let asked = guards.to_vec();
        let read = move |kept: &mut Kept| asked.iter().map(|guard| kept.guards.contains(guard)).collect();
        let mut closed: Vec<bool> = self.link.on_kept("closed", read).await?;
        if self.link.world.has(Plant::GuardAskedOnce) {
            let mut seen_open = self.seen_open.lock().expect("invariant: no panic under the lock");
            for (guard, closed) in guards.iter().zip(&mut closed) {
                *closed &= !seen_open.contains(guard);
                if !*closed {
                    seen_open.insert(guard.clone());
                }
            }
        }
        Ok(closed)
    }
}

pub(super) struct SimLedger {
    pub(super) link: Link,
    pub(super) claimant: u64,
}

fn texts(identities: &[EffectIdentity]) -> Vec<String> {
    identities.iter().map(|identity| identity.as_str().to_owned()).collect()
}

#[async_trait]
impl Ledger for SimLedger {
    async fn claim(&self, identities: &[EffectIdentity], hold: Duration) -> Result<Vec<Claim>> {
        let (identities, by) = (texts(identities), self.claimant);
        let claim = move |kept: &mut Kept| identities.iter().map(|one| kept.claim(one, by, hold)).collect();
        self.link.on_kept("claim", claim).await
    }

    async fn done(&self, identities: &[EffectIdentity]) -> Result<()> {
        let identities = texts(identities);
        let done = move |kept: &mut Kept| identities.iter().for_each(|one| kept.claim_done(one));
        self.link.on_kept("done", done).await
    }

    async fn release(&self, identities: &[EffectIdentity]) -> Result<()> {
        let (identities, by) = (texts(identities), self.claimant);
        let release = move |kept: &mut Kept| identities.iter().for_each(|one| kept.claim_release(one, by));
        self.link.on_kept("release", release).await
    }
}
