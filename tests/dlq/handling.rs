//! The commands one by one: what they show, what they refuse, how they end.

use serde_json::{Value, json};

use super::{Running, documents, ids, letters, masked, produce, run, stage, thing, views};
use crate::support::{millrace::Millrace, servers::World};

/// Three things whose id the step does not find, in the dead letters of the pipeline.
fn three_letters() -> Millrace {
    let millrace = stage(&documents("nothing"), &[thing(1), thing(2), thing(3)]);
    run(&millrace);
    millrace
}

#[test]
fn a_mended_pipeline_replays_its_letters_once() {
    let millrace = three_letters();
    assert_eq!(letters(&millrace, &[]).len(), 3);
    millrace.write("pipelines.yaml", documents("thing"));
    let dry = millrace.ok(&["dlq", "replay", "--all", "--dry-run"]);
    assert_eq!(dry.stdout.lines().count(), 3, "{dry:#?}");
    let replayed = millrace.ok(&["dlq", "replay", "--all", "--json"]);
    let report: Value = serde_json::from_str(&replayed.stdout).unwrap();
    let expected = json!({ "replayed": 3, "skipped": 0, "failed_again": 0, "left": 0, "already_resolved": 0, "dry_run": false });
    assert_eq!(report, expected);
    let again = millrace.ok(&["dlq", "replay", "--all", "--json"]);
    let report: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!((&report["replayed"], &report["already_resolved"]), (&json!(0), &json!(3)));
    let mut views = views(&millrace);
    assert_eq!(views.unread("seen"), Some(3));
    assert!((1..=3).all(|number| views.post(&format!("t{number}")).is_some()));
    assert!(letters(&millrace, &[]).is_empty());
    let resolved = letters(&millrace, &["--resolved"]);
    assert!(resolved.iter().all(|letter| letter["state"] == "replayed"), "{resolved:?}");
    // Whoever tails the topic sees the letters, and no empty lines for what became of them.
    let tail = millrace.ok(&["topic", "tail", "things.dlq", "--from", "beginning", "--until-end"]);
    assert_eq!(tail.stdout.lines().filter(|line| line.contains("test.thing.made.v1")).count(), 3);
    assert_eq!(tail.stdout.lines().count(), 3);
}

#[test]
fn what_fails_again_is_a_new_letter_with_its_history() {
    let millrace = three_letters();
    for replays in 1..=2 {
        let before = letters(&millrace, &[]);
        let replayed = millrace.run(&["dlq", "replay", "--all"]);
        assert_eq!(replayed.code, Some(1), "{replayed:#?}");
        assert!(
            replayed.stderr.contains("3 letters failed again and became dead letters anew"),
            "{replayed:#?}"
        );
        let after = letters(&millrace, &[]);
        assert_eq!(after.len(), 3, "{after:?}");
        for letter in &after {
            assert!(!ids(&before).contains(&letter["id"].as_str().unwrap()), "{letter}");
            assert_eq!((&letter["replays"], &letter["attempts"]), (&json!(replays), &json!(replays + 1)));
            assert_eq!(letter["origin"]["topic"], "things");
            let old = before.iter().find(|old| old["origin"] == letter["origin"]).unwrap();
            assert_eq!(letter["first_failed_ms"], old["first_failed_ms"], "{letter}");
        }
    }
    let all = letters(&millrace, &["--resolved"]);
    assert_eq!(all.iter().filter(|letter| letter["state"] == "replaced").count(), 6);
}

#[test]
fn status_counts_open_letters_and_not_what_became_of_them() {
    let millrace = three_letters();
    let counts = || {
        let look: Value = serde_json::from_str(&millrace.run(&["status", "--json"]).stdout).unwrap();
        let counts = &look["pipelines"][0]["dead_letters"];
        (counts["open"].as_u64(), counts["records"].as_u64())
    };
    assert_eq!(counts(), (Some(3), Some(3)));
    let all = letters(&millrace, &[]);
    let (_, id) = ids(&all)[0].split_once('/').unwrap();
    millrace.ok(&["dlq", "discard", "--id", id]);
    assert_eq!(counts(), (Some(2), Some(4)));
    let table = millrace.run(&["status"]).stdout;
    assert!(table.contains("0 now, 2 open in things.dlq"), "{table}");
    millrace.ok(&["dlq", "discard", "--all"]);
    assert_eq!(counts().0, Some(0));
    assert!(!millrace.run(&["status"]).stdout.contains("things.dlq"));
}

