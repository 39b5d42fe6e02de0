//! Cases of mode `merge`: events carry parts, and the order in which they arrive must not show.

use millrace_core::{Class, Message};
use serde_json::{Value, json};

use super::{
    Rig,
    writer::{Mode, Writer, delete, put, put_ranked},
};

/// The six orders of three events.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

fn create(id: &str) -> Message {
    put(
        id,
        1,
        &json!({ "title": "first", "tags": ["a", "b"], "likes": 3, "status": "new", "extra": { "n": 1 } }),
    )
}

fn update(id: &str) -> Message {
    put(id, 2, &json!({ "title": "second", "tags": [] }))
}

fn touch(id: &str) -> Message {
    put(id, 3, &json!({ "likes": 4 }))
}

pub(super) async fn every_order_gives_the_same_documents(rig: Rig<'_>) {
    let writer = Writer::open(rig, rig.index("orders"), Mode::Merge).await;
    let kept = |id: &str| [create(id), update(id), touch(id)];
    let gone = |id: &str| [create(id), update(id), delete(id, 1)];
    let merged = json!({ "title": "second", "tags": [], "likes": 4, "status": "new", "extra": { "n": 1 } });
    let mut expected: Vec<(String, Option<Value>)> = Vec::new();
    for order in ORDERS {
        for (what, events, document) in [("kept", kept as fn(&str) -> _, Some(&merged)), ("gone", gone, None)]
        {
            for together in [true, false] {
                let id = format!("{what}-{order:?}-{together}");
                let events: [Message; 3] = events(&id);
                // Everything is delivered twice: the second time nothing may change.
                let order = [order, order].concat();
                let ordered: Vec<Message> = order.iter().map(|event| events[*event].clone()).collect();
                if together {
                    writer.deliver(&ordered).await;
                } else {
                    for event in ordered.chunks(1) {
                        writer.deliver(event).await;
                    }
                }
                expected.push((id, document.cloned()));
            }
        }
    }
    rig.refresh(&writer).await;
    for (id, document) in &expected {
        assert_eq!(rig.document(&writer, id).await, *document, "{}: {id}", writer.index);
    }
    assert_eq!(rig.count(&writer).await, 12, "{}: readers count what is not deleted", writer.index);
}

pub(super) async fn equal_versions_converge(rig: Rig<'_>) {
    let writer = Writer::open(rig, rig.index("equal"), Mode::Merge).await;
    let one = |id: &str| put(id, 5, &json!({ "title": "alpha", "likes": 9 }));
    let two = |id: &str| put(id, 5, &json!({ "title": "beta", "likes": 10 }));
    writer.deliver(&[one("a")]).await;
    writer.deliver(&[two("a")]).await;
    writer.deliver(&[two("b")]).await;
    writer.deliver(&[one("b")]).await;
    writer.deliver(&[two("c"), one("c")]).await;
    rig.refresh(&writer).await;
    for id in ["a", "b", "c"] {
        // The bytewise greater JSON text: "beta" over "alpha", 9 over 10.
        let expected = json!({ "title": "beta", "likes": 9 });
        assert_eq!(rig.document(&writer, id).await, Some(expected), "{}: {id}", writer.index);
    }
}

pub(super) async fn a_status_moves_by_rank(rig: Rig<'_>) {
    let writer = Writer::open(rig, rig.index("rank"), Mode::MergeByRank).await;
    let steps = |id: &str| {
        [
            put_ranked(id, 100, 1, &json!({ "status": "created", "total": 5 })),
            put_ranked(id, 90, 3, &json!({ "status": "shipped", "shipped_at": "2020-01-02" })),
            put_ranked(id, 110, 2, &json!({ "status": "paid", "total": 6 })),
        ]
    };
    for (number, order) in ORDERS.iter().enumerate() {
        let id = format!("order-{number}");
        let events = steps(&id);
        for event in order {
            writer.deliver(&events[*event..=*event]).await;
        }
    }
    rig.refresh(&writer).await;
    for number in 0..ORDERS.len() {
        let expected = json!({ "status": "shipped", "total": 6, "shipped_at": "2020-01-02" });
        let id = format!("order-{number}");
        assert_eq!(rig.document(&writer, &id).await, Some(expected), "{}: {id}", writer.index);
    }
}

