//! What has a life ends it by the given clock, whether or not its rows are still there, and its rows go.

use std::sync::atomic::{AtomicI64, Ordering};

use millrace_core::{Claim, EffectIdentity, PageRequest};
use tokio::time::Duration;

use super::*;

const HOUR_MS: i64 = 3_600_000;

/// A store whose time is set by the test.
struct Timed {
    folder: tempfile::TempDir,
    store: SqliteStore,
    now_ms: Arc<AtomicI64>,
}

impl Timed {
    async fn open() -> Self {
        let now_ms = Arc::new(AtomicI64::new(1_700_000_000_000));
        let clock = now_ms.clone();
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open_at(folder.path(), Arc::new(move || clock.load(Ordering::Relaxed)));
        Timed { store: store.await.unwrap(), folder, now_ms }
    }

    fn pass(&self, hours: i64) {
        self.now_ms.fetch_add(hours * HOUR_MS, Ordering::Relaxed);
    }

    /// A write that has nothing to do with anything: the rows that have expired go with it.
    async fn write(&self) {
        deliver(&*counter(&self.store, "1h"), &[step("other", "e", 1)]).await;
    }
}

#[tokio::test]
async fn an_idle_timeline_is_forgotten() {
    let timed = Timed::open().await;
    let sink = timeline(&timed.store, &[("ttl", "10h")]);
    deliver(&*sink, &[add("idle", "p1", 1), add("busy", "p1", 1)]).await;
    for n in 2..5 {
        timed.pass(6);
        deliver(&*sink, &[add("busy", &format!("p{n}"), n)]).await;
    }
    assert!(timed.store.timeline("idle", 9).await.unwrap().is_empty());
    assert_eq!(timed.store.timeline("busy", 9).await.unwrap().len(), 4);
    assert_eq!(rows(timed.folder.path(), "timelines WHERE key = 'idle'"), 0);
    // The next add of a timeline that is due finds it empty, whoever is first.
    timed.pass(11);
    assert!(timed.store.timeline("busy", 9).await.unwrap().is_empty());
    deliver(&*sink, &[add("busy", "p9", 9)]).await;
    assert_eq!(timed.store.timeline("busy", 9).await.unwrap(), [("p9".to_owned(), 9.0)]);
}

#[tokio::test]
async fn a_large_idle_timeline_goes_step_by_step() {
    let timed = Timed::open().await;
    let sink = timeline(&timed.store, &[("ttl", "1h"), ("keep", "10000")]);
    let adds: Vec<Message> = (0..5_000).map(|n| add("large", &format!("p{n}"), n)).collect();
    deliver(&*sink, &adds).await;
    timed.pass(2);
    timed.write().await;
    let left = rows(timed.folder.path(), "timelines");
    assert!((1..5_000).contains(&left), "{left} rows are left");
    assert!(timed.store.timeline("large", 9).await.unwrap().is_empty());
    timed.write().await;
    timed.write().await;
    assert_eq!(rows(timed.folder.path(), "timelines") + rows(timed.folder.path(), "timeline_keys"), 0);
    // Half gone is as gone as gone.
    deliver(&*sink, &adds).await;
    timed.pass(2);
    timed.write().await;
    deliver(&*sink, &[add("large", "new", 1)]).await;
    assert_eq!(timed.store.timeline("large", 9).await.unwrap(), [("new".to_owned(), 1.0)]);
}

#[tokio::test]
async fn tombstones_and_versions_end_with_the_ledger() {
    let timed = Timed::open().await;
    let feed = timeline(&timed.store, &[("ledger", "10h")]);
    let set = members(&timed.store, "10h");
    let documents = document(&timed.store, &[("ledger", "10h")]);
    let back = [add("k", "m", 1)];
    let again = [put("k", 1, &json!({ "n": 1 }))];
    deliver(&*feed, &[remove("k", "m", 5)]).await;
    deliver(&*set, &[remove("k", "m", 5)]).await;
    deliver(&*documents, &[delete("k", 5)]).await;
    timed.pass(9);
    for (sink, messages) in [(&feed, &back[..]), (&set, &back[..]), (&documents, &again[..])] {
        deliver(&**sink, messages).await;
    }
    assert!(timed.store.timeline("k", 9).await.unwrap().is_empty());
    assert!(timed.store.members("k").await.unwrap().is_empty());
    assert_eq!(timed.store.document("k").await.unwrap(), None);
    timed.pass(2);
    timed.write().await;
    for table in ["timeline_tombstones", "members", "documents"] {
        assert_eq!(rows(timed.folder.path(), table), 0, "{table}");
    }
    for (sink, messages) in [(&feed, &back[..]), (&set, &back[..]), (&documents, &again[..])] {
        deliver(&**sink, messages).await;
    }
    assert_eq!(timed.store.timeline("k", 9).await.unwrap().len(), 1);
    assert_eq!(timed.store.members("k").await.unwrap(), ["m"]);
    assert_eq!(timed.store.document("k").await.unwrap(), Some(json!({ "n": 1 })));
}

