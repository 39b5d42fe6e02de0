//! The JSON Schema says yes to what the check says yes to, and no to wrong shapes.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use millrace_config::{parse, schema};
use serde_json::Value;
use support::{catalog, plan_of, to_json};

const REFERENCE: &str = include_str!("../../../pipelines.yaml");

fn validator() -> jsonschema::Validator {
    let schema = schema(&catalog());
    jsonschema::meta::validate(&schema).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

fn json(text: &str) -> Value {
    to_json(&parse(text).unwrap())
}

#[test]
fn the_reference_pipelines_fit() {
    let errors: Vec<_> = validator()
        .iter_errors(&json(REFERENCE))
        .map(|e| format!("{} at {}", e, e.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn variables_may_stand_where_numbers_stand() {
    let text = r#"
version: "1"
brokers: { main: { kafka: { bootstrap: "${A:-x}", timeout: "${B:-1s}", tls: "${C:-true}" } }, log: { embedded: } }
stores: { feeds: { redis: { url: x, pool: "${D:-4}" } } }
topics: { posts: { broker: main, partitions: "${E:-3}", max_record_bytes: "${F:-1MiB}", retention_bytes: 1000000 } }
pipelines:
  p:
    from: { topic: posts, format: "${G:-json}" }
    to: { n: { counter: { store: feeds, key: "n:{bizId}", by: 2 } }, out: { stdout: } }
    retry:
"#;
    plan_of(text).unwrap();
    let errors: Vec<_> = validator().iter_errors(&json(text)).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[test]
fn wrong_shapes_do_not_fit() {
    let changes = [
        ("version: 1", "version: 2"),
        ("partitions: 6", "partitons: 6"),
        ("partitions: 6", "partitions: many"),
        ("partitions: 6", "partitions: 0"),
        ("retention: 168h", "retention: 168"),
        ("content: text", "content: txt"),
        ("{ kafka: {", "{ kafak: {"),
        ("mode: merge", "mode: mix"),
        ("keep: 800", "keep: lots"),
        ("op: { add:", "op: { insert:"),
        ("uses: feed-fanout", "use: feed-fanout"),
        ("timeline:", "time-line:"),
        ("store: search", "stroe: search"),
        ("  follows:", "  \"who follows\":"),
        ("  posts:\n    fields:", "  Posts:\n    fields:"),
    ];
    let validator = validator();
    for (from, to) in changes {
        let text = REFERENCE.replacen(from, to, 1);
        assert_ne!(text, REFERENCE, "'{from}' is not in the file");
        assert!(!validator.is_valid(&json(&text)), "'{to}' fits the schema");
        plan_of(&text).expect_err(to);
    }
}

#[test]
fn every_key_is_described_and_defaults_fit() {
    fn walk(value: &Value, path: &str, seen: &mut usize) {
        if let Some(properties) = value.get("properties").and_then(Value::as_object) {
            for (key, property) in properties {
                let described = property.get("description").is_some() || property.get("$ref").is_some();
                assert!(described || path.ends_with("/anyOf/2"), "{path}/{key} has no description");
                *seen += 1;
            }
        }
        let Value::Object(entries) = value else {
            if let Value::Array(items) = value {
                items
                    .iter()
                    .enumerate()
                    .for_each(|(index, item)| walk(item, &format!("{path}/{index}"), seen));
            }
            return;
        };
        if let Some(default) = entries.get("default") {
            let own =
                serde_json::json!({ "anyOf": entries.get("anyOf").cloned().unwrap_or(Value::Bool(false)) });
            let plain = entries.get("pattern").map(|_| value.clone());
            let fits = |schema: &Value| jsonschema::is_valid(schema, default);
            let checked = entries.contains_key("anyOf") || plain.is_some();
            assert!(
                !checked || plain.as_ref().map_or_else(|| fits(&own), fits),
                "{path}: the default does not fit"
            );
        }
        for (key, inner) in entries {
            walk(inner, &format!("{path}/{key}"), seen);
        }
    }
    let mut seen = 0;
    walk(&schema(&catalog()), "", &mut seen);
    assert!(seen > 100, "only {seen} keys");
}
