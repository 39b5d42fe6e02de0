//! What each command prints and how it ends: snapshots of the real binary.

use std::io::Write;

use crate::support::millrace::Millrace;

const PIPELINES: &str = include_str!("../pipelines.yaml");

/// Eight different mistakes.
const EIGHT_MISTAKES: &str = r#"version: 1
brokers:
  main: { kafka: { bootstrap: "localhost:9092", compresion: lz4 } }
stores:
  feeds: { redis: { url: "redis://localhost:6379" } }
topics:
  events: { broker: main, partitions: many }
pipelines:
  feed:
    from: { topic: event }
    steps:
      - { id: visible, uses: visible-post }
      - { id: fanout, uses: feed-fanout, with: { form: followers } }
    to:
      feeds: { timeline: { store: feed, key: "feed:{folower}", member: "{post_id}", score: "{created_at}" } }
  counts:
    from: { topic: events }
    to: { seen: { counter: { store: feeds, key: "seen", ledger: 1d } } }
"#;

fn stage() -> Millrace {
    let millrace = Millrace::new();
    millrace.write("pipelines.yaml", PIPELINES);
    millrace
}

#[test]
fn help_lists_every_command() {
    insta::assert_snapshot!(stage().run(&["--help"]).snapshot());
}

#[test]
fn a_good_file_has_no_mistakes() {
    insta::assert_snapshot!(stage().run(&["check"]).snapshot());
}

#[test]
fn eight_mistakes_are_eight_located_diagnostics() {
    let millrace = Millrace::new();
    millrace.write("pipelines.yaml", EIGHT_MISTAKES);
    let ran = millrace.run(&["check"]);
    assert_eq!(ran.code, Some(2));
    insta::assert_snapshot!(ran.snapshot());
    let json = millrace.run(&["check", "--json"]);
    assert_eq!(json.code, Some(2));
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["problems"].as_array().unwrap().len(), 8, "{report:#}");
}

#[test]
fn a_missing_file_says_what_to_do() {
    insta::assert_snapshot!(Millrace::new().run(&["run"]).snapshot());
}

#[test]
fn unknown_names_come_with_a_suggestion() {
    let millrace = stage();
    insta::assert_snapshot!(millrace.run(&["run", "--embedded", "--only", "home-fed"]).snapshot());
    insta::assert_snapshot!(millrace.run(&["topic", "tail", "content-event", "--embedded"]).snapshot());
}

#[test]
fn systems_that_are_away_end_with_three() {
    let millrace = stage()
        .env("KAFKA_BROKERS", "127.0.0.1:9")
        .env("REDIS_URL", "redis://127.0.0.1:9")
        .env("ES_URL", "http://127.0.0.1:9");
    let ran = millrace.run(&["doctor", "--timeout-ms", "3000"]);
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    for system in ["broker main", "store feeds", "store search"] {
        assert!(ran.stdout.contains(&format!("BAD  {system}: ")), "{ran:#?}");
    }
}

#[test]
fn a_topic_that_is_not_there_ends_a_run_with_three() {
    let millrace = stage();
    for mode in [&["--until-end"][..], &[]] {
        let ran =
            millrace.run(&[&["run", "--embedded", "--listen", "off", "--only", "orders"], mode].concat());
        assert_eq!(ran.code, Some(3), "{ran:#?}");
        let advice =
            "topic 'order-events' does not exist; create it with 'millrace topic create order-events'";
        assert!(ran.stderr.contains(advice), "{ran:#?}");
    }
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let millrace = Millrace::new();
    millrace.write("pipelines.yaml", "# ".repeat(1 << 20));
    let ran = millrace.run(&["check"]);
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(ran.stderr.contains("is larger than the 1048576 bytes that are allowed"), "{ran:#?}");
}

#[test]
fn the_doctor_is_content_with_the_embedded_form() {
    let millrace = stage();
    millrace.ok(&["topic", "create", "--all", "--embedded"]);
    millrace.ok(&["doctor", "--embedded"]);
}

#[test]
fn the_schema_accepts_the_reference_pipelines() {
    let schema: serde_json::Value = serde_json::from_str(&Millrace::new().ok(&["schema"]).stdout).unwrap();
    assert!(jsonschema::meta::is_valid(&schema), "the schema is no JSON Schema");
}

