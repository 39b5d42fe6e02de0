//! The ledger: claim → done, claim → release, and nobody sends what another is sending.

use std::sync::Arc;

use millrace_core::{Claim, EffectIdentity, Ledger, SinkId};
use tokio::time::Duration;

use super::Subject;
use crate::message::message;

const MINUTE: Duration = Duration::from_secs(60);

/// Every case of a ledger.
pub async fn all(subject: &Subject<'_>) {
    a_claim_is_held_until_done(subject).await;
    a_released_claim_can_be_claimed_again(subject).await;
    a_claim_runs_out(subject).await;
    one_of_many_claimants_wins(subject).await;
}

fn ledger(subject: &Subject<'_>) -> Arc<dyn Ledger> {
    subject.store.ledger(10 * MINUTE).expect("the store holds a ledger")
}

fn identity(subject: &Subject<'_>, name: &str) -> EffectIdentity {
    let sink = SinkId { pipeline: subject.prefix.into(), sink: "webhook".into() };
    EffectIdentity::of(&sink, "key", &message(1, name, "{}"), 0)
}

/// Granted once, held for everybody, then done for good; each identity by itself.
pub async fn a_claim_is_held_until_done(subject: &Subject<'_>) {
    let (one, two) = (ledger(subject), ledger(subject));
    let [a, b] = ["held-a", "held-b"].map(|name| identity(subject, name));
    assert_eq!(one.claim(std::slice::from_ref(&a), MINUTE).await.expect("a claim"), [Claim::Granted]);
    let both = [a.clone(), b.clone(), b.clone()];
    let found = two.claim(&both, MINUTE).await.expect("claims");
    assert_eq!(found, [Claim::Held, Claim::Granted, Claim::Held]);
    one.done(std::slice::from_ref(&a)).await.expect("done");
    one.done(std::slice::from_ref(&a)).await.expect("done again");
    assert_eq!(two.claim(&both[..2], MINUTE).await.expect("claims"), [Claim::Done, Claim::Held]);
    one.release(std::slice::from_ref(&a)).await.expect("too late");
    assert_eq!(two.claim(&[a], MINUTE).await.expect("a claim"), [Claim::Done], "done is for good");
    assert!(two.claim(&[], MINUTE).await.expect("no claims").is_empty());
}

/// A send that certainly had no effect is tried again at once.
pub async fn a_released_claim_can_be_claimed_again(subject: &Subject<'_>) {
    let ledger = ledger(subject);
    let id = [identity(subject, "released")];
    for _ in 0..3 {
        assert_eq!(ledger.claim(&id, MINUTE).await.expect("a claim"), [Claim::Granted]);
        assert_eq!(ledger.claim(&id, MINUTE).await.expect("a claim"), [Claim::Held]);
        ledger.release(&id).await.expect("released");
    }
}

/// The claim of a worker that died is granted to another after its time.
pub async fn a_claim_runs_out(subject: &Subject<'_>) {
    let ledger = ledger(subject);
    let id = [identity(subject, "runs-out")];
    let first = ledger.claim(&id, Duration::from_millis(20)).await.expect("a claim");
    assert_eq!(first, [Claim::Granted]);
    let granted_again = async {
        while ledger.claim(&id, MINUTE).await.expect("a claim") != [Claim::Granted] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(MINUTE, granted_again).await.expect("a claim runs out by itself");
}

/// Many at the same time: exactly one is granted.
pub async fn one_of_many_claimants_wins(subject: &Subject<'_>) {
    let id = identity(subject, "contended");
    let mut claimants = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (ledger, id) = (ledger(subject), id.clone());
        claimants.spawn(async move { ledger.claim(&[id], MINUTE).await.expect("a claim")[0] });
    }
    let claims = claimants.join_all().await;
    assert_eq!(claims.iter().filter(|claim| **claim == Claim::Granted).count(), 1, "{claims:?}");
    assert_eq!(claims.iter().filter(|claim| **claim == Claim::Held).count(), 15, "{claims:?}");
}