#[test]
fn a_letter_says_which_lane_gave_it_up() {
    let isolated = "version: \"{id}\", document: \"{document}\" }, isolated: true }";
    let text = documents("thing").replace("version: \"{version}\", document: \"{document}\" } }", isolated);
    let millrace = stage(&text, &[thing(1)]);
    run(&millrace);
    let found = letters(&millrace, &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["pipeline"], &found[0]["lane"]), (&json!("documents"), &json!("posts")));
    let list = millrace.ok(&["dlq", "list"]).stdout;
    assert!(list.contains(" documents/posts "), "{list}");
    let (_, id) = ids(&found)[0].split_once('/').unwrap();
    let shown = millrace.ok(&["dlq", "show", id]).stdout;
    assert!(shown.lines().any(|line| line == "lane         posts"), "{shown}");
    let exported = millrace.ok(&["dlq", "export"]).stdout;
    millrace.write("letters.ndjson", &exported);
    assert_eq!(serde_json::from_str::<Value>(&exported).unwrap()["lane"], "posts");
}

#[test]
fn letters_are_selected_by_what_is_known_of_them() {
    let millrace = three_letters();
    produce(&millrace, &["no event".to_owned()]);
    run(&millrace);
    let count = |more: &[&str]| letters(&millrace, more).len();
    assert_eq!(count(&[]), 4);
    assert_eq!(count(&["--place", "step"]), 3);
    assert_eq!(count(&["--place", "step:document"]), 3);
    assert_eq!(count(&["--place", "decode", "--place", "sink"]), 1);
    assert_eq!(count(&["--reason", "PAYLOAD.NOTHING"]), 3);
    assert_eq!(count(&["--key", "t2"]), 1);
    assert_eq!(count(&["--key", "t2", "--place", "decode"]), 0);
    assert_eq!((count(&["--since", "1h"]), count(&["--until", "1h"])), (4, 0));
    assert_eq!(count(&["--until", "2020-01-01T00:00:00Z"]), 0);
    assert_eq!(count(&["--topic", "things.dlq", "--pipeline", "documents"]), 4);
    let listed = letters(&millrace, &["--key", "t3"]);
    let (topic, id) = listed[0]["id"].as_str().unwrap().split_once('/').unwrap();
    assert_eq!((topic, count(&["--id", id])), ("things.dlq", 1));
    let discarded = millrace.ok(&["dlq", "discard", "--id", id]);
    assert!(discarded.stderr.contains("1 dead letter discarded"), "{discarded:#?}");
    assert_eq!((count(&[]), count(&["--id", id]), count(&["--id", id, "--resolved"])), (3, 0, 1));
    let shown = millrace.ok(&["dlq", "show", id, "--json"]);
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((&shown["state"], &shown["resolved"]["by"]), (&json!("discarded"), &json!("ann")));
    millrace.ok(&["dlq", "discard", "--all"]);
    assert_eq!(count(&[]), 0);
}

#[test]
fn a_list_and_a_letter_look_like_this() {
    let millrace = stage(&documents("nothing"), &[thing(1)]);
    run(&millrace);
    let list = millrace.run(&["dlq", "list"]);
    insta::assert_snapshot!(masked(&list));
    let id = list.stdout.lines().nth(1).unwrap().split(' ').next().unwrap();
    insta::assert_snapshot!(masked(&millrace.run(&["dlq", "show", id])));
    millrace.ok(&["dlq", "discard", "--all"]);
    insta::assert_snapshot!(masked(&millrace.run(&["dlq", "list"])));
    insta::assert_snapshot!(masked(&millrace.run(&["dlq", "list", "--resolved"])));
}

#[test]
fn mistakes_are_told_with_a_way_out() {
    let millrace = stage(&documents("thing"), &[thing(1)]);
    run(&millrace);
    // Nothing has ever failed: there is no topic yet.
    insta::assert_snapshot!(millrace.run(&["dlq", "list"]).snapshot());
    insta::assert_snapshot!(millrace.run(&["dlq", "replay"]).snapshot());
    insta::assert_snapshot!(millrace.run(&["dlq", "discard"]).snapshot());
    insta::assert_snapshot!(millrace.run(&["dlq", "list", "--topic", "thing.dlq"]).snapshot());
    insta::assert_snapshot!(millrace.run(&["dlq", "list", "--pipeline", "document"]).snapshot());
    insta::assert_snapshot!(millrace.run(&["dlq", "list", "--place", "sinks"]).snapshot());
    insta::assert_snapshot!(millrace.run(&["dlq", "show", "0:7"]).snapshot());
    millrace.write("letters.ndjson", "{\"format\":\"2\"}\nno json\n");
    insta::assert_snapshot!(millrace.run(&["dlq", "replay", "--from", "letters.ndjson"]).snapshot());
}

