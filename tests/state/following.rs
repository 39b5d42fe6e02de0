//! Running processes take up what is applied, and lose and repeat nothing on the way.

use super::{Copy, Stage, times};

fn changes_are_taken_up(stage: &Stage) {
    let running = stage.follow();
    assert_eq!(running.readyz().0, 503, "nothing is applied");
    stage.write(&[Copy::of("one", "in", "one")]);
    stage.apply();
    stage.produce(0..500);
    stage.until_done(&["one"], 1);
    assert_eq!(stage.numbers("one"), times(500, 1));
    assert_eq!(running.readyz().0, 200);

    // Changed while records flow, and another one beside it that reads from the beginning.
    stage.produce(500..2_000);
    stage.write(&[
        Copy { more: "batch: { records: 7 }", ..Copy::of("one", "in", "one") },
        Copy::of("two", "in", "two"),
    ]);
    stage.apply();
    stage.produce(2_000..3_000);
    stage.until_done(&["one", "two"], 2);
    assert_eq!(stage.numbers("one"), times(3_000, 1));
    assert_eq!(stage.numbers("two"), times(3_000, 1));

    // Removed, and put back: it goes on where it was.
    stage.write(&[Copy::of("two", "in", "two")]);
    stage.apply();
    stage.until_done(&["two"], 3);
    stage.produce(3_000..3_500);
    stage.until_done(&["two"], 3);
    assert_eq!(stage.numbers("one").len(), 3_000, "nobody copies any more");
    stage.write(&[Copy::of("one", "in", "one"), Copy::of("two", "in", "two")]);
    stage.apply();
    stage.until_done(&["one", "two"], 4);
    assert_eq!(stage.numbers("one"), times(3_500, 1));
    assert_eq!(stage.numbers("two"), times(3_500, 1));

    // Every process is lost; what is applied is not.
    stage.produce(3_500..4_000);
    running.kill();
    let running = stage.follow();
    stage.until_done(&["one", "two"], 4);
    assert_eq!(stage.numbers("one"), times(4_000, 1));
    running.stop();
}

#[test]
fn changes_are_taken_up_embedded() {
    changes_are_taken_up(&Stage::embedded());
}

#[test]
fn changes_are_taken_up_on_kafka() {
    changes_are_taken_up(&Stage::kafka("follow"));
}

fn stopped_and_rewound(stage: &Stage) {
    stage.write(&[Copy::of("one", "in", "one"), Copy::of("two", "in", "two")]);
    stage.apply();
    let running = stage.follow();
    stage.produce(0..100);
    stage.until_done(&["one", "two"], 1);
    let refused = stage.run(&["rewind", "one", "--to", "beginning", "-f", "pipelines.yaml"]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("pause it first"), "{refused:#?}");

    stage.millrace.ok(&["pause", "one"]);
    stage.millrace.ok(&["rewind", "one", "--to", "beginning"]);
    stage.until("it is paused and has all before it", |pipelines| {
        pipelines[0]["state"] == "paused" && pipelines[0]["lag"] == 100 && pipelines[1]["state"] == "running"
    });
    stage.millrace.ok(&["resume", "one"]);
    stage.until_done(&["one", "two"], 1);
    assert_eq!(stage.numbers("one"), times(100, 2), "each once more");
    assert_eq!(stage.numbers("two"), times(100, 1));

    // Stopped: it leaves its group, and is found stopped by a process that starts.
    stage.millrace.ok(&["stop", "one", "--reason", "being mended"]);
    let stopped = |pipelines: &[serde_json::Value]| {
        let workers = pipelines[0]["workers"].as_array().unwrap();
        pipelines[0]["state"] == "stopped"
            && pipelines[0]["reason"] == "being mended"
            && workers.iter().all(|worker| worker["state"] == "stopped")
            && pipelines[1]["state"] == "running"
    };
    stage.until("it is stopped", stopped);
    stage.produce(100..110);
    stage.millrace.ok(&["rewind", "one", "--to", "end"]);
    running.kill();
    let running = stage.follow();
    stage.until("it stays stopped", |pipelines| stopped(pipelines) && pipelines[1]["lag"] == 0);
    assert_eq!(stage.numbers("one").len(), 200);
    stage.millrace.ok(&["start", "one"]);
    stage.until_done(&["one", "two"], 1);
    assert_eq!(stage.numbers("one"), times(100, 2), "the end was where it went on");
    assert_eq!(stage.numbers("two"), times(110, 1));

    let lag = stage.millrace.ok(&["lag", "one", "--json"]);
    let lag: serde_json::Value = serde_json::from_str(&lag.stdout).unwrap();
    assert_eq!(lag["lag"].as_array().unwrap().len(), 2, "a line for each partition: {lag:#}");
    assert!(lag["lag"].as_array().unwrap().iter().all(|row| row["lag"] == 0), "{lag:#}");
    running.stop();
}

#[test]
fn a_pipeline_is_stopped_and_rewound_embedded() {
    stopped_and_rewound(&Stage::embedded());
}

#[test]
fn a_pipeline_is_stopped_and_rewound_on_kafka() {
    stopped_and_rewound(&Stage::kafka("rewind"));
}

