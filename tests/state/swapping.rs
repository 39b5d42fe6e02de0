//! Modules change beneath running pipelines: every record is processed once, by one version, in its order.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Copy, Stage, json};

/// Passes what it gets.
pub(super) const PASSES: &[u8] = include_bytes!("../../smartmodules/dist/testing/kit-filter-lean.wasm");
/// Adds the parameter `suffix`.
pub(super) const MARKS: &[u8] = include_bytes!("../../smartmodules/dist/testing/kit-map-lean.wasm");
/// Needs a parameter that it is not given here.
const REFUSES: &[u8] = include_bytes!("../../smartmodules/dist/testing/count-by-lean.wasm");

impl Stage {
    pub(super) fn deploy(&self, version: &str, wasm: &[u8], more: &[&str]) {
        self.millrace.write("own.wasm", wasm);
        let args = ["smartmodule", "deploy", "own.wasm", "--name", "own", "--version", version];
        self.millrace.ok(&[&args[..], more].concat());
    }

    /// The values in a topic with their partitions, in their order.
    pub(super) fn values(&self, topic: &str) -> Vec<(u64, String)> {
        let topic = format!("{}{topic}", self.prefix);
        let ran = self.ok(&["topic", "tail", &topic, "--from", "beginning", "--until-end", "--json"]);
        let value = |line: &str| {
            let record: Value = serde_json::from_str(line).unwrap();
            let value = record["value"].as_str().map_or_else(|| record["value"].to_string(), str::to_owned);
            (record["partition"].as_u64().unwrap(), value)
        };
        ran.stdout.lines().map(value).collect()
    }

    /// What became of each partition's records, in the order of the output.
    pub(super) fn outputs(&self) -> BTreeMap<u64, Vec<String>> {
        let partitions: BTreeMap<String, u64> =
            self.values("in").into_iter().map(|(partition, value)| (value, partition)).collect();
        let mut outputs = BTreeMap::<u64, Vec<String>>::new();
        for (_, value) in self.values("one") {
            outputs.entry(partitions[value.trim_end_matches('!')]).or_default().push(value);
        }
        outputs
    }

    /// Every record has one output, in order: by the first version up to one of them, then by the second.
    fn assert_one_turn(&self) {
        let mut records = BTreeMap::<u64, Vec<String>>::new();
        for (partition, value) in self.values("in") {
            records.entry(partition).or_default().push(value);
        }
        let outputs = self.outputs();
        let bare = |values: &Vec<String>| -> Vec<String> {
            values.iter().map(|value| value.trim_end_matches('!').to_owned()).collect()
        };
        let bare = outputs.iter().map(|(partition, values)| (*partition, bare(values)));
        assert_eq!(bare.collect::<BTreeMap<_, _>>(), records);
        for values in outputs.values() {
            assert!(values.iter().map(|value| value.ends_with('!')).is_sorted(), "one turn: {values:?}");
        }
    }

    /// Waits until the newest version of the step is this one everywhere.
    fn until_wanted(&self, digest: &str) {
        self.until("the version is taken up", |pipelines| {
            let workers = pipelines[0]["workers"].as_array().unwrap();
            pipelines[0]["lag"] == 0
                && !workers.is_empty()
                && workers.iter().all(|worker| worker["modules"]["own"] == digest)
        });
    }

    /// The digest of a version.
    fn digest(&self, version: &str) -> String {
        let listed: Value = json(&self.millrace.ok(&["smartmodule", "list", "own", "--json"]));
        let all = listed[0]["versions"].as_array().unwrap();
        let found = all.iter().find(|one| one["version"] == version).unwrap();
        found["digest"].as_str().unwrap().to_owned()
    }
}

pub(super) fn own(uses: &'static str) -> Copy {
    Copy { more: uses, ..Copy::of("one", "in", "one") }
}

const LATEST: &str = "steps: [{ id: own, uses: own@latest, with: { suffix: \"!\" } }]";
const FIRST: &str = "steps: [{ id: own, uses: own@1.0.0, with: { suffix: \"!\" } }]";
const SECOND: &str = "steps: [{ id: own, uses: own@2.0.0, with: { suffix: \"!\" } }]";

