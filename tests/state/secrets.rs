//! What variables hold stays in the process: no topic, no hash and no diff has it.

use std::path::Path;

use super::{Copy, Stage, json};

const CANARY: &str = "canary-7f3a9c";

const HOOK: &str = r#"version: 1
brokers: { main: { kafka: { bootstrap: "localhost:9092" } } }
stores: { views: { redis: { url: "redis://localhost:6379" } } }
topics: { in: { broker: main, partitions: 1 } }
pipelines:
  p:
    from: { topic: in }
    to:
      hook: { webhook: { url: "https://hooks.example/a", secret: SECRET, ledger: views, headers: { x-token: "${CANARY}" } } }
"#;

/// Every file below a folder, as bytes.
fn holds(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holds(&path, text));
        } else if std::fs::read(&path).unwrap().windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn what_a_variable_holds_reaches_no_topic_hash_or_diff() {
    let stage = Stage::embedded();
    stage.millrace.write("pipelines.yaml", HOOK.replace("SECRET", "\"${CANARY}\""));
    let with = |canary: &str, args: &[&str]| {
        let ran = stage.millrace.command(args).env("CANARY", canary).output().unwrap();
        let said = [ran.stdout, ran.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(ran.status.success(), "{said}");
        assert!(!said.contains(canary), "{said}");
        said
    };
    let plan = ["plan", "-f", "pipelines.yaml", "--embedded", "--json"];
    assert_eq!(with(CANARY, &plan), with("another-canary-1", &plan), "the hash does not depend on it");
    with(CANARY, &["plan", "-f", "pipelines.yaml", "--embedded"]);
    with(CANARY, &["apply", "-f", "pipelines.yaml", "--embedded"]);
    stage.millrace.write(
        "pipelines.yaml",
        HOOK.replace("SECRET", "\"${CANARY}\"").replace("https://hooks.example/a", "https://hooks.example/b"),
    );
    let changed = with(CANARY, &["plan", "-f", "pipelines.yaml", "--embedded"]);
    assert!(changed.contains("to.hook.webhook.url"), "{changed}");
    with(CANARY, &["apply", "-f", "pipelines.yaml", "--embedded"]);
    // In the database, in its write-ahead log, or in both.
    assert!(
        !holds(&stage.millrace.path().join(".millrace"), "hooks.example/b").is_empty(),
        "the log is looked at"
    );
    assert_eq!(holds(stage.millrace.path(), CANARY), Vec::<String>::new());
}

#[test]
fn a_secret_in_the_file_itself_is_refused_and_not_shown() {
    let stage = Stage::embedded();
    for secret in [CANARY.to_owned(), format!("\"${{NAME:-{CANARY}}}\"")] {
        stage.millrace.write("pipelines.yaml", HOOK.replace("SECRET", &secret));
        for command in ["plan", "apply"] {
            let ran = stage
                .millrace
                .command(&[command, "-f", "pipelines.yaml", "--embedded"])
                .env("CANARY", "x")
                .output();
            let ran = ran.unwrap();
            let said = String::from_utf8_lossy(&ran.stderr).into_owned();
            assert_eq!(ran.status.code(), Some(2), "{said}");
            assert!(
                said.contains("a secret stands in the file") && said.contains("p.to.hook.webhook.secret"),
                "{said}"
            );
            assert!(ran.stdout.is_empty() && !said.contains(CANARY), "{said}");
        }
    }
    assert!(!stage.millrace.path().join(".millrace").exists(), "nothing was written");
}

/// Another process would not find them.
#[test]
fn modules_of_this_machine_are_refused() {
    let stage = Stage::embedded();
    stage.write(&[Copy { more: "steps: [{ id: s, uses: mine }]", ..Copy::of("one", "in", "one") }]);
    let file = stage.millrace.path().join("pipelines.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    stage.millrace.write("mine.wasm", b"\0asm\x01\0\0\0");
    stage.millrace.write(
        "pipelines.yaml",
        text.replace("topics:", "smartmodules: { mine: { file: mine.wasm } }\ntopics:"),
    );
    let plan = json(&stage.ok(&["plan", "-f", "pipelines.yaml", "--json"]));
    assert!(plan["notes"][0].as_str().unwrap().contains("mine"), "{plan:#}");
    let refused = stage.run(&["apply", "-f", "pipelines.yaml"]);
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.stderr.contains("deploy them first"), "{refused:#?}");
}
