//! Sends: they share transactions, fail alone, and say what they do.

use std::{pin::Pin, task::Poll};

use millrace_core::{Answer, Call, Class};
use tokio::task::JoinSet;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_harms_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let unread = counter(&store, "1h");
    deliver(&*unread, &[step("full", "seed", 1)]).await;
    sqlite3(folder.path()).execute("UPDATE counters SET value = 9223372036854775807", ()).unwrap();
    let mut sends = JoinSet::new();
    for n in 0..40 {
        let sink = unread.clone();
        sends.spawn(async move {
            let batch = [
                step(&format!("a{n}"), "e1", 1),
                step(if n % 4 == 0 { "full" } else { "b" }, &format!("e{n}"), 1),
                step("all", &format!("e{n}"), 1),
            ];
            send_all(&*sink, &batch).await.iter().map(|(place, _)| *place).collect::<Vec<_>>()
        });
    }
    let mut rejected = sends.join_all().await;
    rejected.sort();
    assert_eq!(rejected.iter().filter(|places| **places == [1]).count(), 10);
    assert_eq!(rejected.iter().filter(|places| places.is_empty()).count(), 30);
    assert_eq!(store.counter("all").await.unwrap(), Some(40));
    assert_eq!(store.counter("b").await.unwrap(), Some(30));
    assert_eq!(store.counter("full").await.unwrap(), Some(i64::MAX));
    // What was rejected left no identity behind.
    assert_eq!(rows(folder.path(), "processed WHERE key = 'full'"), 1);
}

#[tokio::test]
async fn an_unprepared_index_fails_its_own_calls_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let unprepared = index(&store, "posts", "merge", &[]).unwrap();
    let feed = timeline(&store, &[]);
    let calls = unprepared.encode(&[put("1", 1, &json!({ "n": 1 }))]).calls;
    let adds = feed.encode(&[add("k", "m", 1)]).calls;
    let (failed, done) = tokio::join!(unprepared.send(&calls), feed.send(&adds));
    assert!(matches!(&failed[..], [Answer::Failed(error)] if error.class() == Class::Fatal), "{failed:?}");
    assert!(matches!(&done[..], [Answer::Done]), "{done:?}");
}

#[tokio::test]
async fn a_foreign_call_is_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let sinks = [
        timeline(&store, &[]),
        members(&store, "1h"),
        document(&store, &[]),
        counter(&store, "1h"),
        posts(&store, "merge").await,
    ];
    let parts: [&[&'static [u8]]; 4] =
        [&[], &[b"add"], &[b"put", b"k", b"\xff", b"{"], &[b"what", b"k", b"m"]];
    for sink in sinks {
        for parts in parts {
            let call = Call::single("x", 0, parts.iter().map(|part| (*part).into()).collect());
            assert!(matches!(&sink.send(std::slice::from_ref(&call)).await[..], [Answer::Failed(_)]));
            assert!(sink.describe(&call).is_object());
        }
    }
}

#[tokio::test]
async fn what_was_queued_is_done_without_its_caller() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let feed = timeline(&store, &[]);
    for n in 0..30 {
        let calls = feed.encode(&[add("k", &format!("m{n}"), n)]).calls;
        let mut send = feed.send(&calls);
        // Polled once: it is in the queue. Then dropped.
        let _ = poll_once(&mut send).await;
    }
    deliver(&*feed, &[add("k", "last", 100)]).await;
    assert_eq!(store.timeline("k", 100).await.unwrap().len(), 31);
}

/// Polls once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context).is_ready())).await
}

#[tokio::test]
async fn calls_are_described() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let described = |sink: &dyn Sink, messages: &[Message]| -> Vec<Value> {
        sink.encode(messages).calls.iter().map(|call| sink.describe(call)).collect()
    };
    assert_eq!(
        described(&*timeline(&store, &[]), &[add("feed:u1", "p1", 7), remove("feed:u1", "p1", 8)]),
        [json!([
            { "timeline.add": { "key": "feed:u1", "member": "p1", "score": 7.0 } },
            { "timeline.remove": { "key": "feed:u1", "member": "p1" } },
        ])]
    );
    assert_eq!(
        described(&*members(&store, "1h"), &[add("followers:u1", "u2", 7)]),
        [json!({ "members.add": { "key": "followers:u1", "member": "u2", "version": 7 } })]
    );
    assert_eq!(
        described(&*document(&store, &[]), &[put("post:1", 3, &json!({ "n": [1.5] }))]),
        [json!({ "document.put": { "key": "post:1", "version": 3, "document": { "n": [1.5] } } })]
    );
    assert_eq!(
        described(&*posts(&store, "merge").await, &[delete("1", 3)]),
        [json!({ "index.delete": { "index": "posts", "id": "1", "version": 3 } })]
    );
    let counted = described(&*counter(&store, "1h"), &[step("unread:u1", "e", 2)]);
    assert_eq!(
        (&counted[0]["counter.add"]["key"], &counted[0]["counter.add"]["by"]),
        (&json!("unread:u1"), &json!(2))
    );
}
