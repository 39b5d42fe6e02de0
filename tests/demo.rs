//! The demo from start to end: it needs nothing, and shows what it promises.

use crate::support::millrace::Millrace;

#[test]
fn shows_a_feed_a_search_counters_and_dead_letters() {
    let millrace = Millrace::new();
    let ran = millrace.ok(&["demo", "--seconds", "2", "--keep", "kept", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let generated = |what: &str| report["generated"][what].as_u64().unwrap();
    assert!(generated("posts") > 100 && generated("likes") > 100, "{report:#}");
    assert_eq!(report["feed"]["posts"].as_array().unwrap().len(), 5, "{report:#}");
    assert!(report["search"]["hits"].as_u64().unwrap() > 0, "{report:#}");
    assert!(!report["unread"].as_array().unwrap().is_empty(), "{report:#}");
    let letters: u64 =
        report["dead_letters"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert!(letters > 0 && generated("malformed") > 0, "{report:#}");
    let tail = ["topic", "tail", "content-events.dlq", "--from", "beginning", "--until-end", "--json"];
    millrace.write("pipelines.yaml", include_str!("../pipelines.yaml"));
    let tailed = millrace.ok(&[&tail[..], &["--embedded=kept"]].concat());
    assert_eq!(tailed.stdout.lines().count() as u64, letters);
}

#[test]
fn the_text_is_readable_when_piped() {
    let millrace = Millrace::new();
    let ran = millrace.ok(&["demo", "--seconds", "1"]);
    for part in
        ["The feed of u", "Search for 'coffee': ", "Most unread likes", "dead letter", "Where to look next"]
    {
        assert!(ran.stdout.contains(part), "{ran:#?}");
    }
    assert!(!ran.stdout.contains('\u{1b}'), "no escape sequences: {ran:#?}");
}