#[test]
fn a_broker_that_is_away_ends_with_three() {
    let millrace = Millrace::new();
    let kafka = "kafka: { bootstrap: \"127.0.0.1:9\" }";
    millrace.write("pipelines.yaml", documents("thing").replacen("embedded: {}", kafka, 1));
    let listed = millrace.run(&["dlq", "list"]);
    assert_eq!(listed.code, Some(3), "{listed:#?}");
}

#[test]
fn a_replay_works_beside_a_run() {
    let millrace = three_letters();
    millrace.write("pipelines.yaml", documents("thing"));
    let _running = Running::start(&millrace, &["run", "--listen", "off"]);
    let more: Vec<String> = (100..2_100).map(thing).collect();
    produce(&millrace, &more);
    millrace.ok(&["dlq", "replay", "--all"]);
    let deadline = std::time::Duration::from_secs(60);
    let started = tokio::time::Instant::now();
    while views(&millrace).unread("seen") != Some(2_003) {
        assert!(started.elapsed() < deadline, "{:?}", views(&millrace).unread("seen"));
        millrace.ok(&["topic", "list"]);
    }
}

#[test]
fn what_a_sink_may_have_forgotten_is_left() {
    let millrace = three_letters();
    let line = millrace.ok(&["dlq", "export", "--key", "t1"]).stdout;
    let mut letter: Value = serde_json::from_str(&line).unwrap();
    millrace.write("pipelines.yaml", documents("thing"));
    let old_ms = letter["origin"]["timestamp_ms"].as_i64().unwrap() - 31 * 86_400_000;
    letter["origin"]["timestamp_ms"] = json!(old_ms);
    millrace.write("old.ndjson", letter.to_string());
    let left = millrace.run(&["dlq", "replay", "--from", "old.ndjson"]);
    assert_eq!(left.code, Some(1), "{left:#?}");
    assert!(left.stderr.contains("older than what documents remembers"), "{left:#?}");
    millrace.ok(&["dlq", "replay", "--from", "old.ndjson", "--force"]);
    assert_eq!(views(&millrace).unread("seen"), Some(1));
    // Of a pipeline that is not there any more.
    millrace.write("pipelines.yaml", documents("thing").replace("  documents:", "  renamed:"));
    let left = millrace.run(&["dlq", "replay", "--all"]);
    assert!(left.code == Some(1) && left.stderr.contains("there is no pipeline 'documents'"), "{left:#?}");
    millrace.ok(&["dlq", "discard", "--pipeline", "documents"]);
    assert!(letters(&millrace, &[]).is_empty());
}

#[test]
fn a_value_that_was_left_out_is_read_from_where_it_came_from() {
    let declared = "things.dlq: { broker: main, max_record_bytes: 1KiB }";
    let pipelines = |field| documents(field).replace("topics: { ", &format!("topics: {{ {declared}, "));
    let event = json!({
        "eventId": "e1", "eventType": "test.thing.made.v1", "occurredAt": "2026-01-01T00:00:00Z",
        "payload": { "thing": "t1", "version": 1, "text": "x".repeat(100_000) }
    });
    let millrace = stage(&pipelines("nothing"), &[event.to_string()]);
    run(&millrace);
    let listed = letters(&millrace, &[]);
    assert_eq!(listed[0]["value_truncated"], event.to_string().len(), "{listed:?}");
    let shown = millrace.ok(&["dlq", "show", listed[0]["id"].as_str().unwrap()]);
    assert!(shown.stdout.contains("left out"), "{shown:#?}");
    let exported: Value = serde_json::from_str(&millrace.ok(&["dlq", "export"]).stdout).unwrap();
    assert_eq!((&exported["value"], &exported["key"]), (&json!(event.to_string()), &json!("t1")));
    millrace.write("pipelines.yaml", pipelines("thing"));
    millrace.ok(&["dlq", "replay", "--all"]);
    assert_eq!(views(&millrace).post("t1").unwrap()["text"].as_str().unwrap().len(), 100_000);
}
