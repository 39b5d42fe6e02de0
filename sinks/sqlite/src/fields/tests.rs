//! Every order of changes gives one document; no text is touched.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

type Part = (String, i64, String);

fn merged(changes: &[Part]) -> Stored {
    let mut fields = Fields::default();
    for (document, version, versions) in changes {
        fields.merge(document, *version, versions).unwrap();
    }
    fields.store()
}

/// As the sink does it: through the row after every change.
fn merged_through_rows(changes: &[Part]) -> Stored {
    let mut row = Stored::whole("{}", 0);
    for (document, version, versions) in changes {
        let next = {
            let mut fields = Fields::of(&row).unwrap();
            fields.merge(document, *version, versions).unwrap();
            fields.store()
        };
        row = next;
    }
    row
}

fn part() -> impl Strategy<Value = Part> {
    let name = prop::sample::select(vec!["a", "b", "", "x\\\"y", "é"]);
    let raw =
        prop::sample::select(vec!["1", "1.10", "10", "[]", "{ }", "null", "\"1\"", "\"é\"", "-0", "1e2"]);
    let fields = prop::collection::btree_map(name, raw, 1..5);
    (fields, 0_i64..4, prop::option::of(0_i64..4)).prop_map(|(fields, version, own)| {
        let texts: Vec<String> = fields.iter().map(|(name, raw)| format!("\"{name}\": {raw}")).collect();
        let versions = own.map_or_else(String::new, |own| json!({ "a": own, "x\"y": own }).to_string());
        (format!("{{{}}}", texts.join(", ")), version, versions)
    })
}

proptest! {
    #[test]
    fn every_order_gives_the_same_row(
        (changes, shuffled) in prop::collection::vec(part(), 1..8)
            .prop_flat_map(|changes| (Just(changes.clone()), Just(changes).prop_shuffle())),
    ) {
        let (one, other) = (merged(&changes), merged_through_rows(&shuffled));
        prop_assert_eq!(&one.json, &other.json);
        prop_assert_eq!(one.version, other.version);
        prop_assert_eq!(&one.versions, &other.versions);
        // A repetition of any of them changes nothing.
        let mut fields = Fields::of(&one).unwrap();
        for (document, version, versions) in &shuffled {
            prop_assert!(!fields.merge(document, *version, versions).unwrap());
        }
    }
}

#[test]
fn texts_stay_as_written_and_names_are_sorted() {
    let change = |document: &str, version| (document.to_owned(), version, String::new());
    let row = merged(&[
        change(r#"{"tags": [ ], "n": 1.10, "large": 123456789012345678901234567890}"#, 1),
        change(r#"{"a\"b": {"x":[]}, "n": 1.1}"#, 1),
    ]);
    assert_eq!(row.json, r#"{"a\"b":{"x":[]},"large":123456789012345678901234567890,"n":1.10,"tags":[ ]}"#);
    assert_eq!((row.version, row.versions), (1, None));
}

#[test]
fn versions_are_kept_where_they_differ() {
    let row = merged(&[
        (r#"{"status":"paid","total":5}"#.into(), 100, r#"{"status":2}"#.into()),
        (r#"{"note":"x"}"#.into(), 90, String::new()),
    ]);
    assert_eq!((row.version, row.versions.as_deref()), (100, Some(r#"{"note":90,"status":2}"#)));
    assert_eq!(Fields::of(&row).unwrap().store().versions, row.versions);
}

#[test]
fn a_document_has_an_end() {
    let many = |from: usize, to: usize| {
        let fields: Vec<String> = (from..to).map(|n| format!("\"f{n}\":{n}")).collect();
        format!("{{{}}}", fields.join(","))
    };
    let (first, more) = (many(0, FIELDS_MAX), many(FIELDS_MAX, FIELDS_MAX + 1));
    let mut fields = Fields::default();
    assert!(fields.merge(&first, 1, "").unwrap());
    let failure = fields.merge(&more, 1, "").unwrap_err();
    assert_eq!(failure.class(), Class::Reject);
    assert!(failure.error("x").to_string().contains("1001 fields"), "{failure:?}");
}
