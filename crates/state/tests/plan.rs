//! What a plan says, and what it does not depend on.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use millrace_state::{
    Action, FileState, GroupWorld, IndexWorld, Subject, TopicWorld, World, differences, plan,
};

const FILE: &str = "version: 1
brokers: { main: { kafka: { bootstrap: \"${KAFKA}\" } } }
topics: { in: { broker: main } }
pipelines:
  feed:
    from: { topic: in }
    steps:
      - { id: a, uses: x, with: { hide: PRIVATE } }
      - { id: b, uses: y }
    to: { out: { stdout: {} } }
";

fn file(text: &str) -> FileState {
    let modules = BTreeMap::from([("x".to_owned(), "11".to_owned()), ("y".to_owned(), "22".to_owned())]);
    FileState::new(text.to_owned(), modules, false).unwrap()
}

fn world() -> World {
    let topic = |name: &str, found| TopicWorld { broker: "main".into(), name: name.into(), wanted: 3, found };
    World { topics: vec![topic("in", Some(3)), topic("in.dlq", Some(3))], ..World::default() }
}

fn said(before: Option<&str>, after: &str, world: &World, purge: bool) -> Vec<String> {
    let (before, after) = (before.map(file), file(after));
    let planned = plan(before.as_ref().map(|file| (file, 7)), &after, world, purge);
    let lines = planned.changes.iter().map(|change| {
        let head = format!("{} {} {}", change.action.mark(), change.subject, change.name);
        std::iter::once(head)
            .chain(change.details.iter().map(|detail| format!("  {detail}")))
            .collect::<Vec<_>>()
    });
    lines.flatten().collect()
}

#[test]
fn equal_files_change_nothing() {
    assert!(said(Some(FILE), FILE, &world(), false).is_empty());
    assert!(said(Some(FILE), FILE, &world(), true).is_empty());
    let comment = format!("# a comment\n{FILE}");
    assert_eq!(
        said(Some(FILE), &comment, &world(), false),
        ["~ file pipelines", "  comments, layout, or the order of keys"]
    );
}

#[test]
fn what_differs_is_named_by_its_keys() {
    let after = FILE
        .replace("hide: PRIVATE", "hide: HIDDEN")
        .replace("{ id: b, uses: y }", "{ id: b, uses: y, lookback: {} }");
    assert_eq!(
        said(Some(FILE), &after, &world(), false),
        ["~ pipeline feed", "  steps[a].with.hide: PRIVATE → HIDDEN", "  + steps[b].lookback: {}"]
    );
    let swapped = FILE.replace("uses: x, with: { hide: PRIVATE } }", "uses: z }");
    assert_eq!(
        said(Some(FILE), &swapped, &world(), false),
        ["~ pipeline feed", "  steps[a].uses: x → z", "  - steps[a].with: {hide: PRIVATE}"]
    );
    let broker = FILE.replace("${KAFKA}", "${OTHER}");
    assert_eq!(
        said(Some(FILE), &broker, &world(), false),
        ["~ system main", "  kafka.bootstrap: ${KAFKA} → ${OTHER}"]
    );
    let topic = FILE.replace("{ broker: main }", "{ broker: main, retention: 1d }");
    assert_eq!(
        said(Some(FILE), &topic, &world(), false),
        ["~ file pipelines", "  + topics.in.retention: 1d"]
    );
}

#[test]
fn the_order_of_steps_counts_and_that_of_keys_does_not() {
    let (first, second) = ("{ id: a, uses: x }", "{ id: b, uses: y }");
    let text = |steps: [&str; 2]| format!("steps: [{}]", steps.join(", "));
    let root = |steps| millrace_config::parse(&text(steps)).unwrap();
    let found = differences(Some(&root([first, second])), Some(&root([second, first])));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].path.as_str(), found[0].after.as_deref()), ("steps", Some("[b] [a]")));
    let other = root(["{ uses: x, id: a }", second]);
    assert!(differences(Some(&root([first, second])), Some(&other)).is_empty());
}

#[test]
fn what_is_missing_is_made_and_what_is_other_is_noted() {
    let mut world = world();
    world.topics[0].found = None;
    world.topics[1].found = Some(1);
    world.indexes =
        vec![IndexWorld { store: "search".into(), name: "posts".into(), lacks: vec!["+ title".into()] }];
    let planned = plan(Some((&file(FILE), 7)), &file(FILE), &world, false);
    let changes: Vec<_> = planned.changes.iter().map(|change| (change.action, change.subject)).collect();
    assert_eq!(changes, [(Action::Add, Subject::Topic), (Action::Change, Subject::Index)]);
    assert!(planned.notes[0].contains("has 1 partition, declared are 3"), "{:?}", planned.notes);
}

#[test]
fn what_removed_pipelines_have_left_is_kept_or_purged() {
    let group = GroupWorld {
        pipeline: "feed".into(),
        broker: "main".into(),
        group: "feed".into(),
        topic: "in".into(),
        wanted: false,
        has_progress: true,
    };
    let world = World { groups: vec![group], ..world() };
    let (head, _) = FILE.split_once("  feed:").unwrap();
    let without = format!("{head}  other: {{ from: {{ topic: in }}, to: {{ out: {{ stdout: {{}} }} }} }}\n");
    assert_eq!(
        said(Some(FILE), &without, &world, false),
        ["+ pipeline other", "- pipeline feed", "  progress of group feed is kept; --purge forgets it"]
    );
    let purged = said(Some(FILE), &without, &world, true);
    assert_eq!(purged[2..], ["- progress feed", "  in in, of the removed pipeline feed"]);
    // Later, when it is long gone from the file.
    assert!(said(Some(&without), &without, &world, false).is_empty());
    assert_eq!(said(Some(&without), &without, &world, true).len(), 2);
}

#[test]
fn the_hash_names_all_that_a_plan_stands_on() {
    let hash = |before: Option<i64>, text: &str, world: &World, purge| {
        let (older, desired) = (file(FILE), file(text));
        plan(before.map(|offset| (&older, offset)), &desired, world, purge).hash
    };
    let first = hash(Some(7), FILE, &world(), false);
    assert_eq!(first, hash(Some(7), FILE, &world(), false));
    let mut other = world();
    other.topics[0].found = None;
    let others = [
        hash(Some(8), FILE, &world(), false),
        hash(None, FILE, &world(), false),
        hash(Some(7), &format!("# x\n{FILE}"), &world(), false),
        hash(Some(7), FILE, &other, false),
        hash(Some(7), FILE, &world(), true),
    ];
    assert!(others.iter().all(|other| *other != first), "{first} {others:?}");
    // A pipeline that runs makes progress.
    let group = |has_progress| GroupWorld {
        pipeline: "feed".into(),
        broker: "main".into(),
        group: "feed".into(),
        topic: "in".into(),
        wanted: true,
        has_progress,
    };
    let world = |has_progress| World { groups: vec![group(has_progress)], ..world() };
    assert_eq!(hash(Some(7), FILE, &world(false), false), hash(Some(7), FILE, &world(true), false));
    assert_ne!(hash(None, FILE, &world(false), false), hash(None, FILE, &world(true), false));
}

#[test]
fn modules_are_told_by_their_digests() {
    let mut newer = file(FILE);
    newer.modules.insert("x".to_owned(), "33".to_owned());
    newer.modules.remove("y");
    let planned = plan(Some((&file(FILE), 7)), &newer, &world(), false);
    let details: Vec<&str> = planned.changes.iter().map(|change| change.details[0].as_str()).collect();
    assert_eq!(details, ["11 → 33", "22"]);
}
