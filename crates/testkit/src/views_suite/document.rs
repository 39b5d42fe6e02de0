//! Documents: per field the higher version wins in every order, a delete wins over all, and no byte is lost.

use millrace_core::Message;
use serde_json::{Value, json};

use super::{
    Subject,
    orders::every_order,
    send_all,
    sending::{send_calls, send_clean},
};
use crate::message::message;

/// Every case of a document.
pub async fn all(subject: &Subject<'_>) {
    every_order_gives_the_same(subject).await;
    a_delete_beats_everything(subject).await;
    an_update_may_come_before_its_create(subject).await;
    equal_versions_agree_in_every_order(subject).await;
    a_field_may_have_its_own_version(subject).await;
    values_survive_as_written(subject).await;
    field_names_may_be_anything(subject).await;
    many_documents_in_one_batch(subject).await;
    what_is_no_document_is_rejected(subject).await;
}

pub(super) fn put(key: &str, version: i64, document: &Value) -> Message {
    put_raw(key, version, &document.to_string())
}

fn put_raw(key: &str, version: i64, document: &str) -> Message {
    let value = format!(
        r#"{{"op":"put","key":{},"version":{version},"rank":{version},"document":{document}}}"#,
        Value::from(key)
    );
    message(version, &format!("put-{version}"), &value)
}

fn delete(key: &str, version: i64) -> Message {
    let value = json!({ "op": "delete", "key": key, "version": version });
    message(version, &format!("delete-{version}"), &value.to_string())
}

/// Create, two partial updates and a redelivery.
pub async fn every_order_gives_the_same(subject: &Subject<'_>) {
    let sink = subject.document();
    let changes = |key: &str| {
        let create = json!({ "title": "t1", "text": "x1", "tags": [], "n": 1 });
        [
            put(key, 1, &create),
            put(key, 2, &json!({ "text": "x2", "extra": { "deep": [] } })),
            put(key, 3, &json!({ "title": "t3", "text": "x3" })),
            put(key, 1, &create),
        ]
    };
    let expected = json!({ "title": "t3", "text": "x3", "tags": [], "n": 1, "extra": { "deep": [] } });
    for index in 0..every_order(&[0, 1, 2, 3]).len() {
        let (single, batch) = (subject.key(&format!("doc:{index}")), subject.key(&format!("docs:{index}")));
        for change in &every_order(&changes(&single))[index] {
            send_clean(&*sink, std::slice::from_ref(change)).await;
        }
        send_clean(&*sink, &every_order(&changes(&batch))[index]).await;
        for key in [single, batch] {
            assert_eq!(subject.reader.document(&key).await.as_ref(), Some(&expected), "order {index}");
        }
    }
}

/// In every order, also with a version lower than that of the puts.
pub async fn a_delete_beats_everything(subject: &Subject<'_>) {
    let sink = subject.document();
    let changes = |key: &str| {
        [
            put(key, 1, &json!({ "title": "t1" })),
            put(key, 9, &json!({ "title": "t9" })),
            delete(key, 5),
            put(key, 1, &json!({ "title": "t1" })),
        ]
    };
    for index in 0..every_order(&[0, 1, 2, 3]).len() {
        let (single, batch) = (subject.key(&format!("del:{index}")), subject.key(&format!("dels:{index}")));
        for change in &every_order(&changes(&single))[index] {
            send_clean(&*sink, std::slice::from_ref(change)).await;
        }
        send_clean(&*sink, &every_order(&changes(&batch))[index]).await;
        for key in [single, batch] {
            send_clean(&*sink, &[put(&key, 10, &json!({ "title": "back" })), delete(&key, 5)]).await;
            assert_eq!(subject.reader.document(&key).await, None, "order {index}");
        }
    }
}

/// The create fills in what is missing and undoes nothing.
pub async fn an_update_may_come_before_its_create(subject: &Subject<'_>) {
    let sink = subject.document();
    let key = subject.key("early");
    send_clean(&*sink, &[put(&key, 2, &json!({ "text": "new" }))]).await;
    assert_eq!(subject.reader.document(&key).await, Some(json!({ "text": "new" })));
    send_clean(&*sink, &[put(&key, 1, &json!({ "text": "old", "author": "a", "tags": ["x"] }))]).await;
    let whole = json!({ "text": "new", "author": "a", "tags": ["x"] });
    assert_eq!(subject.reader.document(&key).await, Some(whole));
}

/// Two events of one version that disagree: the greater text wins, whichever comes first.
pub async fn equal_versions_agree_in_every_order(subject: &Subject<'_>) {
    let sink = subject.document();
    let values = [json!("b"), json!("a"), json!("B"), json!("é"), json!(10), json!("ab")];
    let greatest = values.iter().max_by_key(|value| value.to_string().into_bytes()).expect("some values");
    for index in [0, 119, 240, 361, 500, 719] {
        let key = subject.key(&format!("same:{index}"));
        for value in &every_order(&values)[index] {
            send_clean(&*sink, &[put(&key, 4, &json!({ "f": value }))]).await;
        }
        assert_eq!(subject.reader.document(&key).await, Some(json!({ "f": greatest })), "order {index}");
    }
}

