//! Cases of what documents and ids may hold, and of an index that is there already.

use millrace_core::{Class, Message};
use serde_json::{Value, json};

use super::{
    Rig,
    writer::{Mode, Writer, delete, put, put_text},
};

pub(super) async fn values_survive(rig: Rig<'_>) {
    for mode in [Mode::Replace, Mode::Merge] {
        let writer = Writer::open(rig, rig.index(&format!("values-{mode:?}").to_lowercase()), mode).await;
        let text = r#"{
            "title": "quote \" backslash \\ newline \n snowman \u2603 ☃ 😀",
            "tags": [], "likes": 9007199254740993, "score": 1.10, "open": false,
            "at": "2015-02-16T23:36:00Z", "meta": { "a": { "b": [1, 2] } },
            "nothing": null, "nested": { "empty": {}, "list": [ {}, [], null ] }, "a.b": 1,
            "big": 18446744073709551615, "small": -0.0000001
        }"#;
        let expected: Value = serde_json::from_str(text).expect("the suite's own document");
        writer.deliver(&[put_text("multi-line", 1, text)]).await;
        writer.deliver(&[put("ms", 1, &json!({ "at": 1_424_129_760_000_i64 }))]).await;
        rig.refresh(&writer).await;
        assert_eq!(rig.document(&writer, "multi-line").await, Some(expected), "{}", writer.index);
        let time = Some(json!({ "at": 1_424_129_760_000_i64 }));
        assert_eq!(rig.document(&writer, "ms").await, time, "{}", writer.index);
    }
}

pub(super) async fn unusual_ids_are_ids(rig: Rig<'_>) {
    let long = "é".repeat(256);
    let ids = [
        "a b",
        "a/b",
        "a\\b",
        "a\"b",
        "%2F",
        "..",
        "_all",
        "*",
        "+a",
        "-a",
        "{x}",
        "日本語",
        "😀",
        "a?b=c",
        "a#b",
        "a,b",
        "null",
        "0",
        &long,
    ];
    for mode in [Mode::Replace, Mode::Merge] {
        let writer = Writer::open(rig, rig.index(&format!("ids-{mode:?}").to_lowercase()), mode).await;
        let documents: Vec<Message> = ids.iter().map(|id| put(id, 1, &json!({ "me": id }))).collect();
        writer.deliver(&documents).await;
        writer.deliver(&documents).await;
        writer.deliver(&[delete("*", 2)]).await;
        rig.refresh(&writer).await;
        for id in ids {
            let expected = (id != "*").then(|| json!({ "me": id }));
            assert_eq!(rig.document(&writer, id).await, expected, "{}: id {id:?}", writer.index);
        }
        assert_eq!(rig.count(&writer).await, ids.len() as u64 - 1, "{}", writer.index);
    }
}

pub(super) async fn huge_documents_arrive(rig: Rig<'_>) {
    const DOCUMENTS: usize = 12;
    let body = "ordinary words ".repeat(70_000);
    for mode in [Mode::Replace, Mode::Merge] {
        let writer = Writer::open(rig, rig.index(&format!("huge-{mode:?}").to_lowercase()), mode).await;
        let messages: Vec<Message> =
            (0..DOCUMENTS).map(|n| put(&format!("h{n}"), 1, &json!({ "body": body, "likes": n }))).collect();
        writer.deliver(&messages).await;
        writer.deliver(&[put("h0", 2, &json!({ "body": body, "likes": 77 }))]).await;
        rig.refresh(&writer).await;
        assert_eq!(rig.count(&writer).await, DOCUMENTS as u64, "{}", writer.index);
        for (n, likes) in [(0, 77), (DOCUMENTS - 1, DOCUMENTS - 1)] {
            let found = rig.document(&writer, &format!("h{n}")).await.expect("a huge document");
            assert_eq!(found["likes"], json!(likes), "{}: h{n}", writer.index);
            assert_eq!(found["body"].as_str().map(str::len), Some(body.len()), "{}: h{n}", writer.index);
        }
    }
}

pub(super) async fn one_misfit_of_five_hundred(rig: Rig<'_>) {
    const MISFIT: usize = 250;
    for mode in [Mode::Replace, Mode::Merge] {
        let writer = Writer::open(rig, rig.index(&format!("misfit-{mode:?}").to_lowercase()), mode).await;
        let messages: Vec<Message> = (0..500)
            .map(|n| match n {
                MISFIT => put(&format!("d{n}"), 1, &json!({ "likes": "many" })),
                _ => put(&format!("d{n}"), 1, &json!({ "likes": n })),
            })
            .collect();
        for (message, outcome) in writer.outcomes(&messages).await.into_iter().enumerate() {
            match outcome {
                Ok(()) => assert!(!rig.types_checked || message != MISFIT, "{}: misfit", writer.index),
                Err(error) => {
                    assert!(rig.types_checked && message == MISFIT, "{}: {}", writer.index, error.chain());
                    assert_eq!(error.class(), Class::Reject);
                    assert!(!error.chain().contains("many"), "the value is in the error: {}", error.chain());
                }
            }
        }
        rig.refresh(&writer).await;
        let expected = if rig.types_checked { 499 } else { 500 };
        assert_eq!(rig.count(&writer).await, expected, "{}", writer.index);
    }
}

pub(super) async fn preparing_again_changes_nothing(rig: Rig<'_>) {
    let index = rig.index("again");
    let first = Writer::unprepared(rig, index.clone(), Mode::Replace);
    let second = Writer::unprepared(rig, index.clone(), Mode::Replace);
    let (one, two) = tokio::join!(first.sink.prepare(), second.sink.prepare());
    for prepared in [one, two] {
        prepared.unwrap_or_else(|error| panic!("{index}: two at once: {}", error.chain()));
    }
    first.deliver(&[put("a", 1, &json!({ "likes": 1 }))]).await;
    second.sink.prepare().await.unwrap_or_else(|error| panic!("{index}: again: {}", error.chain()));
    second.deliver(&[put("a", 1, &json!({ "likes": 2 })), put("b", 1, &json!({ "likes": 2 }))]).await;
    rig.refresh(&first).await;
    assert_eq!(rig.document(&first, "a").await, Some(json!({ "likes": 1 })), "{index}");
    assert_eq!(rig.count(&first).await, 2, "{index}");
}
