//! Slots that move to another master while effects are sent. A binary of its own, so that no other test of this
//! crate runs meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Arc;

use millrace_core::{Answer, Class, Message, Sink};
use millrace_testkit::{
    message::message,
    views_suite::{Subject, ViewsReader},
};
use redis::{Client, FromRedisValue, RedisResult, aio::MultiplexedConnection};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Duration, timeout},
};

use support::{Reader, open, prefix, variable};

const DEADLINE: Duration = Duration::from_secs(60);

/// One master, spoken to directly.
struct Master {
    address: (String, String),
    id: String,
    connection: MultiplexedConnection,
}

impl Master {
    async fn connect(node: &str) -> Self {
        let client = Client::open(format!("redis://{node}")).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        let (host, port) = node.rsplit_once(':').unwrap();
        let mut master = Master { address: (host.into(), port.into()), id: String::new(), connection };
        master.id = master.ask(&["CLUSTER", "MYID"]).await.unwrap();
        master
    }

    async fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> RedisResult<T> {
        redis::Cmd::new().arg(words).query_async(&mut self.connection).await
    }

    async fn set_slot(&mut self, slot: &str, state: &str, id: &str) {
        let _: String = self.ask(&["CLUSTER", "SETSLOT", slot, state, id]).await.unwrap();
    }
}

/// Moves a slot with its keys, as `redis-cli --cluster reshard` does, and waits until all masters agree on it.
async fn move_slot(masters: &mut [Master], slot: &str, from: usize, to: usize) {
    let (from_id, to_id) = (masters[from].id.clone(), masters[to].id.clone());
    let (host, port) = masters[to].address.clone();
    masters[to].set_slot(slot, "IMPORTING", &from_id).await;
    masters[from].set_slot(slot, "MIGRATING", &to_id).await;
    loop {
        let keys: Vec<String> = masters[from].ask(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]).await.unwrap();
        if keys.is_empty() {
            break;
        }
        let mut words = vec!["MIGRATE", &host, &port, "", "0", "5000", "KEYS"];
        words.extend(keys.iter().map(String::as_str));
        let _: String = masters[from].ask(&words).await.unwrap();
    }
    masters[to].set_slot(slot, "NODE", &to_id).await;
    masters[from].set_slot(slot, "NODE", &to_id).await;
    while !agree(masters).await {
        tokio::task::yield_now().await;
    }
}

/// Whether all masters see the same slots at the same epochs: a move before that may be undone by gossip.
async fn agree(masters: &mut [Master]) -> bool {
    let mut views = Vec::new();
    for master in masters {
        let nodes: String = master.ask(&["CLUSTER", "NODES"]).await.unwrap();
        let mut view: Vec<String> = nodes
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                format!("{} {} {}", words[0], words[6], words[8..].join(" "))
            })
            .collect();
        view.sort_unstable();
        views.push(view);
    }
    views.iter().all(|view| *view == views[0])
}

/// Sends until all is done, again where the answer is Retry.
async fn send(sink: &dyn Sink, messages: &[Message]) {
    let mut calls = sink.encode(messages).calls;
    while !calls.is_empty() {
        let answers = sink.send(&calls).await;
        let again = calls.into_iter().zip(answers).filter_map(|(call, answer)| match answer {
            Answer::Done => None,
            Answer::Failed(error) => {
                assert_eq!(error.class(), Class::Retry, "{}", error.chain());
                Some(call)
            }
        });
        calls = again.collect();
        tokio::task::yield_now().await;
    }
}

/// Adds one member after another, each with its like in other slots, until nobody listens to the number sent.
async fn add_on(sink: Arc<dyn Sink>, prefix: String, sent: watch::Sender<usize>) {
    let add = |key: &str, n: usize| {
        let value = json!({ "op": "add", "key": key, "member": format!("m{n}"), "score": n });
        message(1, &format!("{key}-{n}"), &value.to_string())
    };
    for n in 0..100_000 {
        let keys = [format!("{{{prefix}}}:feed"), format!("{prefix}:a"), format!("{prefix}:b")];
        send(&*sink, &keys.map(|key| add(&key, n))).await;
        if sent.send(n + 1).is_err() {
            break;
        }
    }
}

#[tokio::test]
async fn effects_follow_a_slot_to_another_master_and_back() {
    let nodes = variable("MILLRACE_TEST_REDIS_CLUSTER");
    let store = open(&[("url", &format!("redis://{nodes}")), ("cluster", "true")]);
    let (reader, prefix) = (Reader::cluster().await, prefix("moving"));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    let key = format!("{{{prefix}}}:feed");

    let mut masters = Vec::new();
    for node in nodes.split(',') {
        masters.push(Master::connect(node).await);
    }
    let slot: i64 = masters[0].ask(&["CLUSTER", "KEYSLOT", &key]).await.unwrap();
    let slot = slot.to_string();
    let mut owner = None;
    for (place, master) in masters.iter_mut().enumerate() {
        if master.ask::<i64>(&["EXISTS", &key]).await.is_ok() {
            owner = Some(place);
        }
    }
    let (from, to) = (owner.unwrap(), (owner.unwrap() + 1) % masters.len());

    let (sender, mut progress) = watch::channel(0);
    let worker = tokio::spawn(add_on(subject.timeline(800, 100_000), prefix.clone(), sender));
    let moves = async {
        for (from, to) in [(from, to), (to, from)] {
            move_slot(&mut masters, &slot, from, to).await;
            // The worker goes on while the slot is where it never was before, or no longer.
            let more = *progress.borrow() + 30;
            progress.wait_for(|sent| *sent >= more).await.unwrap();
        }
    };
    timeout(DEADLINE, moves).await.unwrap();
    let sent = progress.borrow().to_owned();
    drop(progress);
    timeout(DEADLINE, worker).await.unwrap().unwrap();
    for key in [key, format!("{prefix}:a"), format!("{prefix}:b")] {
        let there = reader.timeline(&key, 100_000).await.len();
        assert!(there >= sent, "{there} of {sent} in {key}");
    }
    reader.forget(&prefix).await;
}
