//! Templates: what parses, what renders, what is rejected and how it is named.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::{Envelope, Origin, Record};

fn message(json: &str) -> Message {
    let record = Record {
        topic: "t".into(),
        partition: 3,
        offset: 42,
        timestamp_ms: 5,
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::copy_from_slice(json.as_bytes())),
        headers: Arc::new([]),
    };
    let envelope = Envelope { occurred_at_ms: Some(9), ..Envelope::default() };
    Message::first(Arc::new(Origin { record, envelope }))
}

fn render(template: &str, json: &str) -> Result<String, String> {
    Template::parse(template).unwrap().render_id(&message(json)).map_err(|e| e.to_string())
}

#[test]
fn renders_paths_meta_and_braces() {
    assert_eq!(render("feed:{a.b}:{n}", r#"{"a":{"b":"x"},"n":7}"#).unwrap(), "feed:x:7");
    assert_eq!(render("{{{@topic}}}/{@partition}/{@offset}/{@key}", "{}").unwrap(), "{t}/3/42/k");
}

#[test]
fn rejects_what_has_no_text() {
    let cases = [
        (r#"{}"#, "field 'a': is missing"),
        (r#"{"a":null}"#, "field 'a': is null, not a string or an integer"),
        (r#"{"a":1.5}"#, "field 'a': is a number, not a string or an integer"),
        (r#"{"a":""}"#, "field 'a': is empty"),
        (r#"{"a":"x\ny"}"#, "template '{a}': gives a control character"),
        ("nonsense", "message: the value is not JSON, or holds a number out of range"),
    ];
    for (json, error) in cases {
        assert_eq!(render("{a}", json).unwrap_err(), error);
    }
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(513));
    assert!(render("{a}", &long).unwrap_err().contains("513 bytes"));
    assert_eq!(render("{@event_id}", "{}").unwrap_err(), "eventId of the envelope: is missing");
}

#[test]
fn numbers_are_finite_and_integers_exact() {
    let template = Template::parse("{n}").unwrap();
    assert_eq!(template.render_number(&message(r#"{"n":1424129760000}"#)).unwrap(), 1_424_129_760_000.0);
    assert!(template.render_number(&message(r#"{"n":"NaN"}"#)).is_err());
    assert_eq!(template.render_integer(&message(r#"{"n":3}"#)).unwrap(), 3);
    assert!(template.render_integer(&message(r#"{"n":3.5}"#)).is_err());
    assert_eq!(Template::parse("{@occurred_at}").unwrap().render_integer(&message("{}")).unwrap(), 9);
    assert_eq!(Template::parse("1").unwrap().render_integer(&message("{}")).unwrap(), 1);
}

#[test]
fn mistakes_have_a_place() {
    let error = |text: &str| Template::parse(text).unwrap_err().to_string();
    assert_eq!(error("a{b"), "'{' without '}'; write '{{' for a brace at character 2");
    assert_eq!(error("ab}"), "'}' without '{'; write '}}' for a brace at character 3");
    assert_eq!(error("{}"), "empty field name at character 1");
    assert_eq!(error("{a..b}"), "empty field name at character 1");
    assert_eq!(error("{@when}"), "unknown field '@when' at character 1");
}

proptest::proptest! {
    #[test]
    fn never_panics(text in ".{0,80}", json in ".{0,80}") {
        if let Ok(template) = Template::parse(&text) {
            let _ = template.render_id(&message(&json));
        }
    }
}