fn the_latest_version_is_taken_up(stage: &Stage) {
    stage.write(&[own(LATEST)]);
    stage.deploy("1.0.0", PASSES, &[]);
    stage.apply();
    let running = stage.follow();
    stage.produce(0..500);
    stage.until_done(&["one"], 1);
    stage.until_wanted(&stage.digest("1.0.0"));
    stage.produce(500..1_500);
    stage.deploy("2.0.0", MARKS, &["--param", "suffix=!"]);
    stage.until_wanted(&stage.digest("2.0.0"));
    stage.produce(1_500..2_000);
    stage.until_done(&["one"], 1);
    let status = stage.millrace.ok(&["status"]).stdout;
    assert!(status.contains("steps run own own@2.0.0"), "{status}");
    stage.assert_one_turn();
    let before = stage.outputs();
    assert!(before.values().all(|values| values.last().unwrap().ends_with('!')), "{before:?}");

    // One that cannot run leaves the one before, and `status` says why.
    stage.deploy("3.0.0", REFUSES, &["--param", "by=payload"]);
    stage.until("it is refused", |pipelines| {
        let workers = pipelines[0]["workers"].as_array().unwrap();
        workers
            .iter()
            .any(|worker| worker["refused"]["own"].as_str().is_some_and(|why| why.starts_with("own@3.0.0: ")))
    });
    stage.produce(2_000..2_100);
    stage.until_done(&["one"], 1);
    stage.assert_one_turn();
    stage.millrace.ok(&["smartmodule", "rollback", "own"]);
    stage.until("nothing is refused any more", |pipelines| {
        let workers = pipelines[0]["workers"].as_array().unwrap();
        workers.iter().all(|worker| worker["refused"].as_object().is_none_or(serde_json::Map::is_empty))
    });

    // Killed and started again, it has not forgotten: what comes again is for the versions it was for.
    running.kill();
    let running = stage.follow();
    stage.until_done(&["one"], 1);
    let before = stage.outputs();
    stage.millrace.ok(&["pause", "one"]);
    stage.millrace.ok(&["rewind", "one", "--to", "beginning"]);
    stage.millrace.ok(&["resume", "one"]);
    stage.until_done(&["one"], 1);
    for (partition, values) in stage.outputs() {
        let again = &values[before[&partition].len()..];
        assert_eq!(again, before[&partition], "the same again");
    }
    // Unless it is told to forget.
    let before = stage.outputs();
    stage.millrace.ok(&["pause", "one"]);
    stage.millrace.ok(&["rewind", "one", "--to", "beginning", "--forget-versions"]);
    stage.millrace.ok(&["resume", "one"]);
    stage.until_done(&["one"], 1);
    for (partition, values) in stage.outputs() {
        let again = &values[before[&partition].len()..];
        assert!(!again.is_empty() && again.iter().all(|value| value.ends_with('!')), "{again:?}");
    }
    running.stop();
}

#[test]
fn the_latest_version_is_taken_up_embedded() {
    the_latest_version_is_taken_up(&Stage::embedded());
}

#[test]
fn the_latest_version_is_taken_up_on_kafka() {
    the_latest_version_is_taken_up(&Stage::kafka("latest"));
}

/// Another version in the file restarts nothing, and what is applied is what runs.
#[test]
fn an_applied_version_is_taken_up_without_a_restart() {
    let stage = Stage::embedded();
    stage.write(&[own(FIRST)]);
    stage.deploy("1.0.0", PASSES, &[]);
    stage.deploy("2.0.0", MARKS, &["--param", "suffix=!"]);
    stage.apply();
    let running = stage.follow();
    stage.produce(0..500);
    stage.until_done(&["one"], 1);
    stage.until_wanted(&stage.digest("1.0.0"));
    let since = |pipelines: &[Value]| pipelines[0]["since_ms"].clone();
    let before = since(&stage.status());
    stage.write(&[own(SECOND)]);
    stage.produce(500..1_000);
    stage.apply();
    stage.until_wanted(&stage.digest("2.0.0"));
    stage.produce(1_000..1_500);
    stage.until_done(&["one"], 2);
    stage.assert_one_turn();
    assert_eq!(since(&stage.status()), before, "it was not restarted");
    let used = stage.run(&["smartmodule", "delete", "own@2.0.0"]);
    assert!(used.code == Some(1) && used.stderr.contains("is used by"), "{used:#?}");
    running.stop();
}
