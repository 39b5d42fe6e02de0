//! Deployed modules: into the registry, out of it into pipelines, back and away again; on the embedded log and on Kafka.

#[path = "../crates/registry/tests/suite/mod.rs"]
mod suite;

use std::{process::Command, sync::Arc};

use millrace_core::settings::{Key, Location, Node, NodeKind, Problems, Settings};
use serde_json::Value;

use crate::support::{millrace::Millrace, modules::BREAKS, servers::required};

/// Keeps records with an `a` in them.
const KEEPS_A: &[u8] = include_bytes!("../smartmodules/dist/testing/plain-filter.wasm");
const COUNTS: &[u8] = include_bytes!("../smartmodules/dist/count-by.wasm");

/// A file with one pipeline, whose step is `uses`.
fn pipelines(broker: &str, prefix: &str, uses: &str, more: &str) -> String {
    format!(
        "version: 1
brokers: {{ main: {broker} }}
{more}
topics: {{ {prefix}lines: {{ broker: main, partitions: 1 }} }}
pipelines:
  through:
    from: {{ topic: {prefix}lines, format: bytes }}
    steps: [ {{ id: step, uses: {uses} }} ]
    to: {{ out: {{ stdout: {{}} }} }}
"
    )
}

/// Names of this test alone.
fn unique(test: &str) -> String {
    format!("{test}{:x}", std::process::id())
}

fn embedded(uses: &str, more: &str) -> Millrace {
    let millrace = Millrace::new();
    millrace.write("pipelines.yaml", pipelines("{ embedded: { dir: data } }", "", uses, more));
    millrace.write("keeps-a.wasm", KEEPS_A);
    millrace.write("lines.ndjson", "an apple\nthe rest\nbanana\n");
    millrace
}

