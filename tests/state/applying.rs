//! What is planned is what is applied, and nothing else; whatever happens meanwhile.

use std::process::Stdio;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::Value;

use super::{Copy, Stage, json};

fn subjects(plan: &Value) -> Vec<String> {
    let changes = plan["changes"].as_array().unwrap().iter();
    changes
        .map(|change| {
            let word = |key: &str| change[key].as_str().unwrap().to_owned();
            format!("{} {} {}", word("action"), word("subject"), word("name"))
        })
        .collect()
}

fn nothing_is_left_to_change(stage: &Stage) {
    let prefix = &stage.prefix;
    stage.write(&[Copy::of("one", "in", "one")]);
    let first = stage.plan();
    let mut expected: Vec<String> =
        ["in", "in.dlq", "one", "two"].map(|topic| format!("add topic {prefix}{topic}")).into();
    expected.push("add pipeline one".to_owned());
    assert_eq!(subjects(&first), expected);
    assert_eq!(first["applied_generation"], Value::Null);
    assert_eq!(stage.hash(), first["hash"], "looking changes nothing");
    assert!(stage.apply().stdout.contains("generation 1 is in force"));
    let second = stage.plan();
    assert_eq!((subjects(&second).len(), &second["applied_generation"]), (0, &1.into()), "{second:#}");
    let again = json(&stage.ok(&["apply", "-f", "pipelines.yaml", "--json"]));
    assert_eq!((&again["generation"], &again["changed"]), (&1.into(), &false.into()));

    stage.write(&[
        Copy { more: "batch: { records: 7 }", ..Copy::of("one", "in", "one") },
        Copy::of("two", "in", "two"),
    ]);
    let third = stage.plan();
    assert_eq!(subjects(&third), ["change pipeline one", "add pipeline two"]);
    assert_eq!(third["changes"][0]["details"], serde_json::json!(["+ batch: {records: 7}"]));
    let hash = third["hash"].as_str().unwrap();
    stage.ok(&["apply", "-f", "pipelines.yaml", "--plan", hash]);
    assert!(subjects(&stage.plan()).is_empty());
    // The same plan a second time: the world has moved on.
    let stale = stage.run(&["apply", "-f", "pipelines.yaml", "--plan", hash]);
    assert_eq!(stale.code, Some(1), "{stale:#?}");
    assert!(stale.stderr.contains("does not hold any more"), "{stale:#?}");
    // A comment is no change to any pipeline, and is put in force all the same.
    let text = std::fs::read_to_string(stage.millrace.path().join("pipelines.yaml")).unwrap();
    stage.millrace.write("pipelines.yaml", format!("# why\n{text}"));
    assert_eq!(subjects(&stage.plan()), ["change file pipelines"]);
    stage.apply();
    assert!(subjects(&stage.plan()).is_empty());
}

#[test]
fn after_an_apply_nothing_is_left_to_change_embedded() {
    nothing_is_left_to_change(&Stage::embedded());
}

#[test]
fn after_an_apply_nothing_is_left_to_change_on_kafka() {
    nothing_is_left_to_change(&Stage::kafka("plan"));
}

