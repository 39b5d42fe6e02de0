//! Lives of keys: nothing that guards an effect stays for ever, nothing goes too early.

use std::sync::Arc;

use millrace_core::{
    Sink, View,
    settings::Problems,
    views::{Counter, Document, Members, Timeline},
};
use millrace_testkit::{
    message::message,
    views_suite::{Subject, send_all, settings},
};
use serde_json::json;

use crate::support::{Reader, open, prefix, variable};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

async fn life_ms(reader: &Reader, key: &str) -> i64 {
    reader.ask(&["PTTL", key]).await
}

async fn send(sink: &Arc<dyn Sink>, value: serde_json::Value) {
    let message = message(1, &value.to_string(), &value.to_string());
    assert!(send_all(&**sink, &[message]).await.is_empty());
}

#[tokio::test]
async fn an_idle_timeline_goes_and_its_tombstones_stay_for_the_ledger() {
    let store = open(&[("url", &variable("REDIS_URL"))]);
    let (reader, prefix) = (Reader::single().await, prefix("lives"));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    let pairs = [
        ("key", "{key}"),
        ("op", "{op}"),
        ("member", "{m}"),
        ("score", "{s}"),
        ("ttl", "1h"),
        ("ledger", "2d"),
    ];
    let view = Timeline::read(&settings(&pairs), &mut Problems::default()).unwrap();
    let sink = subject.open("timeline", View::Timeline(view));
    let key = subject.key("feed");
    send(&sink, json!({ "key": key, "op": "add", "m": "a", "s": 1 })).await;
    send(&sink, json!({ "key": key, "op": "remove", "m": "b" })).await;
    let (feed, tombstones) =
        (life_ms(&reader, &key).await, life_ms(&reader, &format!("removed:{{{key}}}")).await);
    assert!((HOUR_MS - 60_000..=HOUR_MS).contains(&feed), "{feed}");
    assert!((2 * DAY_MS - 60_000..=2 * DAY_MS).contains(&tombstones), "{tombstones}");
    reader.forget(&prefix).await;
}

#[tokio::test]
async fn expired_tombstones_are_pruned_and_admit_the_member_again() {
    let store = open(&[("url", &variable("REDIS_URL"))]);
    let (reader, prefix) = (Reader::single().await, prefix("pruned"));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    let (sink, key) = (subject.timeline(10, 0), subject.key("feed"));
    let tombstones = format!("removed:{{{key}}}");
    for n in 0..25 {
        let _: i64 = reader.ask(&["ZADD", &tombstones, "1000", &format!("old{n}")]).await;
    }
    send(&sink, json!({ "key": key, "op": "add", "member": "old7", "score": 1 })).await;
    for round in 1..=3 {
        send(&sink, json!({ "key": key, "op": "remove", "member": format!("new{round}") })).await;
    }
    let left: Vec<String> = reader.ask(&["ZRANGE", &tombstones, "0", "-1"]).await;
    assert_eq!(left, ["new1", "new2", "new3"]);
    let feed: Vec<String> = reader.ask(&["ZRANGE", &key, "0", "-1"]).await;
    assert_eq!(feed, ["old7"]);
    reader.forget(&prefix).await;
}

#[tokio::test]
async fn versions_of_a_set_stay_while_it_has_members() {
    let store = open(&[("url", &variable("REDIS_URL"))]);
    let (reader, prefix) = (Reader::single().await, prefix("versions"));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    let (sink, key) = (subject.members(), subject.key("followers"));
    let companions = [format!("versions:{{{key}}}"), format!("removed:{{{key}}}")];
    let change = |op: &str, member: &str, version: i64| json!({ "key": key, "op": op, "member": member, "version": version });
    send(&sink, change("add", "a", 1)).await;
    send(&sink, change("remove", "a", 2)).await;
    for companion in &companions {
        let life = life_ms(&reader, companion).await;
        assert!((30 * DAY_MS - 60_000..=30 * DAY_MS).contains(&life), "{companion}: {life}");
    }
    send(&sink, change("add", "b", 3)).await;
    for companion in &companions {
        assert_eq!(life_ms(&reader, companion).await, -1, "{companion} stays with its set");
    }
    let _: i64 = reader.ask(&["ZADD", &companions[1], "1000", "a"]).await;
    send(&sink, change("remove", "c", 4)).await;
    let known: Vec<String> = reader.ask(&["HKEYS", &companions[0]]).await;
    assert_eq!(known, ["b", "c"], "the version of a goes with its tombstone");
    reader.forget(&prefix).await;
}