/// A status moves by its rank while the other fields move by the event's version.
pub async fn a_field_may_have_its_own_version(subject: &Subject<'_>) {
    let sink = subject.document();
    let key = subject.key("rank");
    let event = |version: i64, rank: i64, status: &str| {
        let document = json!({ "status": status, "note": format!("n{version}") });
        let value =
            json!({ "op": "put", "key": key, "version": version, "rank": rank, "document": document });
        message(version, &format!("e{version}"), &value.to_string())
    };
    send_clean(&*sink, &[event(1, 30, "shipped")]).await;
    send_clean(&*sink, &[event(2, 10, "created")]).await;
    assert_eq!(subject.reader.document(&key).await, Some(json!({ "status": "shipped", "note": "n2" })));
}

/// Empty arrays and objects, digits, null, depth and escapes: the text of every value is the event's own.
pub async fn values_survive_as_written(subject: &Subject<'_>) {
    let sink = subject.document();
    let key = subject.key("exact");
    let values = [
        ("empty_array", "[]"),
        ("empty_object", "{}"),
        ("nested", r#"{"a":[[],{}],"b":[null,true,false]}"#),
        ("null", "null"),
        ("digits", "1.10"),
        ("large", "123456789012345678901234567890"),
        ("snowflake", "567467459345307242"),
        ("exponent", "1e2"),
        ("text", r#""quote \" slash \\ line \n é 😀 \u0000 {}""#),
    ];
    let fields: Vec<String> = values.iter().map(|(name, raw)| format!(r#""{name}":{raw}"#)).collect();
    send_clean(&*sink, &[put_raw(&key, 1, &format!("{{{}}}", fields.join(",")))]).await;
    send_clean(&*sink, &[put(&key, 2, &json!({ "other": 1 }))]).await;
    let lookup = subject.store.lookup().expect("the store answers lookups");
    let found = lookup.documents(std::slice::from_ref(&key)).await.expect("a document");
    let text = found[0].as_deref().expect("the document is there");
    let parsed: Value = serde_json::from_str(text).expect("a document is JSON");
    assert_eq!(parsed["other"], 1);
    for (name, raw) in values {
        assert!(text.contains(&format!(r#""{name}":{raw}"#)), "{name} is {raw} in {text}");
        assert_eq!(parsed[name], serde_json::from_str::<Value>(raw).expect("JSON"), "{name}");
    }
}

/// Quotes, control characters, braces, dots, none at all: a name is a name.
pub async fn field_names_may_be_anything(subject: &Subject<'_>) {
    let sink = subject.document();
    let key = subject.key("names");
    let names = ["", " ", "a\"b", "a\\b", "line\nend", "nul\u{0}", "é😀", "{a}", "a.b", "1", "version", "$x"];
    let first: Value =
        names.iter().map(|name| ((*name).to_owned(), json!([1]))).collect::<serde_json::Map<_, _>>().into();
    send_clean(&*sink, &[put(&key, 1, &first)]).await;
    send_clean(&*sink, &[put(&key, 2, &json!({ "a\"b": [2] }))]).await;
    let mut expected = first;
    expected["a\"b"] = json!([2]);
    assert_eq!(subject.reader.document(&key).await, Some(expected));
}

/// More documents than a call holds, then op by op as the runtime would split them.
pub async fn many_documents_in_one_batch(subject: &Subject<'_>) {
    const DOCUMENTS: i64 = 1_200;
    let sink = subject.document();
    let key = |n: i64| subject.key(&format!("many:{n}"));
    let batch: Vec<Message> = (0..DOCUMENTS).map(|n| put(&key(n), 1, &json!({ "n": n }))).collect();
    send_clean(&*sink, &batch).await;
    let single = sink.encode(&batch[..20]).calls.iter().flat_map(millrace_core::Call::split).collect();
    assert!(send_calls(&*sink, single).await.is_empty());
    for n in [0, 19, 499, 500, 1_000, DOCUMENTS - 1] {
        assert_eq!(subject.reader.document(&key(n)).await, Some(json!({ "n": n })), "document {n}");
    }
}

/// An array, an empty object, a missing part.
pub async fn what_is_no_document_is_rejected(subject: &Subject<'_>) {
    let sink = subject.document();
    let key = subject.key("nodoc");
    let batch = [
        put(&key, 1, &json!([1])),
        put(&key, 1, &json!({})),
        message(2, "2", &json!({ "op": "put", "key": key, "version": 1 }).to_string()),
        put(&key, 1, &json!({ "a": 1 })),
    ];
    let rejected: Vec<u32> = send_all(&*sink, &batch).await.into_iter().map(|(place, _)| place).collect();
    assert_eq!(rejected, [0, 1, 2]);
    assert_eq!(subject.reader.document(&key).await, Some(json!({ "a": 1 })));
}