pub(super) async fn many_changes_of_one_document_in_one_send(rig: Rig<'_>) {
    let writer = Writer::open(rig, rig.index("hot"), Mode::Merge).await;
    let mut messages: Vec<Message> =
        (0..400).map(|n| put("hot", 1_000 - n, &json!({ "likes": n, format!("f{}", n % 7): n }))).collect();
    messages.push(put("other", 1, &json!({ "likes": 1 })));
    writer.deliver(&messages).await;
    rig.refresh(&writer).await;
    let expected = json!({ "likes": 0, "f0": 0, "f1": 1, "f2": 2, "f3": 3, "f4": 4, "f5": 5, "f6": 6 });
    assert_eq!(rig.document(&writer, "hot").await, Some(expected), "{}", writer.index);
    assert_eq!(rig.count(&writer).await, 2, "{}", writer.index);
}

/// Four sinks write the same hundred documents at once, each its own fields and one that all fight over; a
/// third of the documents is deleted by one of them.
pub(super) async fn writers_of_the_same_documents_converge(rig: Rig<'_>) {
    const DOCUMENTS: i64 = 100;
    let index = rig.index("race");
    let events = |writer: i64| -> Vec<Message> {
        let fields = json!({ format!("by{writer}"): writer, "likes": writer });
        (0..DOCUMENTS)
            .map(|n| match (writer, n % 3) {
                (2, 0) => delete(&format!("d{n}"), 1),
                _ => put(&format!("d{n}"), 10 + writer, &fields),
            })
            .collect()
    };
    let run = |number: i64| {
        let (index, mut messages) = (index.clone(), events(number));
        async move {
            let writer = Writer::open(rig, index, Mode::Merge).await;
            if number % 2 == 1 {
                messages.reverse();
            }
            for chunk in messages.chunks(17) {
                writer.deliver(chunk).await;
            }
            writer
        }
    };
    let (writer, ..) = tokio::join!(run(0), run(1), run(2), run(3));
    rig.refresh(&writer).await;
    for n in 0..DOCUMENTS {
        let expected = (n % 3 != 0).then(|| json!({ "by0": 0, "by1": 1, "by2": 2, "by3": 3, "likes": 3 }));
        assert_eq!(rig.document(&writer, &format!("d{n}")).await, expected, "{index}: d{n}");
    }
    assert_eq!(rig.count(&writer).await, 66, "{index}");
}

pub(super) async fn one_poisoned_change_spares_its_neighbours(rig: Rig<'_>) {
    let writer = Writer::open(rig, rig.index("poison"), Mode::Merge).await;
    let mut messages: Vec<Message> =
        (0..20).map(|n| put("shared", n, &json!({ format!("f{n}"): n }))).collect();
    messages.insert(13, put("shared", 50, &json!({ "likes": "many" })));
    messages.push(put("alone", 1, &json!({ "likes": 1 })));
    let outcomes = writer.outcomes(&messages).await;
    for (message, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Err(error) if rig.types_checked && message == 13 => assert_eq!(error.class(), Class::Reject),
            Err(error) => panic!("{}: message {message}: {}", writer.index, error.chain()),
            Ok(()) => assert!(!rig.types_checked || message != 13, "{}: the poison was taken", writer.index),
        }
    }
    rig.refresh(&writer).await;
    let shared = rig.document(&writer, "shared").await.expect("the shared document");
    let fields = shared.as_object().map_or(0, serde_json::Map::len);
    assert_eq!(fields, if rig.types_checked { 20 } else { 21 }, "{}: {shared}", writer.index);
    assert_eq!(rig.document(&writer, "alone").await, Some(json!({ "likes": 1 })), "{}", writer.index);
}
