//! Merging: the result does not depend on order or repetition, and texts stay as they were written.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

fn put<'a>(version: i64, document: &'a str, of_field: &[(&'a str, i64)]) -> Work<'a> {
    Work { id: "d", version, document: Some(document), of_field: of_field.iter().copied().collect() }
}

fn delete<'a>(version: i64) -> Work<'a> {
    Work { id: "d", version, document: None, of_field: BTreeMap::new() }
}

/// Applies changes one by one, each to what the one before stored.
fn stored_after(changes: &[&Work<'_>]) -> String {
    let mut source: Option<String> = None;
    for work in changes {
        let raw = source.clone().map(|text| RawValue::from_string(text).unwrap());
        let mut document =
            raw.as_deref().map_or_else(Document::default, |raw| Document::stored(raw).unwrap());
        document.apply(work).unwrap();
        if let Some(changed) = document.changed_source() {
            source = Some(String::from_utf8(changed).unwrap());
        }
    }
    source.unwrap()
}

fn sorted(source: &str) -> Value {
    serde_json::from_str(source).unwrap()
}

#[test]
fn texts_stay_and_versions_are_compact() {
    let source = stored_after(&[&put(3, r#"{"n":1.10,"s":"a\u00e9"}"#, &[("s", 1)])]);
    let expected = r#"{"n":1.10,"s":"a\u00e9","millrace":{"deleted":false,"version":3,"versions":{"s":1}}}"#;
    assert_eq!(source, expected);
}

#[test]
fn every_order_of_five_changes_gives_one_document() {
    let changes = [
        put(1, r#"{"a":1,"b":1,"c":1}"#, &[]),
        put(2, r#"{"a":2}"#, &[]),
        put(2, r#"{"a":10,"b":"x"}"#, &[]),
        put(9, r#"{"status":"paid","c":9}"#, &[("status", 2)]),
        put(5, r#"{"status":"sent","c":5}"#, &[("status", 3)]),
    ];
    let expected = json!({
        "a": 2, "b": "x", "c": 9, "status": "sent",
        "millrace": { "deleted": false, "version": 9, "versions": { "a": 2, "b": 2, "status": 3 } },
    });
    let mut orders = vec![vec![]];
    for place in 0..changes.len() {
        orders = orders
            .iter()
            .flat_map(|order: &Vec<usize>| {
                (0..=order.len()).map(move |at| {
                    let mut longer = order.clone();
                    longer.insert(at, place);
                    longer
                })
            })
            .collect();
    }
    assert_eq!(orders.len(), 120);
    for order in orders {
        let twice: Vec<&Work<'_>> = order.iter().chain(&order).map(|place| &changes[*place]).collect();
        assert_eq!(sorted(&stored_after(&twice)), expected, "{order:?}");
    }
}

#[test]
fn a_delete_wins_over_every_version() {
    let (create, gone) = (put(1 << 53, r#"{"a":1}"#, &[]), delete(1));
    let expected = r#"{"millrace":{"deleted":true,"version":1}}"#;
    assert_eq!(stored_after(&[&create, &gone]), expected);
    assert_eq!(stored_after(&[&gone, &create, &gone, &create]), expected);
}

#[test]
fn nothing_new_is_not_written() {
    let create = put(2, r#"{"a":1}"#, &[]);
    let source = RawValue::from_string(stored_after(&[&create])).unwrap();
    for work in [&create, &put(1, r#"{"a":5}"#, &[]), &put(2, r#"{"a":0}"#, &[])] {
        let mut document = Document::stored(&source).unwrap();
        document.apply(work).unwrap();
        assert_eq!(document.changed_source(), None);
    }
}

#[test]
fn a_foreign_document_is_older_than_any_event() {
    let source = RawValue::from_string(r#"{"a":"theirs","b":"theirs"}"#.into()).unwrap();
    let mut document = Document::stored(&source).unwrap();
    document.apply(&put(0, r#"{"a":"ours"}"#, &[])).unwrap();
    let merged = sorted(std::str::from_utf8(&document.changed_source().unwrap()).unwrap());
    assert_eq!((&merged["a"], &merged["b"]), (&json!("ours"), &json!("theirs")));
    assert_eq!(merged["millrace"]["versions"], json!({ "b": -1 }));
    for broken in ["[1]", r#"{"millrace":7}"#, r#"{"millrace":{"version":"x"}}"#] {
        let source = RawValue::from_string(broken.into()).unwrap();
        assert!(Document::stored(&source).is_err(), "{broken}");
    }
}

#[test]
fn whole_documents_are_spliced() {
    for (document, expected) in [
        (r#"{"a":1}"#, r#"{"a":1,"millrace":{"deleted":false,"version":7}}"#),
        (r#"{ "a":{} } "#, r#"{ "a":{} ,"millrace":{"deleted":false,"version":7}}"#),
        ("{}", r#"{"millrace":{"deleted":false,"version":7}}"#),
    ] {
        let source = String::from_utf8(whole(document, 7)).unwrap();
        assert_eq!(source, expected);
        assert!(sorted(&source).is_object());
    }
}

#[test]
fn fields_are_bounded() {
    let many: String = (0..FIELDS_MAX).map(|n| format!("\"f{n}\":1,")).collect();
    let full = format!("{{{}}}", many.trim_end_matches(','));
    let mut document = Document::default();
    document.apply(&put(1, &full, &[])).unwrap();
    document.apply(&put(2, r#"{"f1":2}"#, &[])).unwrap();
    assert!(document.apply(&put(2, r#"{"new":2}"#, &[])).is_err());
}
