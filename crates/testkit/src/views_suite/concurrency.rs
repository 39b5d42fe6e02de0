//! The same effects from many workers at once: a zombie beside its successor, over and over.

use std::sync::Arc;

use millrace_core::{Message, Sink};
use serde_json::json;
use tokio::{task::JoinSet, time::Duration};

use super::{
    Subject, counter::step, document::put, members::change, orders::every_order, sending::send_clean,
};
use crate::message::message;

const WORKERS: usize = 12;
const DEADLINE: Duration = Duration::from_secs(60);

/// Twelve workers send the same changes, each in an order of its own; the state is that of one.
pub async fn everything_at_once(subject: &Subject<'_>) {
    let key = subject.key("crowd");
    let timeline = {
        let change = |op: &str, member: &str, score: i64| {
            let value = json!({ "op": op, "key": key, "member": member, "score": score });
            message(score, &format!("{op}-{member}"), &value.to_string())
        };
        [change("add", "p1", 1), change("add", "p2", 2), change("remove", "p1", 3), change("add", "p3", 4)]
    };
    let set = subject.key("crowd:set");
    let members = [("add", "a", 1), ("remove", "a", 2), ("add", "b", 3), ("add", "c", 4)]
        .map(|(op, member, version)| change(op, &set, member, version));
    let post = subject.key("crowd:post");
    let document = [
        put(&post, 1, &json!({ "title": "t1", "tags": [] })),
        put(&post, 2, &json!({ "title": "t2" })),
        put(&post, 3, &json!({ "text": "x3" })),
        put(&post, 2, &json!({ "text": "x2", "by": "a" })),
    ];
    let unread = subject.key("crowd:unread");
    let counter = [1, 2, 3, 4].map(|n| step(&unread, n, &format!("e{n}"), n));

    let mut workers = JoinSet::new();
    spawn_each_order(&mut workers, &subject.timeline(800, 200), &timeline);
    spawn_each_order(&mut workers, &subject.members(), &members);
    spawn_each_order(&mut workers, &subject.document(), &document);
    spawn_each_order(&mut workers, &subject.counter("counter"), &counter);
    let done = async { while workers.join_next().await.transpose().expect("a worker panicked").is_some() {} };
    tokio::time::timeout(DEADLINE, done).await.expect("the workers end");

    let posts: Vec<String> = subject.reader.timeline(&key, 10).await.into_iter().map(|(m, _)| m).collect();
    assert_eq!(posts, ["p3", "p2"]);
    assert_eq!(subject.reader.members(&set).await, ["b", "c"]);
    let merged = json!({ "title": "t2", "tags": [], "text": "x3", "by": "a" });
    assert_eq!(subject.reader.document(&post).await, Some(merged));
    assert_eq!(subject.reader.counter(&unread).await, Some(10));
}

/// Workers that each send one order of the changes, half of them as one batch.
fn spawn_each_order(workers: &mut JoinSet<()>, sink: &Arc<dyn Sink>, changes: &[Message]) {
    for (index, order) in every_order(changes).into_iter().step_by(2).take(WORKERS).enumerate() {
        let sink = sink.clone();
        workers.spawn(async move {
            if index % 2 == 0 {
                send_clean(&*sink, &order).await;
            } else {
                for change in &order {
                    send_clean(&*sink, std::slice::from_ref(change)).await;
                }
            }
        });
    }
}
