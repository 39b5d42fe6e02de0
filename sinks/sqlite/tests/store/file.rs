//! The file: it stays, it is shared, a newer one is refused.

use millrace_core::Class;

use super::*;

#[tokio::test]
async fn everything_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/b");
    for round in 0..2 {
        let store = open(&deep).await;
        deliver(
            &*timeline(&store, &[]),
            &[add("feed", "p1", 1), add("feed", "p2", 2), remove("feed", "p1", 3)],
        )
        .await;
        deliver(&*members(&store, "1h"), &[add("set", "m", 1)]).await;
        deliver(&*document(&store, &[]), &[put("doc", 1, &json!({ "n": 1 }))]).await;
        deliver(&*counter(&store, "1h"), &[step("unread", "e1", 1)]).await;
        deliver(&*posts(&store, "merge").await, &[put("p", 1, &json!({ "title": "coffee" }))]).await;
        assert_eq!(store.timeline("feed", 9).await.unwrap(), [("p2".to_owned(), 2.0)], "round {round}");
        assert_eq!(store.members("set").await.unwrap(), ["m"]);
        assert_eq!(store.document("doc").await.unwrap(), Some(json!({ "n": 1 })));
        assert_eq!(store.counter("unread").await.unwrap(), Some(1));
        assert_eq!(store.counters_top(5).await.unwrap(), [("unread".to_owned(), 1)]);
        assert_eq!(store.index_count("posts").await.unwrap(), 1);
        assert_eq!(store.search("posts", "coffee", 5).await.unwrap(), [json!({ "title": "coffee" })]);
        assert!(store.check().await.unwrap().iter().all(|finding| finding.ok));
    }
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).await);
    let db = sqlite3(folder.path());
    db.execute("UPDATE millrace_format SET format = 2 WHERE part = 'views'", ()).unwrap();
    let error = SqliteStore::open(folder.path()).await.err().unwrap();
    assert_eq!(error.class(), Class::Fatal);
    assert!(error.why().contains("format 2"), "{error}");
}

#[tokio::test]
async fn what_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = "no database at all ".repeat(500);
    std::fs::write(folder.path().join("views.db"), &text).unwrap();
    let error = SqliteStore::open(folder.path()).await.err().unwrap();
    assert_eq!(error.class(), Class::Fatal);
    assert_eq!(std::fs::read_to_string(folder.path().join("views.db")).unwrap(), text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_share_a_folder() {
    const EVENTS: usize = 300;
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = tokio::join!(open(folder.path()), open(folder.path()));
    let work = |store: &SqliteStore, from: usize| {
        let (unread, feed) = (counter(store, "1h"), timeline(store, &[("keep", "50"), ("slack", "0")]));
        async move {
            for n in 0..EVENTS / 10 {
                let numbers = (0..10).map(|k| (from + n * 10 + k) % EVENTS);
                let (steps, adds): (Vec<_>, Vec<_>) = numbers
                    .map(|n| {
                        let add = add("feed", &format!("p{n:03}"), i64::try_from(n).unwrap());
                        (step("unread", &n.to_string(), 1), add)
                    })
                    .unzip();
                deliver(&*unread, &steps).await;
                deliver(&*feed, &adds).await;
            }
        }
    };
    tokio::join!(work(&one, 0), work(&two, 150));
    for store in [one, two] {
        assert_eq!(store.counter("unread").await.unwrap(), i64::try_from(EVENTS).ok());
        let feed = store.timeline("feed", 50).await.unwrap();
        assert_eq!((feed.len(), &*feed[0].0, &*feed[49].0), (50, "p299", "p250"));
    }
    let stored = rows(folder.path(), "timelines");
    assert!((50..=53).contains(&stored), "{stored} are stored");
}