fn purged_while_it_runs(stage: &Stage) {
    let both = [Copy::of("one", "in", "one"), Copy::of("two", "in", "two")];
    stage.write(&both);
    stage.apply();
    let running = stage.follow();
    stage.produce(0..20);
    stage.until_done(&["one", "two"], 1);
    stage.write(&both[..1]);
    let purged = stage.ok(&["apply", "-f", "pipelines.yaml", "--purge", "--json"]);
    assert!(purged.stdout.contains(r#""forgotten":["two"]"#), "{purged:#?}");
    stage.write(&both);
    stage.apply();
    stage.until_done(&["one", "two"], 3);
    assert_eq!(stage.numbers("one"), times(20, 1));
    assert_eq!(stage.numbers("two"), times(20, 2), "it began anew");
    running.stop();
}

#[test]
fn what_runs_is_ended_before_it_is_purged_embedded() {
    purged_while_it_runs(&Stage::embedded());
}

#[test]
fn what_runs_is_ended_before_it_is_purged_on_kafka() {
    purged_while_it_runs(&Stage::kafka("running-purge"));
}

/// Each partition is set to an offset of its own, by number and by time.
#[test]
fn a_rewind_goes_to_offsets_and_times() {
    let stage = Stage::embedded();
    stage.write(&[Copy::of("one", "in", "one")]);
    stage.apply();
    stage.produce(0..50);
    stage.ok(&["run", "-f", "pipelines.yaml", "--until-end", "--listen", "off"]);
    stage.millrace.ok(&["stop", "one"]);
    let rewound = |args: &[&str]| {
        let ran = stage.millrace.ok(&[&["rewind", "one", "--json", "--to"], args].concat());
        let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        said["groups"][0]["to"].clone()
    };
    assert_eq!(rewound(&["3", "--partition", "1"]), serde_json::json!({ "1": 3 }));
    assert_eq!(rewound(&["1970-01-01T00:00:00Z"]), serde_json::json!({ "0": 0, "1": 0 }));
    let end = rewound(&["end"]);
    assert_eq!(rewound(&["2999-01-01T00:00:00Z"]), end);
    assert_eq!(end["0"].as_u64().unwrap() + end["1"].as_u64().unwrap(), 50);
    let beyond = stage.millrace.run(&["rewind", "one", "--to", "1000"]);
    assert_eq!(beyond.code, Some(2), "{beyond:#?}");
    let none = stage.millrace.run(&["rewind", "one", "--to", "3", "--partition", "7"]);
    assert_eq!(none.code, Some(2), "{none:#?}");
}

#[test]
fn what_cannot_be_run_here_leaves_what_runs_alone() {
    let stage = Stage::embedded();
    stage.write(&[Copy::of("one", "in", "one")]);
    stage.apply();
    let running = stage.follow();
    stage.until_done(&["one"], 1);
    stage.write(&[Copy { more: "batch: { records: \"${BATCH}\" }", ..Copy::of("one", "in", "one") }]);
    // Who applies it knows the variable; the process that runs does not.
    let mut command = stage.millrace.command(&["apply", "-f", "pipelines.yaml", "--embedded"]);
    assert!(command.env("BATCH", "7").output().unwrap().status.success());
    let status = |running: &dyn Fn(&str) -> bool| {
        let deadline = tokio::time::Instant::now() + super::PATIENCE;
        loop {
            let mut command = stage.millrace.command(&["status"]);
            let seen = command.env("BATCH", "7").output().unwrap();
            let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
            if running(&seen) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{seen}");
        }
    };
    status(&|seen| {
        seen.contains("running") && seen.contains("cannot run all of generation 2") && seen.contains("BATCH")
    });
    stage.write(&[Copy::of("one", "in", "one")]);
    stage.produce(0..10);
    let deadline = tokio::time::Instant::now() + super::PATIENCE;
    while stage.numbers("one") != times(10, 1) {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", stage.numbers("one"));
    }
    running.stop();
    // A process that starts says what it lacks, and does not begin.
    let ran = stage.millrace.run(&["run", "--listen", "off"]);
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(ran.stderr.contains("the variable 'BATCH' is not set"), "{ran:#?}");
}

/// While records flow, everybody can see how fast, and how late.
#[test]
fn status_shows_rates_and_latencies() {
    let stage = Stage::embedded();
    stage.write(&[Copy::of("one", "in", "one")]);
    stage.apply();
    let running = stage.follow();
    stage.until("rates are shown", |pipelines| {
        stage.produce(0..200);
        let pace = &pipelines[0]["pace"];
        let is_above_zero = |key: &str| pace[key].as_f64().is_some_and(|number| number > 0.0);
        ["records_per_s", "outputs_per_s", "p50_ms", "p99_ms"].into_iter().all(is_above_zero)
    });
    let table = stage.millrace.run(&["status"]).stdout;
    assert!(table.contains("generation 1"), "{table}");
    let modules = &stage.status()[0]["workers"][0]["modules"];
    assert!(modules.as_object().unwrap().is_empty(), "it has none: {modules:#}");
    running.stop();
}
