//! Counters: each event moves them once, however often, wherever and with whom it is delivered.

use std::sync::Arc;

use millrace_core::{Envelope, Message, Ordinals, Origin};
use serde_json::json;

use super::{
    Subject, send_all,
    sending::{send_calls, send_clean},
};
use crate::message::{message, record};

/// Every case of a counter.
pub async fn all(subject: &Subject<'_>) {
    a_redelivered_event_counts_once(subject).await;
    outputs_of_one_event_count_each(subject).await;
    outputs_in_several_parts_count_each(subject).await;
    moves_add_up(subject).await;
    sinks_have_ledgers_of_their_own(subject).await;
    without_an_event_id_the_place_counts(subject).await;
    a_large_batch_counts_every_event(subject).await;
    a_bad_move_is_rejected(subject).await;
}

pub(super) fn step(key: &str, offset: i64, event_id: &str, by: i64) -> Message {
    message(offset, event_id, &json!({ "key": key, "by": by }).to_string())
}

/// Again in a later batch, again as another record of the same batch, again call by call.
pub async fn a_redelivered_event_counts_once(subject: &Subject<'_>) {
    let sink = subject.counter("counter");
    let key = subject.key("once");
    send_clean(&*sink, &[step(&key, 1, "a", 1), step(&key, 2, "b", 1)]).await;
    send_clean(&*sink, &[step(&key, 1, "a", 1), step(&key, 2, "b", 1)]).await;
    send_clean(&*sink, &[step(&key, 8, "c", 1), step(&key, 9, "c", 1), step(&key, 10, "a", 1)]).await;
    let calls = sink.encode(&[step(&key, 8, "c", 1), step(&key, 2, "b", 1)]).calls;
    let single = calls.iter().flat_map(millrace_core::Call::split).collect();
    assert!(send_calls(&*sink, single).await.is_empty());
    assert_eq!(subject.reader.counter(&key).await, Some(3));
}

/// One event that moves one counter twice: both moves count, each of them once.
pub async fn outputs_of_one_event_count_each(subject: &Subject<'_>) {
    let sink = subject.counter("counter");
    let (key, other) = (subject.key("outputs"), subject.key("outputs:other"));
    let batch = [step(&key, 1, "a", 1), step(&other, 1, "a", 1), step(&key, 1, "a", 1)];
    for _ in 0..3 {
        send_clean(&*sink, &batch).await;
    }
    assert_eq!(subject.reader.counter(&key).await, Some(2));
    assert_eq!(subject.reader.counter(&other).await, Some(1));
}

/// As the runtime hands them over when an event has more outputs than a chunk, or a page of a lookup: part by
/// part, mixed with those of another event. Cut in other places at the second delivery.
pub async fn outputs_in_several_parts_count_each(subject: &Subject<'_>) {
    let sink = subject.counter("counter");
    let (key, other) = (subject.key("parts"), subject.key("parts:other"));
    let (one, two) = (step(&key, 1, "a", 1), step(&key, 2, "b", 10));
    let output = |of: &Message, key: &str, by: i64| {
        let value = json!({ "key": key, "by": by }).to_string();
        Message::derived(of.origin.clone(), None, value.into())
    };
    let outputs = [
        output(&one, &key, 1),
        output(&one, &other, 100),
        output(&two, &key, 10),
        output(&one, &key, 1),
        output(&two, &other, 1_000),
        output(&one, &key, 1),
        output(&two, &key, 10),
    ];
    for cut in [7, 3, 1, 2] {
        let mut ordinals = Ordinals::default();
        for part in outputs.chunks(cut) {
            let encoded = sink.encode_part(part, &mut ordinals);
            assert!(encoded.rejected.is_empty());
            assert!(send_calls(&*sink, encoded.calls).await.is_empty());
        }
        assert_eq!(subject.reader.counter(&key).await, Some(23), "in parts of {cut}");
        assert_eq!(subject.reader.counter(&other).await, Some(1_100), "in parts of {cut}");
    }
}

/// Up, down, by many, by none.
pub async fn moves_add_up(subject: &Subject<'_>) {
    let sink = subject.counter("counter");
    let (key, still) = (subject.key("sum"), subject.key("still"));
    let moves = [(1, 5), (2, -7), (3, 1_000_000_000), (4, 0), (5, -1)];
    let batch: Vec<Message> =
        moves.iter().map(|(offset, by)| step(&key, *offset, &format!("e{offset}"), *by)).collect();
    send_clean(&*sink, &batch).await;
    send_clean(&*sink, &[step(&still, 1, "a", 0)]).await;
    assert_eq!(subject.reader.counter(&key).await, Some(999_999_997));
    assert_eq!(subject.reader.counter(&still).await, None, "a move by 0 writes nothing");
}

/// The same event through two sinks counts twice; through one of them again, not.
pub async fn sinks_have_ledgers_of_their_own(subject: &Subject<'_>) {
    let (one, two) = (subject.counter("one"), subject.counter("two"));
    let key = subject.key("sinks");
    for sink in [&one, &two, &one, &two] {
        send_clean(&**sink, &[step(&key, 1, "a", 1)]).await;
    }
    assert_eq!(subject.reader.counter(&key).await, Some(2));
}

/// Records without an event id are told apart by topic, partition and offset.
pub async fn without_an_event_id_the_place_counts(subject: &Subject<'_>) {
    let sink = subject.counter("counter");
    let key = subject.key("raw");
    let value = json!({ "key": key, "by": 1 }).to_string();
    let raw = |offset: i64| {
        Message::first(Arc::new(Origin { record: record(offset, &value), envelope: Envelope::default() }))
    };
    send_clean(&*sink, &[raw(1), raw(2)]).await;
    send_clean(&*sink, &[raw(2), raw(3)]).await;
    assert_eq!(subject.reader.counter(&key).await, Some(3));
}

/// More events than a call holds, on one counter and on many.
pub async fn a_large_batch_counts_every_event(subject: &Subject<'_>) {
    const EVENTS: i64 = 1_200;
    let sink = subject.counter("counter");
    let key = subject.key("busy");
    let own = |n: i64| subject.key(&format!("busy:{n}"));
    let batch: Vec<Message> = (0..EVENTS)
        .flat_map(|n| [step(&key, n, &format!("e{n}"), 1), step(&own(n), n, &format!("e{n}"), 2)])
        .collect();
    for _ in 0..2 {
        send_clean(&*sink, &batch).await;
    }
    assert_eq!(subject.reader.counter(&key).await, Some(EVENTS));
    for n in [0, 250, 500, EVENTS - 1] {
        assert_eq!(subject.reader.counter(&own(n)).await, Some(2), "counter {n}");
    }
}

/// A fraction and a move beyond any sense.
pub async fn a_bad_move_is_rejected(subject: &Subject<'_>) {
    let sink = subject.counter("counter");
    let key = subject.key("badmove");
    let batch = [
        message(1, "a", &json!({ "key": key, "by": 1.5 }).to_string()),
        step(&key, 2, "b", i64::MAX),
        step(&key, 3, "c", 1),
    ];
    let rejected: Vec<u32> = send_all(&*sink, &batch).await.into_iter().map(|(place, _)| place).collect();
    assert_eq!(rejected, [0, 1]);
    assert_eq!(subject.reader.counter(&key).await, Some(1));
}
