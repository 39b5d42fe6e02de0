//! Versions on trial in running pipelines: a canary on some partitions or on a share of the records, and a shadow.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    Stage,
    swapping::{MARKS, PASSES, own},
};

const ON_PARTITION_1: &str = "steps: [{ id: own, uses: own@1.0.0, with: { suffix: \"!\" }, canary: { version: 1.1.0, partitions: [1] } }]";
const ON_A_SHARE: &str =
    "steps: [{ id: own, uses: own@latest, with: { suffix: \"!\" }, canary: { version: 1.1.0, share: 25% } }]";
const IN_THE_SHADOW: &str = "steps: [{ id: own, uses: own@1.0.0, shadow: { version: 1.1.0 } }]";
const ALONE: &str = "steps: [{ id: own, uses: own@1.1.0, with: { suffix: \"!\" } }]";

impl Stage {
    /// One version is in use, and another one there.
    fn with_two_versions(self, steps: &'static str) -> Self {
        self.write(&[own(steps)]);
        self.deploy("1.0.0", PASSES, &[]);
        self.deploy("1.1.0", MARKS, &["--param", "suffix=!", "--no-latest"]);
        self
    }

    /// Waits until the one version on trial has had so many records.
    fn until_tried(&self, records: u64) -> Value {
        self.until("the version on trial has had all", |pipelines| {
            pipelines[0]["trials"][0]["records"] == records
        });
        self.status()[0]["trials"][0].clone()
    }
}

#[test]
fn a_canary_takes_its_partitions_until_it_is_let_go_or_taken_over_embedded() {
    a_canary_takes_its_partitions_until_it_is_let_go_or_taken_over(Stage::embedded());
}

#[test]
fn a_canary_takes_its_partitions_until_it_is_let_go_or_taken_over_on_kafka() {
    a_canary_takes_its_partitions_until_it_is_let_go_or_taken_over(Stage::kafka("canary"));
}

fn a_canary_takes_its_partitions_until_it_is_let_go_or_taken_over(stage: Stage) {
    let stage = stage.with_two_versions(ON_PARTITION_1);
    let planned = stage.plan()["changes"].clone();
    let is_planned = |change: &Value| change["subject"] == "smart_module" && change["name"] == "own@1.1.0";
    assert!(planned.as_array().unwrap().iter().any(is_planned), "{planned:#}");
    stage.apply();
    let running = stage.follow();
    stage.produce(0..400);
    stage.until_done(&["one"], 1);
    let outputs = stage.outputs();
    assert!(outputs.len() == 2 && outputs.values().all(|values| !values.is_empty()), "{outputs:?}");
    for (partition, values) in &outputs {
        assert!(values.iter().all(|value| value.ends_with('!') == (*partition == 1)), "{outputs:?}");
    }
    let trial = stage.until_tried(outputs[&1].len() as u64);
    assert_eq!((&trial["trial"], &trial["module"]), (&json!("canary"), &json!("own@1.1.0")));
    let used = stage.run(&["smartmodule", "delete", "own@1.1.0"]);
    assert!(used.code == Some(1) && used.stderr.contains("is used by"), "{used:#?}");

    stage.write(&[own(ALONE)]);
    stage.apply();
    stage.until_done(&["one"], 2);
    stage.produce(400..800);
    stage.until_done(&["one"], 2);
    let seen: usize = outputs.values().map(Vec::len).sum();
    let all: usize = stage.outputs().values().map(Vec::len).sum();
    let values = stage.values("one");
    assert_eq!((seen, all), (400, 800));
    assert!(values[400..].iter().all(|(_, value)| value.ends_with('!')), "it has taken over");
    assert_eq!(stage.status()[0]["trials"], json!([]));
    running.stop();
}

#[test]
fn a_canary_of_a_share_takes_whole_keys_embedded() {
    a_canary_of_a_share_takes_whole_keys(Stage::embedded());
}

#[test]
fn a_canary_of_a_share_takes_whole_keys_on_kafka() {
    a_canary_of_a_share_takes_whole_keys(Stage::kafka("share"));
}

