//! An upgrade: the program of the previous commit and this one share groups, the control topic and the registry.
//!
//! `MILLRACE_PREVIOUS` names the other program, which `scripts/previous` builds; without it this one stands in for it.

use serde_json::Value;

use crate::{
    state::{Copy, Stage, times},
    support::running::Running,
};

const KEEPS_A: &[u8] = include_bytes!("../smartmodules/dist/testing/plain-filter.wasm");

/// The other program, on the folder of a stage.
struct Previous<'a>(&'a Stage);

impl Previous<'_> {
    fn command(&self, args: &[&str]) -> std::process::Command {
        let program = std::env::var_os("MILLRACE_PREVIOUS").filter(|path| !path.is_empty());
        self.0.millrace.command_of(program.as_deref(), args)
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn follow(&self) -> Running {
        Running::start(self.command(&["run", "--listen", "127.0.0.1:0"]))
    }
}

#[test]
fn two_adjacent_versions_work_together() {
    let stage = Stage::kafka("upgrade");
    let previous = Previous(&stage);
    // All of it by the former version, first.
    stage.write(&[Copy::of("one", "in", "one")]);
    previous.ok(&["apply", "-f", "pipelines.yaml"]);
    let old = previous.follow();
    stage.produce(0..500);
    stage.until_done(&["one"], 1);

    // The new one joins, and they share the partitions.
    let new = stage.follow();
    stage.until("both run", |pipelines| {
        pipelines[0]["workers"].as_array().unwrap().len() == 2 && pipelines[0]["state"] == "running"
    });
    stage.produce(500..1_500);
    stage.until_done(&["one"], 1);
    assert_eq!(stage.numbers("one"), times(1_500, 1));

    // Each obeys the other's operator.
    stage.millrace.ok(&["pause", "one", "--reason", "by the new one"]);
    let is_paused = |pipelines: &[Value]| {
        let workers = pipelines[0]["workers"].as_array().unwrap();
        workers.len() == 2 && workers.iter().all(|worker| worker["state"] == "paused")
    };
    stage.until("both are paused", is_paused);
    previous.ok(&["resume", "one"]);
    stage.write(&[Copy { more: "batch: { records: 7 }", ..Copy::of("one", "in", "one") }]);
    stage.apply();
    stage.produce(1_500..2_000);
    stage.until_done(&["one"], 2);
    let workers = stage.status()[0]["workers"].as_array().unwrap().len();
    assert_eq!(workers, 2, "both have taken it up");
    assert_eq!(stage.numbers("one"), times(2_000, 1));

    // The new one takes over from a former one that is killed, and the other way round: an upgrade is taken back.
    stage.produce(2_000..2_500);
    old.kill();
    stage.until("the new one has all", |pipelines| pipelines[0]["lag"] == 0);
    let old = previous.follow();
    stage.produce(2_500..3_000);
    new.stop();
    stage.produce(3_000..3_500);
    stage.until("the former one has all", |pipelines| pipelines[0]["lag"] == 0);
    assert_eq!(stage.numbers("one"), times(3_500, 1));
    old.stop();
}

#[test]
fn two_adjacent_versions_share_a_registry() {
    let stage = Stage::kafka("upgrade-modules");
    let previous = Previous(&stage);
    stage.millrace.write("keeps-a.wasm", KEEPS_A);
    let deploy =
        |version| ["smartmodule", "deploy", "keeps-a.wasm", "--name", "keeps-a", "--version", version];
    previous.ok(&deploy("1.0.0"));
    stage.millrace.ok(&["smartmodule", "inspect", "keeps-a@1.0.0"]);
    stage.millrace.ok(&deploy("1.1.0"));
    let listed: Value = serde_json::from_str(&previous.ok(&["smartmodule", "list", "--json"])).unwrap();
    assert_eq!(listed[0]["latest"], "1.1.0", "{listed:#}");
    previous.ok(&["smartmodule", "inspect", "keeps-a@latest"]);
    previous.ok(&["smartmodule", "rollback", "keeps-a"]);
    let listed: Value =
        serde_json::from_str(&stage.millrace.ok(&["smartmodule", "list", "--json"]).stdout).unwrap();
    assert_eq!(listed[0]["latest"], "1.0.0", "{listed:#}");
}