#[tokio::test]
async fn an_idle_document_is_forgotten() {
    let timed = Timed::open().await;
    let sink = document(&timed.store, &[("ttl", "10h")]);
    let lookup = timed.store.lookup().unwrap();
    deliver(&*sink, &[put("k", 1, &json!({ "old": 1 }))]).await;
    timed.pass(9);
    deliver(&*sink, &[put("k", 1, &json!({ "old": 1 }))]).await;
    timed.pass(9);
    assert!(lookup.documents(&["k".to_owned()]).await.unwrap()[0].is_some());
    timed.pass(2);
    assert_eq!(lookup.documents(&["k".to_owned()]).await.unwrap(), [None]);
    deliver(&*sink, &[put("k", 1, &json!({ "new": 1 }))]).await;
    assert_eq!(timed.store.document("k").await.unwrap(), Some(json!({ "new": 1 })));
}

#[tokio::test]
async fn ledgers_guards_and_claims_end() {
    let timed = Timed::open().await;
    let sink = counter(&timed.store, "10h");
    deliver(&*sink, &[step("unread", "e1", 1)]).await;
    timed.pass(9);
    deliver(&*sink, &[step("unread", "e1", 1)]).await;
    assert_eq!(timed.store.counter("unread").await.unwrap(), Some(1));
    let lookup = timed.store.lookup().unwrap();
    lookup.close(&["g".to_owned()], Duration::from_secs(3_600)).await.unwrap();
    assert_eq!(lookup.closed(&["g".to_owned()]).await.unwrap(), [true]);
    let ledger = timed.store.ledger(Duration::from_secs(3_600)).unwrap();
    let identity = [EffectIdentity::of(&id(), "k", &step("k", "e", 1), 0)];
    ledger.done(&identity).await.unwrap();
    assert_eq!(ledger.claim(&identity, Duration::from_secs(60)).await.unwrap(), [Claim::Done]);
    timed.pass(2);
    assert_eq!(lookup.closed(&["g".to_owned()]).await.unwrap(), [false]);
    assert_eq!(ledger.claim(&identity, Duration::from_secs(60)).await.unwrap(), [Claim::Granted]);
    timed.pass(2);
    timed.write().await;
    for table in ["processed WHERE key = 'unread'", "guards", "ledger"] {
        assert_eq!(rows(timed.folder.path(), table), 0, "{table}");
    }
}

#[tokio::test]
async fn removed_members_hide_no_page() {
    let timed = Timed::open().await;
    let set = members(&timed.store, "10h");
    let gone: Vec<Message> = (0..3_000).map(|n| remove("k", &format!("a{n:04}"), 5)).collect();
    deliver(&*set, &gone).await;
    deliver(&*set, &[add("k", "b1", 1), add("k", "b2", 1)]).await;
    let request = PageRequest { key: "k".into(), after: None, members_max: 1 };
    let pages = timed.store.lookup().unwrap().members(&[request]).await.unwrap();
    assert_eq!((pages[0].members.as_slice(), pages[0].more), (&["b1".to_owned()][..], true));
}

/// Two sinks on one key: what the one with the longer ledger remembers outlives the other's writes.
#[tokio::test]
async fn a_shorter_ledger_shortens_no_other() {
    let timed = Timed::open().await;
    for ledger in ["10h", "1h"] {
        deliver(&*timeline(&timed.store, &[("ledger", ledger)]), &[remove("k", "m", 5)]).await;
        deliver(&*members(&timed.store, ledger), &[remove("k", "m", 5)]).await;
        deliver(&*document(&timed.store, &[("ledger", ledger)]), &[delete("k", 5)]).await;
    }
    timed.pass(9);
    timed.write().await;
    deliver(&*timeline(&timed.store, &[]), &[add("k", "m", 1)]).await;
    deliver(&*members(&timed.store, "10h"), &[add("k", "m", 1)]).await;
    deliver(&*document(&timed.store, &[]), &[put("k", 1, &json!({ "n": 1 }))]).await;
    assert!(timed.store.timeline("k", 9).await.unwrap().is_empty());
    assert!(timed.store.members("k").await.unwrap().is_empty());
    assert_eq!(timed.store.document("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_clock_that_goes_back_forgets_nothing_and_holds_nothing_up() {
    let timed = Timed::open().await;
    let (hold, ledger) = (Duration::from_secs(60), Duration::from_secs(36_000));
    let (first, second) = (timed.store.ledger(ledger).unwrap(), timed.store.ledger(ledger).unwrap());
    let identity = |name: &str| [EffectIdentity::of(&id(), "k", &step("k", name, 1), 0)];
    let (claimed, done) = (identity("claimed"), identity("done"));
    assert_eq!(first.claim(&claimed, hold).await.unwrap(), [Claim::Granted]);
    first.done(&done).await.unwrap();
    let sink = counter(&timed.store, "10h");
    deliver(&*sink, &[step("unread", "e1", 1)]).await;
    assert_eq!(second.claim(&claimed, hold).await.unwrap(), [Claim::Held]);
    timed.pass(-5);
    // Whoever held it is gone, or is done long before the clock says so.
    assert_eq!(second.claim(&claimed, hold).await.unwrap(), [Claim::Granted]);
    assert_eq!(second.claim(&done, hold).await.unwrap(), [Claim::Done]);
    for hours in [0, 5, 4] {
        timed.pass(hours);
        deliver(&*sink, &[step("unread", "e1", 1)]).await;
        assert_eq!(timed.store.counter("unread").await.unwrap(), Some(1), "{hours}");
    }
}