fn a_canary_of_a_share_takes_whole_keys(stage: Stage) {
    const USERS: usize = 200;
    let stage = stage.with_two_versions(ON_A_SHARE);
    stage.apply();
    let running = stage.follow();
    let line = |n: usize| format!("{{\"user\":\"u{}\",\"n\":{n}}}\n", n % USERS);
    stage.send(&(0..USERS * 10).map(line).collect::<String>(), &["--key", "user"]);
    stage.until_done(&["one"], 1);
    let mut marked = BTreeMap::<String, BTreeSet<bool>>::new();
    let (mut order, mut taken) = (BTreeMap::<String, Vec<u64>>::new(), 0);
    for (_, value) in stage.values("one") {
        let record: Value = serde_json::from_str(value.trim_end_matches('!')).unwrap();
        let user = record["user"].as_str().unwrap().to_owned();
        order.entry(user.clone()).or_default().push(record["n"].as_u64().unwrap());
        taken += u64::from(value.ends_with('!'));
        marked.entry(user).or_default().insert(value.ends_with('!'));
    }
    assert_eq!(marked.len(), USERS);
    assert!(marked.values().all(|ways| ways.len() == 1), "all records of a key go one way");
    assert!(order.values().all(|numbers| numbers.len() == 10 && numbers.is_sorted()), "each once, in order");
    assert!((300..=700).contains(&taken), "a quarter of 2000: {taken}");
    assert_eq!(stage.until_tried(taken)["rejected"], 0);
    running.stop();
}

#[test]
fn a_shadow_changes_nothing_and_tells_what_it_would_have_changed_embedded() {
    a_shadow_changes_nothing_and_tells_what_it_would_have_changed(Stage::embedded());
}

#[test]
fn a_shadow_changes_nothing_and_tells_what_it_would_have_changed_on_kafka() {
    a_shadow_changes_nothing_and_tells_what_it_would_have_changed(Stage::kafka("shadow"));
}

fn a_shadow_changes_nothing_and_tells_what_it_would_have_changed(stage: Stage) {
    let stage = stage.with_two_versions(IN_THE_SHADOW);
    stage.apply();
    let running = stage.follow();
    let numbers = |range: std::ops::Range<u32>| range.map(|n| format!("{n}\n")).collect::<String>();
    // The one version filters and passes keys on, the other neither; both refuse `error`.
    stage.send(&format!("{}drop it\n{}rekey\nerror\n", numbers(0..100), numbers(100..300)), &[]);
    stage.until_done(&["one"], 1);
    let trial = stage.until_tried(303);
    assert_eq!((&trial["rejected"], &trial["differing"]), (&json!(1), &json!(2)), "{trial:#}");
    let topic = format!("{}in", stage.prefix);
    let tail = stage.ok(&["topic", "tail", &topic, "--from", "beginning", "--until-end", "--json"]);
    let records: Vec<Value> = tail.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found = |value: &str, difference: &str| {
        let record = records.iter().find(|record| record["value"] == value).unwrap();
        (format!("{topic}/{}/{}", record["partition"], record["offset"]), difference.to_owned())
    };
    let first = trial["first"].as_array().unwrap().iter().map(|one| {
        let text = |key: &str| one[key].as_str().unwrap().to_owned();
        (text("record"), text("difference"))
    });
    let expected = BTreeSet::from([found("drop it", "count"), found("rekey", "key")]);
    assert_eq!(first.collect::<BTreeSet<_>>(), expected);
    let status = stage.millrace.run(&["status"]);
    let line = format!("step own: shadow own@1.1.0: 303 records, 1 rejected, 2 differ, first {topic}/");
    assert!(status.stdout.contains(&line) && !status.stdout.contains("drop it"), "{status:#?}");

    let outputs: Vec<String> = stage.values("one").into_iter().map(|(_, value)| value).collect();
    let expected: BTreeSet<String> = (0..300).map(|n| n.to_string()).chain(["rekey".to_owned()]).collect();
    assert_eq!((outputs.len(), outputs.into_iter().collect()), (301, expected), "as without it");
    assert_eq!(stage.status()[0]["dead_letters"]["now"], 1);
    running.stop();
}