/// Two people have looked at plans of the same moment.
#[test]
fn of_two_who_apply_at_once_one_wins_and_the_other_is_told() {
    let stage = Stage::kafka("race");
    stage.write(&[Copy::of("one", "in", "one")]);
    stage.apply();
    stage.write_as("left.yaml", &[Copy::of("one", "in", "two")]);
    stage.write_as("right.yaml", &[Copy::of("two", "in", "two")]);
    let hash =
        |file: &str| json(&stage.ok(&["plan", "-f", file, "--json"]))["hash"].as_str().unwrap().to_owned();
    let files = ["left.yaml", "right.yaml"].map(|file| (file, hash(file)));
    let appliers = files.map(|(file, hash)| {
        let mut command = stage.millrace.command(&["apply", "-f", file, "--plan", &hash]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let ends = appliers.map(|applier| applier.wait_with_output().unwrap());
    let codes: Vec<i32> = ends.iter().map(|end| end.status.code().unwrap()).collect();
    assert!(codes == [0, 1] || codes == [1, 0], "{ends:#?}");
    let loser = &ends[usize::from(codes == [0, 1])];
    let told = String::from_utf8_lossy(&loser.stderr);
    assert!(told.contains("somebody else applied") || told.contains("does not hold any more"), "{told}");
    let winner = ["left.yaml", "right.yaml"][usize::from(codes == [1, 0])];
    let plan = json(&stage.ok(&["plan", "-f", winner, "--json"]));
    assert!(subjects(&plan).is_empty() && plan["applied_generation"] == 2, "{plan:#}");
}

/// Real processes, killed at times that no call is bound to: from the start to about the end of one that is left alone.
#[test]
fn a_killed_apply_is_made_whole_by_the_next_one() {
    let stage = Stage::embedded();
    let mut rng = SmallRng::seed_from_u64(20);
    let write = |round: u32| {
        let more: &'static str =
            if round.is_multiple_of(2) { "batch: { records: 7 }" } else { "batch: { records: 8 }" };
        stage.write(&[Copy { more, ..Copy::of("one", "in", "one") }]);
    };
    let start = || {
        let mut command = stage.millrace.command(&["apply", "-f", "pipelines.yaml", "--embedded"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    // How often one can look at a process that applies.
    write(0);
    let (mut whole, mut looks) = (start(), 1);
    while whole.try_wait().unwrap().is_none() {
        looks += 1;
        std::thread::yield_now();
    }
    let mut killed = 0;
    for round in 1..=12_u32 {
        write(round);
        let (mut applier, at) = (start(), rng.random_range(0..looks));
        for _ in 0..at {
            if applier.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::yield_now();
        }
        // It may have ended by itself.
        let _ = applier.kill();
        killed += u32::from(!applier.wait().unwrap().success());
        stage.apply();
        assert!(subjects(&stage.plan()).is_empty(), "round {round}");
    }
    assert!(killed > 0, "no apply was killed in time");
}

#[test]
fn what_a_removed_pipeline_has_left_stays_unless_it_is_purged() {
    let stage = Stage::kafka("purge");
    stage.write(&[Copy::of("one", "in", "one"), Copy::of("two", "in", "two")]);
    stage.apply();
    stage.produce(0..10);
    stage.ok(&["run", "-f", "pipelines.yaml", "--until-end", "--listen", "off"]);
    stage.write(&[Copy::of("one", "in", "one")]);
    let plan = stage.plan();
    assert_eq!(subjects(&plan), ["remove pipeline two"]);
    assert!(plan["changes"][0]["details"][0].as_str().unwrap().contains("--purge"), "{plan:#}");
    stage.apply();
    // It comes back and goes on where it was.
    stage.write(&[Copy::of("one", "in", "one"), Copy::of("two", "in", "two")]);
    let details = stage.plan()["changes"][0]["details"][0].as_str().unwrap().to_owned();
    assert!(details.contains("goes on"), "{details}");
    stage.apply();
    stage.write(&[Copy::of("one", "in", "one")]);
    stage.apply();
    // Also later, when the file has nothing to change any more.
    let purge = json(&stage.ok(&["plan", "-f", "pipelines.yaml", "--purge", "--json"]));
    assert_eq!(subjects(&purge), ["remove progress two"]);
    let hash = purge["hash"].as_str().unwrap();
    let done = json(&stage.ok(&["apply", "-f", "pipelines.yaml", "--purge", "--plan", hash, "--json"]));
    assert_eq!(done["forgotten"], serde_json::json!(["two"]));
    let again = json(&stage.ok(&["plan", "-f", "pipelines.yaml", "--purge", "--json"]));
    assert!(subjects(&again).is_empty(), "{again:#}");
    stage.write(&[Copy::of("one", "in", "one"), Copy::of("two", "in", "two")]);
    let details = stage.plan()["changes"][0]["details"][0].as_str().unwrap().to_owned();
    assert!(details.contains("from its beginning"), "{details}");
}