/// A module with a section of `length` bytes that nothing compresses.
fn grown(length: usize, seed: u64) -> Vec<u8> {
    let mut section = vec![5];
    section.extend(b"noise");
    section.extend(suite::noise(length, seed));
    let mut wasm = KEEPS_A.to_vec();
    wasm.push(0);
    let mut rest = section.len();
    while rest >= 0x80 {
        wasm.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    wasm.push(rest as u8);
    wasm.extend(section);
    wasm
}

fn run(millrace: &Millrace, topic: &str) -> Vec<String> {
    millrace.ok(&["topic", "create", "--all"]);
    millrace.ok(&["topic", "produce", topic, "--file", "lines.ndjson"]);
    millrace.ok(&["run", "--until-end", "--listen", "off"]).stdout.lines().map(str::to_owned).collect()
}

fn deploy(millrace: &Millrace, file: &str, version: &str) {
    millrace.ok(&["smartmodule", "deploy", file, "--name", "keeps-a", "--version", version]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_log_keeps_modules() {
    let folder = tempfile::tempdir().unwrap();
    let settings = millrace_embedded::EmbeddedSettings { dir: folder.path().to_owned() };
    suite::run(Arc::new(millrace_embedded::EmbeddedBroker::new(settings)), "modules").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_modules() {
    let at = Location::default();
    let bootstrap = Node { at, kind: NodeKind::Scalar { text: required("KAFKA_BROKERS"), plain: true } };
    let node = Node { at, kind: NodeKind::Map(vec![(Key { at, text: "bootstrap".to_owned() }, bootstrap)]) };
    let mut problems = Problems::default();
    let options = millrace_kafka::Options::read(&Settings::new(node, "brokers.main"), &mut problems).unwrap();
    let broker = millrace_kafka::KafkaBroker::open("main", options).unwrap();
    suite::run(Arc::new(broker), &unique("modules")).await;
}

/// Past the megabyte that a broker accepts of one message unless it is told otherwise.
#[test]
fn a_module_of_three_megabytes_runs_on_kafka() {
    let prefix = unique("large");
    let broker = format!(
        "{{ kafka: {{ bootstrap: \"{}\", group_prefix: \"{prefix}.\" }} }}",
        required("KAFKA_BROKERS")
    );
    let millrace = Millrace::new();
    millrace.write("pipelines.yaml", pipelines(&broker, &prefix, "keeps-a@1.0.0", ""));
    millrace.write("large.wasm", grown(3 << 20, 1));
    millrace.write("lines.ndjson", "an apple\nthe rest\nbanana\n");
    let args = ["smartmodule", "deploy", "large.wasm", "--name", "keeps-a", "--version", "1.0.0", "--json"];
    let deployed: Value = serde_json::from_str(&millrace.ok(&args).stdout).unwrap();
    assert!(deployed["module"]["stored_bytes"].as_u64().unwrap() > 3 << 20, "{deployed}");
    assert_eq!(run(&millrace, &format!("{prefix}lines")), ["an apple", "banana"]);
}

/// From the first deploy to the last delete.
#[test]
fn a_module_is_deployed_used_rolled_back_and_deleted() {
    let millrace = embedded("keeps-a@latest", "");
    let nothing = millrace.run(&["run", "--until-end", "--listen", "off"]);
    assert!(nothing.stderr.contains("nothing is deployed"), "{nothing:?}");
    let doctor = millrace.run(&["doctor"]);
    assert!(
        doctor.stdout.contains("BAD  registry on main: through.step: module keeps-a@latest"),
        "{doctor:?}"
    );
    // The check reaches nothing.
    millrace.ok(&["check"]);
    deploy(&millrace, "keeps-a.wasm", "1.0.0");
    assert_eq!(run(&millrace, "lines"), ["an apple", "banana"]);
    let again = ["smartmodule", "deploy", "keeps-a.wasm", "--name", "keeps-a", "--version", "1.0.0"];
    assert!(millrace.ok(&again).stdout.contains("there already"));
    millrace.write("other.wasm", grown(10, 1));
    let taken =
        millrace.run(&["smartmodule", "deploy", "other.wasm", "--name", "keeps-a", "--version", "1.0.0"]);
    assert_eq!(taken.code, Some(1), "{taken:?}");
    assert!(taken.stderr.contains("taken by other code"), "{taken:?}");
    deploy(&millrace, "other.wasm", "1.1.0");
    let listed = millrace.ok(&["smartmodule", "list", "--json"]).stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (&listed[0]["latest"], &listed[0]["versions"][1]["version"]),
        (&"1.1.0".into(), &"1.0.0".into())
    );
    assert!(millrace.ok(&["doctor"]).stdout.contains("through.step: keeps-a@1.1.0"));
    let used = millrace.run(&["smartmodule", "delete", "keeps-a@1.1.0"]);
    assert!(used.code == Some(1) && used.stderr.contains("used by through.step"), "{used:?}");
    assert!(
        millrace.ok(&["smartmodule", "rollback", "keeps-a"]).stdout.contains("latest is 1.0.0, it was 1.1.0")
    );
    millrace.ok(&["smartmodule", "delete", "keeps-a@1.1.0"]);
    let gone = millrace.run(&["smartmodule", "inspect", "keeps-a@1.1.0"]);
    assert!(gone.code == Some(2) && gone.stderr.contains("versions: 1.0.0"), "{gone:?}");
    let inspected =
        millrace.ok(&["smartmodule", "inspect", "keeps-a@latest", "--input", "lines.ndjson", "--json"]);
    let inspected: Value = serde_json::from_str(&inspected.stdout).unwrap();
    assert_eq!(inspected["info"]["kind"], "filter");
    let (records, passed) = (&inspected["measured"]["records"], &inspected["measured"]["passed"]);
    assert_eq!(records.as_u64().unwrap() * 2, passed.as_u64().unwrap() * 3, "two of three lines have an a");
    assert!(inspected["measured"]["micros_per_record"].as_f64().unwrap() > 0.0);
}

/// A version that breaks on all it is given is replaced by the one before, and its records are not lost.
#[test]
fn a_version_that_fails_again_and_again_is_left() {
    let step = "keeps-a@latest, quarantine: { after: 2, then: previous }";
    let millrace = embedded(step, "");
    deploy(&millrace, "keeps-a.wasm", "1.0.0");
    assert_eq!(run(&millrace, "lines"), ["an apple", "banana"]);
    millrace.write("breaks.wasm", wat::parse_str(BREAKS).unwrap());
    deploy(&millrace, "breaks.wasm", "2.0.0");
    millrace.ok(&["topic", "produce", "lines", "--file", "lines.ndjson"]);
    let ran = millrace.ok(&["run", "--until-end", "--listen", "off"]);
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), ["an apple", "banana"], "{ran:?}");
    let said = "keeps-a@2.0.0";
    assert!(ran.stderr.contains("another version takes over") && ran.stderr.contains(said), "{ran:?}");
    // Without the version before it, or where it shall, it stops.
    let step = "keeps-a@2.0.0, quarantine: { after: 2 }";
    millrace.write("pipelines.yaml", pipelines("{ embedded: { dir: data } }", "", step, ""));
    millrace.ok(&["topic", "produce", "lines", "--file", "lines.ndjson"]);
    let ran = millrace.run(&["run", "--until-end", "--listen", "off"]);
    let why =
        "paused by quarantine: step step: keeps-a@2.0.0 failed on 2 records in a row, 2 of them: trapped";
    assert!(ran.code == Some(1) && ran.stderr.contains(why), "{ran:?}");
    assert!(millrace.run(&["status"]).stdout.contains("by quarantine: "));
}

#[test]
fn names_of_modules_are_resolved_under_other_names_and_errors_say_what_there_is() {
    let millrace = embedded("mine", "smartmodules: { mine: { registry: keeps-a@1.0.0 } }");
    deploy(&millrace, "keeps-a.wasm", "1.0.0");
    assert_eq!(run(&millrace, "lines"), ["an apple", "banana"]);
    millrace.write("pipelines.yaml", pipelines("{ embedded: { dir: data } }", "", "keeps-a@2.0.0", ""));
    let missing = millrace.run(&["run", "--until-end", "--listen", "off"]);
    assert!(missing.stderr.contains("versions: 1.0.0"), "{missing:?}");
    millrace.write("pipelines.yaml", pipelines("{ embedded: { dir: data } }", "", "keep-a@1.0.0", ""));
    let missing = millrace.run(&["run", "--until-end", "--listen", "off"]);
    assert!(missing.stderr.contains("keeps-a"), "{missing:?}");
}

#[test]
fn what_cannot_run_is_not_deployed() {
    let millrace = embedded("keeps-a@latest", "");
    let imports = r#"(module (import "env" "copy_records" (func (param i32 i32))) (import "env" "dial" (func))
        (memory (export "memory") 1)
        (func (export "alloc") (param i32) (result i32) (i32.const 0))
        (func (export "filter") (param i32 i32 i32) (result i32) (i32.const 0)))"#;
    let old = r#"(module (import "env" "copy_records" (func (param i32 i32))) (memory (export "memory") 1)
        (func (export "alloc") (param i32) (result i32) (i32.const 0))
        (func (export "filter") (param i32 i32) (result i32) (i32.const 0)))"#;
    millrace.write("imports.wasm", wat::parse_str(imports).unwrap());
    millrace.write("old.wasm", wat::parse_str(old).unwrap());
    millrace.write("none.wasm", wat::parse_str("(module)").unwrap());
    millrace.write("text.wasm", "no module");
    millrace.write("large.wasm", grown(10 << 20, 1));
    millrace.write("count-by.wasm", COUNTS);
    millrace.write("SmartModule.toml", include_str!("../smartmodules/count-by/SmartModule.toml"));
    let cases = [
        ("imports.wasm", "env.dial"),
        ("old.wasm", "older ABI"),
        ("none.wasm", "exports no transform"),
        ("text.wasm", "not a WebAssembly module"),
        ("large.wasm", "at most 10485760 are accepted"),
        ("count-by.wasm", "--param by=…"),
    ];
    for (file, why) in cases {
        let refused = millrace.run(&["smartmodule", "deploy", file]);
        assert_eq!(refused.code, Some(2), "{file}: {refused:?}");
        assert!(refused.stderr.contains(why), "{file}: {refused:?}");
    }
    // With its parameter it is, under the name and version of the file beside it.
    let deployed = millrace.ok(&["smartmodule", "deploy", "count-by.wasm", "--param", "by=payload.kind"]);
    assert!(deployed.stdout.starts_with("count-by@0.1.0: deployed"), "{deployed:?}");
}

