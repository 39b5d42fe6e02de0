//! A version that fails on one record after the other, in a running pipeline: what it stops, and how that goes on.

use std::collections::BTreeSet;

use super::{
    Stage,
    swapping::{PASSES, own},
};
use crate::support::{modules::BREAKS, running::Running};

const GOES_BACK: &str = "steps: [{ id: own, uses: own@latest, quarantine: { after: 1, then: previous } }]";
const STOPS: &str = "steps: [{ id: own, uses: own@latest, quarantine: { after: 1 } }]";
const SKIPS: &str = "steps: [{ id: own, uses: own@latest, quarantine: { after: 2, then: skip } }]";

impl Stage {
    /// A good version has seen a hundred records, and a broken one, deployed since, is given a hundred more.
    fn break_down(&self, steps: &'static str) -> Running {
        self.write(&[own(steps)]);
        self.deploy("1.0.0", PASSES, &[]);
        self.apply();
        let running = self.follow();
        self.produce(0..100);
        self.until_done(&["one"], 1);
        self.deploy("2.0.0", &wat::parse_str(BREAKS).unwrap(), &[]);
        running.stop();
        let running = self.follow();
        self.produce(100..200);
        running
    }
}

fn the_version_before_takes_over(stage: &Stage) {
    let running = stage.break_down(GOES_BACK);
    stage.until("it is left", |pipelines| {
        let workers = pipelines[0]["workers"].as_array().unwrap();
        let said = |why: &str| {
            why.starts_with("own@2.0.0: failed on ") && why.ends_with("own@1.0.0 takes its place")
        };
        workers.iter().any(|worker| worker["refused"]["own"].as_str().is_some_and(said))
    });
    stage.until_done(&["one"], 1);
    assert_eq!(stage.numbers("one"), (0..200).collect::<Vec<_>>(), "each once");
    assert_eq!(stage.status()[0]["dead_letters"]["now"], 0);
    // Started again it is tried again, and left again.
    running.kill();
    let running = stage.follow();
    stage.produce(200..300);
    stage.until_done(&["one"], 1);
    let values: BTreeSet<u32> = stage.numbers("one").into_iter().collect();
    assert_eq!(values, (0..300).collect());
    assert_eq!(stage.status()[0]["dead_letters"]["now"], 0);
    running.stop();
}

#[test]
fn the_version_before_takes_over_embedded() {
    the_version_before_takes_over(&Stage::embedded());
}

#[test]
fn the_version_before_takes_over_on_kafka() {
    the_version_before_takes_over(&Stage::kafka("left"));
}

fn it_stops_until_there_is_a_better_one(stage: &Stage) {
    let running = stage.break_down(STOPS);
    stage.until("it has stopped", |pipelines| {
        pipelines[0]["state"] == "paused" && pipelines[0]["by"] == "quarantine"
    });
    stage.deploy("3.0.0", PASSES, &[]);
    stage.millrace.ok(&["resume", "one"]);
    stage.until_done(&["one"], 1);
    assert_eq!(stage.numbers("one"), (0..200).collect::<Vec<_>>(), "each once");
    assert_eq!(stage.status()[0]["dead_letters"]["now"], 0);
    running.stop();
}

#[test]
fn it_stops_until_there_is_a_better_one_embedded() {
    it_stops_until_there_is_a_better_one(&Stage::embedded());
}

#[test]
fn it_stops_until_there_is_a_better_one_on_kafka() {
    it_stops_until_there_is_a_better_one(&Stage::kafka("stopped"));
}

#[test]
fn what_is_skipped_is_in_the_dead_letters_on_kafka() {
    let stage = Stage::kafka("skipped");
    let running = stage.break_down(SKIPS);
    stage.until("all are in the dead letters", |pipelines| pipelines[0]["dead_letters"]["now"] == 100);
    assert_eq!(stage.numbers("one"), (0..100).collect::<Vec<_>>());
    running.stop();
}
