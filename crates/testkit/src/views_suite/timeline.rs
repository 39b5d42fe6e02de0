//! Timelines: the newest stay, the removed stay out, the order of arrival does not matter.

use millrace_core::Message;
use serde_json::{Value, json};

use super::{
    Subject,
    orders::every_order,
    send_all,
    sending::{send_calls, send_clean},
};
use crate::message::message;

/// Every case of a timeline.
pub async fn all(subject: &Subject<'_>) {
    every_order_gives_the_same(subject).await;
    an_add_after_its_remove_has_no_effect(subject).await;
    the_newest_are_kept(subject).await;
    removes_within_the_slack_leave_the_window_exact(subject).await;
    ties_are_ordered_by_bytes(subject).await;
    the_highest_score_stays(subject).await;
    scores_of_any_size_survive(subject).await;
    a_wide_fan_out_reaches_every_timeline(subject).await;
    split_calls_do_the_same(subject).await;
    a_bad_message_harms_no_other(subject).await;
}

fn add(key: &str, member: &str, score: impl Into<Value>) -> Message {
    let score: Value = score.into();
    let value = json!({ "op": "add", "key": key, "member": member, "score": score });
    message(1, &format!("add-{member}"), &value.to_string())
}

fn remove(key: &str, member: &str) -> Message {
    let value = json!({ "op": "remove", "key": key, "member": member });
    message(2, &format!("remove-{member}"), &value.to_string())
}

async fn newest(subject: &Subject<'_>, key: &str, n: usize) -> Vec<String> {
    subject.reader.timeline(key, n).await.into_iter().map(|(member, _)| member).collect()
}

/// Creates, a delete and a redelivery, in every order, one by one and as one batch.
pub async fn every_order_gives_the_same(subject: &Subject<'_>) {
    let sink = subject.timeline(800, 200);
    let changes = |key: &str| {
        [add(key, "p1", 10), add(key, "p2", 20), remove(key, "p1"), add(key, "p1", 10), add(key, "p3", 5)]
    };
    for index in 0..every_order(&[0, 1, 2, 3, 4]).len() {
        let (single, batch) =
            (subject.key(&format!("orders:{index}")), subject.key(&format!("batch:{index}")));
        for change in &every_order(&changes(&single))[index] {
            send_clean(&*sink, std::slice::from_ref(change)).await;
        }
        send_clean(&*sink, &every_order(&changes(&batch))[index]).await;
        for key in [single, batch] {
            assert_eq!(newest(subject, &key, 800).await, ["p2", "p3"], "order {index}");
        }
    }
}

/// A remove counts even where the member, or the whole timeline, is not there.
pub async fn an_add_after_its_remove_has_no_effect(subject: &Subject<'_>) {
    let sink = subject.timeline(800, 200);
    let key = subject.key("late");
    send_clean(&*sink, &[remove(&key, "gone")]).await;
    send_clean(&*sink, &[add(&key, "gone", 7), add(&key, "here", 1)]).await;
    send_clean(&*sink, &[remove(&key, "gone"), add(&key, "gone", 9)]).await;
    assert_eq!(newest(subject, &key, 10).await, ["here"]);
}

/// Keep and slack are stored, whatever the order of the adds.
pub async fn the_newest_are_kept(subject: &Subject<'_>) {
    let sink = subject.timeline(5, 3);
    let all: Vec<i64> = (0..30).collect();
    let stirred: Vec<i64> = all.iter().map(|n| n * 7 % 30).collect();
    let falling: Vec<i64> = all.iter().rev().copied().collect();
    for (name, scores) in [("rising", &all), ("falling", &falling), ("stirred", &stirred)] {
        let key = subject.key(&format!("trim:{name}"));
        for chunk in scores.chunks(4) {
            let adds: Vec<Message> = chunk.iter().map(|n| add(&key, &format!("p{n}"), *n)).collect();
            send_clean(&*sink, &adds).await;
        }
        let stored = newest(subject, &key, 100).await;
        assert_eq!(stored, ["p29", "p28", "p27", "p26", "p25", "p24", "p23", "p22"], "{name}");
    }
}

/// The slack fills the gaps that removes leave in the window.
pub async fn removes_within_the_slack_leave_the_window_exact(subject: &Subject<'_>) {
    let sink = subject.timeline(5, 3);
    let key = subject.key("slack");
    let adds: Vec<Message> = (0..30).map(|n| add(&key, &format!("p{n}"), n)).collect();
    send_clean(&*sink, &adds).await;
    send_clean(&*sink, &[remove(&key, "p29"), remove(&key, "p27"), remove(&key, "p25")]).await;
    assert_eq!(newest(subject, &key, 5).await, ["p28", "p26", "p24", "p23", "p22"]);
}