#[tokio::test]
async fn documents_expire_with_their_versions_and_stay_deleted_for_the_ledger() {
    let store = open(&[("url", &variable("REDIS_URL"))]);
    let (reader, prefix) = (Reader::single().await, prefix("documents"));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    let pairs = [
        ("key", "{key}"),
        ("op", "{op}"),
        ("version", "{v}"),
        ("document", "{d}"),
        ("ttl", "1h"),
        ("ledger", "2d"),
    ];
    let view = Document::read(&settings(&pairs), &mut Problems::default()).unwrap();
    let (sink, key) = (subject.open("document", View::Document(view)), subject.key("post"));
    let fields = format!("fields:{{{key}}}");
    send(&sink, json!({ "key": key, "op": "put", "v": 1, "d": { "a": 1 } })).await;
    for name in [&key, &fields] {
        let life = life_ms(&reader, name).await;
        assert!((HOUR_MS - 60_000..=HOUR_MS).contains(&life), "{name}: {life}");
    }
    send(&sink, json!({ "key": key, "op": "delete", "v": 2 })).await;
    let life = life_ms(&reader, &fields).await;
    assert!((2 * DAY_MS - 60_000..=2 * DAY_MS).contains(&life), "{life}");
    let kept: Vec<String> = reader.ask(&["HGETALL", &fields]).await;
    assert_eq!(kept, ["", ""], "a tombstone holds no content");
    reader.forget(&prefix).await;
}

#[tokio::test]
async fn ledgers_of_counters_are_pruned_by_age_and_go_when_idle() {
    let store = open(&[("url", &variable("REDIS_URL"))]);
    let (reader, prefix) = (Reader::single().await, prefix("ledgers"));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    let (sink, key) = (subject.counter("counter"), subject.key("unread"));
    let ledger = format!("processed:{{{key}}}");
    for n in 0..25 {
        let _: i64 = reader.ask(&["ZADD", &ledger, "1000", &format!("old{n}")]).await;
    }
    for n in 0..3 {
        send(&sink, json!({ "key": key, "by": 1, "n": n })).await;
    }
    let left: i64 = reader.ask(&["ZCARD", &ledger]).await;
    assert_eq!(left, 3);
    let life = life_ms(&reader, &ledger).await;
    assert!((30 * DAY_MS - 60_000..=30 * DAY_MS).contains(&life), "{life}");
    reader.forget(&prefix).await;
}

/// Two sinks on one key: what the one with the longer ledger remembers outlives the other's writes.
#[tokio::test]
async fn a_shorter_ledger_shortens_no_other() {
    let store = open(&[("url", &variable("REDIS_URL"))]);
    let (reader, prefix) = (Reader::single().await, prefix("shared"));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    let problems = &mut Problems::default();
    let key = |name: &str| subject.key(name);
    for ledger in ["9d", "2d"] {
        let common = [("key", "{key}"), ("op", "{op}"), ("ledger", ledger)];
        let member = [("member", "{m}"), ("score", "1"), ("version", "{v}")];
        let timeline = Timeline::read(&settings(&[&common[..], &member[..2]].concat()), problems).unwrap();
        let members = Members::read(&settings(&[&common[..], &[member[0], member[2]]].concat()), problems);
        let document = Document::read(&settings(&[&common[..], &member[2..]].concat()), problems).unwrap();
        let counter = Counter::read(&settings(&[common[0], common[2]]), problems).unwrap();
        for (name, op, view) in [
            ("feed", "remove", View::Timeline(timeline)),
            ("set", "remove", View::Members(members.unwrap())),
            ("post", "delete", View::Document(document)),
            ("unread", "", View::Counter(counter)),
        ] {
            let sink = subject.open(&format!("{name}-{ledger}"), view);
            send(&sink, json!({ "key": key(name), "op": op, "m": "m", "v": 1 })).await;
        }
    }
    for (companion, name) in [
        ("removed", "feed"),
        ("removed", "set"),
        ("versions", "set"),
        ("fields", "post"),
        ("processed", "unread"),
    ] {
        let life = life_ms(&reader, &format!("{companion}:{{{}}}", key(name))).await;
        assert!((9 * DAY_MS - 60_000..=9 * DAY_MS).contains(&life), "{companion} of {name}: {life}");
    }
    let gone: f64 = reader.ask(&["ZSCORE", &format!("removed:{{{}}}", key("feed")), "m"]).await;
    let set: f64 = reader.ask(&["ZSCORE", &format!("removed:{{{}}}", key("set")), "m"]).await;
    assert!((gone - set).abs() < 60_000.0, "{gone} and {set}: both for 9 days");
    reader.forget(&prefix).await;
}