#[test]
fn the_committed_schema_is_the_one_of_this_program() {
    let schema = Millrace::new().ok(&["schema"]).stdout;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/pipelines.schema.json");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &schema).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(
        committed == schema,
        "run this test with UPDATE=1: docs/reference/pipelines.schema.json is out of date"
    );
}

#[test]
fn topics_are_created_filled_listed_and_read() {
    let millrace = stage();
    insta::assert_snapshot!("create", millrace.run(&["topic", "create", "--all", "--embedded"]).snapshot());
    insta::assert_snapshot!(
        "create-again",
        millrace.run(&["topic", "create", "order-events", "--embedded"]).snapshot()
    );
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(2 << 20));
    millrace.write("lines.ndjson", format!("{{\"k\":\"one\"}}\n{long}\nnot json\n"));
    let produce = ["topic", "produce", "order-events", "--embedded", "--key", "k", "--file", "lines.ndjson"];
    let produced = millrace.run(&produce);
    insta::assert_snapshot!("produce", produced.snapshot());
    insta::assert_snapshot!("list", millrace.run(&["topic", "list", "--embedded"]).snapshot());
    let tail = ["topic", "tail", "order-events", "--embedded", "--from", "beginning", "--until-end"];
    let mut lines: Vec<String> = millrace.ok(&tail).stdout.lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["not json", "{\"k\":\"one\"}"]);
}

#[test]
fn a_closed_pipe_ends_silently() {
    let millrace = stage();
    millrace.ok(&["topic", "create", "--all", "--embedded"]);
    let lines: String = (0..50_000).map(|i| format!("{{\"number\":{i}}}\n")).collect();
    millrace.write("lines.ndjson", lines);
    millrace.ok(&["topic", "produce", "order-events", "--embedded", "--file", "lines.ndjson"]);
    let tail = ["topic", "tail", "order-events", "--embedded", "--from", "beginning", "--until-end"];
    let mut child = millrace
        .command(&tail)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()),
        (Some(0), String::new())
    );
}

#[test]
fn nobody_reading_the_log_is_no_failure() {
    let millrace = stage();
    millrace.ok(&["topic", "create", "--all", "--embedded"]);
    millrace.write("lines.ndjson", "not json\n");
    millrace.ok(&["topic", "produce", "order-events", "--embedded", "--file", "lines.ndjson"]);
    let run = ["run", "--embedded", "--until-end", "--listen", "off", "--only", "orders"];
    let mut child = millrace.command(&run).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn produce_can_be_stopped_while_its_input_is_idle() {
    let millrace = stage();
    millrace.ok(&["topic", "create", "--all", "--embedded"]);
    let produce = ["topic", "produce", "order-events", "--embedded", "--file", "-"];
    let piped = std::process::Stdio::piped;
    let mut child =
        millrace.command(&produce).stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines: String = (0..1_000).map(|i| format!("{{\"number\":{i}}}\n")).collect();
    input.write_all(lines.as_bytes()).unwrap();
    // The first thousand are appended together; when they can be read, the next have not come.
    let tail = ["topic", "tail", "order-events", "--embedded", "--from", "beginning", "--until-end"];
    let arrived = (0..1_000).any(|_| millrace.ok(&tail).stdout.lines().count() == 1_000);
    assert!(arrived, "{:?}", child.try_wait());
    assert!(std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("stopped before the end of the input"), "{stderr}");
    drop(input);
}

#[test]
fn one_process_runs_on_an_embedded_folder() {
    let millrace = stage();
    millrace.ok(&["topic", "create", "--all", "--embedded"]);
    let mut command = millrace.command(&["run", "--embedded", "--listen", "127.0.0.1:0"]);
    let mut first = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = std::io::BufReader::new(first.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert!(line.contains("metrics on http://127.0.0.1:"), "{line}");
    let second = millrace.run(&["run", "--embedded", "--until-end", "--listen", "off"]);
    assert_eq!(second.code, Some(3), "{second:#?}");
    assert!(second.stderr.contains(&first.id().to_string()), "{second:#?}");
    assert!(std::process::Command::new("kill").arg(first.id().to_string()).status().unwrap().success());
    assert_eq!(first.wait().unwrap().code(), Some(0));
}