/// At equal scores the greater member is the newer, for readers and for the trim.
pub async fn ties_are_ordered_by_bytes(subject: &Subject<'_>) {
    let sink = subject.timeline(4, 0);
    let key = subject.key("ties");
    let adds = ["b", "B", "é", "a", "10", "9", "ab"].map(|member| add(&key, member, 1));
    for order in [adds.to_vec(), adds.iter().rev().cloned().collect()] {
        send_clean(&*sink, &order).await;
        assert_eq!(newest(subject, &key, 100).await, ["é", "b", "ab", "a"]);
    }
}

/// Two scores for one member: the same one stays in either order.
pub async fn the_highest_score_stays(subject: &Subject<'_>) {
    let sink = subject.timeline(10, 0);
    for (name, scores) in [("up", [1, 3, 2]), ("down", [3, 2, 1])] {
        let key = subject.key(&format!("score:{name}"));
        for score in scores {
            send_clean(&*sink, &[add(&key, "p", score)]).await;
        }
        assert_eq!(subject.reader.timeline(&key, 10).await, [("p".to_owned(), 3.0)], "{name}");
    }
}

/// Integers up to 2^53, fractions, negative, huge and tiny ones are kept exactly.
pub async fn scores_of_any_size_survive(subject: &Subject<'_>) {
    let sink = subject.timeline(100, 0);
    let key = subject.key("scores");
    let scores: [f64; 7] =
        [9_007_199_254_740_992.0, -0.125, 0.0, -3e200, 1e-300, 1_424_129_760_000.0, 0.1 + 0.2];
    let adds: Vec<Message> =
        scores.iter().enumerate().map(|(n, score)| add(&key, &format!("p{n}"), *score)).collect();
    send_clean(&*sink, &adds).await;
    let mut expected = scores.to_vec();
    expected.sort_by(|a, b| b.total_cmp(a));
    let kept: Vec<f64> = subject.reader.timeline(&key, 100).await.into_iter().map(|(_, s)| s).collect();
    assert_eq!(kept, expected);
}

/// One event, many timelines, in one batch larger than any call.
pub async fn a_wide_fan_out_reaches_every_timeline(subject: &Subject<'_>) {
    const FOLLOWERS: usize = 1_300;
    let sink = subject.timeline(800, 200);
    let key = |n: usize| subject.key(&format!("fan:{n}"));
    let adds: Vec<Message> = (0..FOLLOWERS).map(|n| add(&key(n), "post", 5)).collect();
    send_clean(&*sink, &adds).await;
    send_clean(&*sink, &[remove(&key(7), "post")]).await;
    for n in [0, 6, 499, 500, 501, 999, 1_000, FOLLOWERS - 1] {
        assert_eq!(newest(subject, &key(n), 10).await, ["post"], "timeline {n}");
    }
    assert!(newest(subject, &key(7), 10).await.is_empty());
}

/// What the runtime does to find a message at fault changes no effect.
pub async fn split_calls_do_the_same(subject: &Subject<'_>) {
    let sink = subject.timeline(800, 200);
    let key = subject.key("split");
    let batch = [add(&key, "p1", 1), add(&key, "p2", 2), remove(&key, "p1"), add(&key, "p3", 3)];
    let calls = sink.encode(&batch).calls;
    assert_eq!(calls, sink.encode(&batch).calls, "equal input gives equal calls");
    let single = calls.iter().flat_map(millrace_core::Call::split).collect();
    assert!(send_calls(&*sink, single).await.is_empty());
    send_clean(&*sink, &batch).await;
    assert_eq!(newest(subject, &key, 10).await, ["p3", "p2"]);
}

/// A message without a member, or with a score that is none, is rejected alone.
pub async fn a_bad_message_harms_no_other(subject: &Subject<'_>) {
    let sink = subject.timeline(800, 200);
    let key = subject.key("bad");
    let batch = [
        add(&key, "p1", 1),
        add(&key, "p2", "soon"),
        message(3, "3", &json!({ "op": "add", "key": key, "score": 1 }).to_string()),
        message(4, "4", "not JSON"),
        add(&key, "p3", 3),
        message(5, "5", &json!({ "op": "add", "key": key, "member": "a\u{0}b", "score": 1 }).to_string()),
    ];
    let rejected: Vec<u32> = send_all(&*sink, &batch).await.into_iter().map(|(place, _)| place).collect();
    assert_eq!(rejected, [1, 2, 3, 5]);
    assert_eq!(newest(subject, &key, 10).await, ["p3", "p1"]);
}
