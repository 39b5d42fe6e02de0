//! Malformed and hostile records among good ones: exactly the bad ones become dead letters, with reasons, and
//! every good effect is there.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{
    millrace::Millrace,
    servers::{Embedded, World},
};

const GOOD: usize = 5_000;
const BAD: usize = 50;

fn post(number: usize, change: impl FnOnce(&mut Value)) -> String {
    let mut event = json!({
        "eventId": format!("e{number}"), "eventType": "content.post.created.v1", "bizId": format!("p{number}"),
        "occurredAt": "2026-01-01T00:00:00Z", "source": "test", "correlationId": "c",
        "payload": { "post_id": format!("p{number}"), "user_id": "author", "content": "text", "type": "TEXT",
            "visibility": "PUBLIC", "tags": [], "created_at": 1_700_000_000_000u64 + number as u64, "version": 1 }
    });
    change(&mut event);
    event.to_string()
}

/// The number-th bad record: one of ten kinds.
fn bad(number: usize) -> String {
    let id = 1_000_000 + number;
    match number % 10 {
        0 => "not json".to_owned(),
        1 => "{\"eventId\":\"cut".to_owned(),
        2 => "[1,2,3]".to_owned(),
        3 => post(id, |event| event["payload"] = json!("text")),
        4 => post(id, |event| drop(event["payload"].as_object_mut().unwrap().remove("post_id"))),
        5 => post(id, |event| event["payload"]["post_id"] = json!("x".repeat(600))),
        6 => post(id, |event| event["payload"]["post_id"] = json!({ "a": 1 })),
        7 => post(id, |event| event["payload"]["post_id"] = json!("")),
        8 => post(id, |event| event["payload"]["version"] = json!("one")),
        _ => post(id, |event| event["payload"]["post_id"] = json!("line\nbreak")),
    }
}

#[test]
fn exactly_the_bad_records_become_dead_letters() {
    let millrace = Millrace::new();
    millrace.write("pipelines.yaml", include_str!("../pipelines.yaml"));
    let every = GOOD / BAD;
    let lines: Vec<String> = (0..GOOD)
        .flat_map(|number| {
            let good = post(number, |_| {});
            if number % every == 0 { vec![bad(number / every), good] } else { vec![good] }
        })
        .collect();
    millrace.write("events.ndjson", lines.join("\n"));
    millrace.ok(&["topic", "create", "--all", "--embedded"]);
    let produce =
        ["topic", "produce", "content-events", "--key", "payload.user_id", "--file", "events.ndjson"];
    millrace.ok(&[&produce[..], &["--embedded"]].concat());
    let run = ["run", "--until-end", "--embedded", "--listen", "off", "--json", "--only", "post-summaries"];
    let ran = millrace.ok(&run);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["pipelines"][0]["dead_letters"], BAD, "{report:#}");
    let mut views = Embedded::open(&millrace.path().join(".millrace"));
    for number in 0..GOOD {
        assert!(views.post(&format!("p{number}")).is_some(), "p{number} is missing");
    }
    let tail =
        ["topic", "tail", "content-events.dlq", "--from", "beginning", "--until-end", "--json", "--embedded"];
    let letters = millrace.ok(&tail).stdout;
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for line in letters.lines() {
        let letter: Value = serde_json::from_str(line).unwrap();
        assert!(!letter["headers"]["millrace-reason"].as_str().unwrap().is_empty(), "{letter}");
        *places.entry(letter["headers"]["millrace-place"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(places.values().sum::<usize>(), BAD, "{places:?}");
    assert!(places.contains_key("decode") && places.contains_key("step:document"), "{places:?}");
}