#[test]
fn a_worker_that_requires_signatures_refuses_others() {
    let required = "require_signature: { keys: [ key.pub ] }";
    let millrace = embedded("keeps-a@1.0.0", required);
    millrace.write("key.pem", suite::PRIVATE_KEY);
    millrace.write("key.pub", suite::PUBLIC_KEY);
    deploy(&millrace, "keeps-a.wasm", "1.0.0");
    let refused = millrace.run(&["run", "--until-end", "--listen", "off"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("is not signed"), "{refused:?}");
    assert!(millrace.run(&["doctor"]).stdout.contains("is not signed"));
    let signed = ["smartmodule", "deploy", "keeps-a.wasm", "--name", "keeps-a", "--version", "1.0.1"];
    millrace.ok(&[&signed[..], &["--sign-key", "key.pem"]].concat());
    millrace.write("pipelines.yaml", pipelines("{ embedded: { dir: data } }", "", "keeps-a@1.0.1", required));
    assert_eq!(run(&millrace, "lines"), ["an apple", "banana"]);
    millrace.write("key.pub", "no key");
    let refused = millrace.run(&["run", "--until-end", "--listen", "off"]);
    assert!(refused.stderr.contains("is no public key"), "{refused:?}");
    let file = pipelines(
        "{ embedded: { dir: data } }",
        "",
        "x",
        &format!("{required}\nsmartmodules: {{ x: {{ file: keeps-a.wasm }} }}"),
    );
    millrace.write("pipelines.yaml", file);
    assert!(millrace.run(&["check"]).stderr.contains("a file is not signed"));
}

/// The code of every template passes its own tests on this machine; that it compiles to a module is shown where there
/// is a toolchain for it.
#[test]
fn new_crates_pass_their_tests() {
    for kind in ["filter", "map", "filter-map", "array-map", "aggregate"] {
        let millrace = Millrace::new();
        millrace.ok(&["smartmodule", "new", "my-module", "--kind", kind]);
        let folder = millrace.path().join("my-module");
        let tests = folder.join("tests-of-code");
        let rustc = Command::new("rustc")
            .args(["--edition", "2024", "--test", "src/lib.rs", "-o"])
            .arg(&tests)
            .current_dir(&folder)
            .output()
            .unwrap();
        assert!(rustc.status.success(), "{kind}: {}", String::from_utf8_lossy(&rustc.stderr));
        assert!(Command::new(&tests).output().unwrap().status.success(), "{kind}");
        let taken = millrace.run(&["smartmodule", "new", "my-module"]);
        assert_eq!(taken.code, Some(2), "{taken:?}");
    }
}

#[test]
fn golden_cases_of_a_module_are_run_and_updated() {
    let millrace = embedded("keeps-a@latest", "");
    millrace.write("SmartModule.toml", "[package]\nname = \"keeps-a\"\nversion = \"1.0.0\"\n");
    millrace.write("cases/fruit.input.ndjson", "an apple\nthe rest\nbanana\n");
    let missing = millrace.run(&["smartmodule", "test"]);
    assert!(missing.code == Some(2) && missing.stderr.contains("--update"), "{missing:?}");
    millrace.ok(&["smartmodule", "test", "--update"]);
    assert!(millrace.ok(&["smartmodule", "test"]).stdout.starts_with("ok"));
    millrace.write(
        "cases/fruit.expected.json",
        r#"{"passed": [{"line": 1, "value": "an apple"}], "rejected": []}"#,
    );
    let differs = millrace.run(&["smartmodule", "test"]);
    assert!(
        differs.code == Some(1) && differs.stderr.contains("+ ") && differs.stderr.contains("banana"),
        "{differs:?}"
    );
}
