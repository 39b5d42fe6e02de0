//! Documents, deletes, states and what is refused.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

const STATUS: &str = "created=order.order.created.v1, paid=payment.payment.succeeded.v1, paid=payment.payment.succeeded.v2, \
                      shipped=order.order.shipped.v1";

fn make(params: &[(&str, &str)]) -> Result<Settings, String> {
    let params = params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Settings::new(params).map_err(|e| e.to_string())
}

fn run(params: &[(&str, &str)], value: &str) -> Result<String, String> {
    let out = make(params).unwrap().document(value.as_bytes()).map_err(|e| e.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn the_payload_is_copied_as_it_was_written() {
    let value = r#"{"eventType":"a.b.created.v1","bizId":"p1","payload":{"version":2,"z":1.10e400,"a":[ 1 ],"\u0062":0.1}}"#;
    let want =
        r#"{"op":"put","id":"p1","version":2,"document":{"version":2,"z":1.10e400,"a":[ 1 ],"\u0062":0.1}}"#;
    assert_eq!(run(&[], value), Ok(want.into()));
}

#[test]
fn without_a_version_the_time_is_the_version() {
    let value =
        r#"{"eventType":"a.b.created.v1","bizId":7,"occurredAt":"1970-01-01T00:00:01.5Z","payload":{}}"#;
    assert_eq!(run(&[], value), Ok(r#"{"op":"put","id":"7","version":1500,"document":{}}"#.into()));
    let named = r#"{"eventType":"a.b.created.v1","bizId":7,"payload":{"rev":3}}"#;
    assert_eq!(
        run(&[("version", "rev")], named),
        Ok(r#"{"op":"put","id":"7","version":3,"document":{"rev":3}}"#.into())
    );
}

#[test]
fn the_id_may_be_a_field_of_the_payload() {
    let id = &[("id", "user_id")];
    let value = |id: &str| {
        format!(r#"{{"eventType":"a.b.c.v1","bizId":"x","payload":{{"user_id":{id},"version":1}}}}"#)
    };
    let put = |id: &str, raw: &str| {
        Ok(format!(r#"{{"op":"put","id":{id},"version":1,"document":{{"user_id":{raw},"version":1}}}}"#))
    };
    assert_eq!(run(id, &value("\"u\\n1\"")), put("\"u\\n1\"", "\"u\\n1\""));
    assert_eq!(run(id, &value("42")), put("\"42\"", "42"));
    for bad in ["\"\"", "1.5", "true", "[]"] {
        assert_eq!(
            run(id, &value(bad)),
            Err("payload.user_id must be a non-empty string or an integer".into())
        );
    }
    assert_eq!(run(id, &value("null")), Err("payload.user_id is missing".into()));
}

#[test]
fn an_action_deleted_deletes_unless_types_are_listed() {
    let value = |kind: &str, payload: &str| {
        format!(r#"{{"eventType":"{kind}","bizId":"p1","timestamp":"1970-01-01T00:00:09Z"{payload}}}"#)
    };
    let delete = Ok(r#"{"op":"delete","id":"p1","version":9000}"#.to_owned());
    assert_eq!(run(&[], &value("content.post.deleted.v1", r#","payload":{"post_id":"p1"}"#)), delete);
    assert_eq!(run(&[], &value("content.post.deleted.v1", "")), delete);
    assert_eq!(run(&[("delete", "a.b.gone.v1, a.b.c.v1")], &value("a.b.c.v1", "")), delete);
    let listed = run(&[("delete", "")], &value("content.post.deleted.v1", r#","payload":{}"#)).unwrap();
    assert!(listed.contains(r#""op":"put""#), "{listed}");
    let field = run(
        &[("id", "post_id")],
        &value("content.post.deleted.v1", r#","payload":{"post_id":"p9","version":4}"#),
    );
    assert_eq!(field, Ok(r#"{"op":"delete","id":"p9","version":4}"#.into()));
    assert_eq!(
        run(&[("id", "post_id")], &value("content.post.deleted.v1", "")),
        Err("payload is missing".into())
    );
    assert_eq!(
        run(&[], &value("content.post.deleted.v1", r#","payload":[]"#)),
        Err("payload must be a JSON object".into())
    );
}

#[test]
fn a_state_is_set_with_its_rank() {
    let value = |kind: &str, payload: &str| {
        format!(
            r#"{{"eventType":"{kind}","bizId":"o1","occurredAt":"1970-01-01T00:00:01Z","payload":{payload}}}"#
        )
    };
    let status = &[("status", STATUS)];
    assert_eq!(
        run(status, &value("payment.payment.succeeded.v2", r#"{"status":"ok","a\"":1.0,"status":{}}"#)),
        Ok(r#"{"op":"put","id":"o1","version":1000,"rank":2,"document":{"a\"":1.0,"status":"paid"}}"#.into())
    );
    assert_eq!(
        run(status, &value("order.order.shipped.v1", "{}")),
        Ok(r#"{"op":"put","id":"o1","version":1000,"rank":3,"document":{"status":"shipped"}}"#.into())
    );
    assert_eq!(
        run(status, &value("order.order.lost.v1", "{}")),
        Err("eventType must be one of those in parameter `status`".into())
    );
}

#[test]
fn hostile_events_are_named() {
    let base = r#"{"eventType":"a.b.c.v1","bizId":"x","payload":{"version":"#;
    for bad in ["-1", "1.0", "\"2\"", "9007199254740992", "{}"] {
        let error = run(&[], &format!("{base}{bad}}}}}")).unwrap_err();
        assert_eq!(error, "payload.version must be an integer from 0 to 9007199254740991", "{bad}");
    }
    for (value, error) in [
        (r#"{"bizId":"x","payload":{}}"#, "eventType is missing"),
        (r#"{"eventType":"a","payload":{"version":1}}"#, "bizId is missing"),
        (r#"{"eventType":"a","bizId":"x"}"#, "payload is missing"),
        (r#"{"eventType":"a","bizId":"x","payload":"x"}"#, "payload must be a JSON object"),
        (r#"{"eventType":"a","bizId":"x","payload":{}}"#, "occurredAt is missing"),
        (
            r#"{"eventType":"a","bizId":"x","payload":{},"occurredAt":17}"#,
            "occurredAt must be a non-empty string",
        ),
        (
            r#"{"eventType":"a","bizId":"x","payload":{},"occurredAt":"17"}"#,
            "occurredAt must be an RFC 3339 time not before 1970",
        ),
        ("nonsense", "event must be a JSON object"),
    ] {
        assert_eq!(run(&[], value), Err(error.into()), "{value}");
    }
}

#[test]
fn bad_parameters_are_refused() {
    for (name, value, error) in [
        ("ids", "x", "unknown parameter `ids`, known are id, delete, version, status"),
        ("id", "", "parameter `id` is empty"),
        ("status", "", "parameter `status` is empty"),
        ("status", "a", "parameter `status` has an item that is not name=event type"),
        ("status", "a=", "parameter `status` has an item that is not name=event type"),
        ("status", "a=x,b=x", "parameter `status` has an event type twice"),
        ("delete", "a,,b", "parameter `delete` has an empty item"),
    ] {
        assert_eq!(make(&[(name, value)]).unwrap_err(), error);
    }
}

#[test]
fn the_parameters_are_those_of_its_description() {
    let description = include_str!("../../SmartModule.toml");
    let names: Vec<_> = description.split("[[params]]").skip(1).filter_map(|p| p.split('"').nth(1)).collect();
    let error = Settings::new(BTreeMap::from([("?".to_owned(), String::new())])).unwrap_err().to_string();
    assert_eq!(error, format!("unknown parameter `?`, known are {}", names.join(", ")));
}
