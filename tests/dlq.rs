//! Dead letters looked at, mended, replayed and discarded: with a poison record in every place of a pipeline, on
//! the embedded form and on real servers.

mod handling;
mod places;

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{
    millrace::{Millrace, Ran},
    servers::Embedded,
};

/// One pipeline, whose step takes the document's id from a payload's field.
fn documents(field: &str) -> String {
    format!(
        r#"version: 1
brokers: {{ main: {{ embedded: {{}} }} }}
stores: {{ views: {{ embedded: {{}} }} }}
topics: {{ things: {{ broker: main, partitions: 2 }} }}
pipelines:
  documents:
    from: {{ topic: things }}
    steps: [ {{ id: document, uses: search-document, with: {{ id: {field} }} }} ]
    to:
      posts: {{ document: {{ store: views, key: "post:{{id}}", version: "{{version}}", document: "{{document}}" }} }}
      seen: {{ counter: {{ store: views, key: "unread:seen" }} }}
"#
    )
}

fn thing(number: u32) -> String {
    json!({
        "eventId": format!("e{number}"), "eventType": "test.thing.made.v1", "occurredAt": "2026-01-01T00:00:00Z",
        "payload": { "thing": format!("t{number}"), "version": 1 }
    })
    .to_string()
}

/// A folder with a file, its topics, and records in `things`, keyed by the thing.
fn stage(pipelines: &str, lines: &[String]) -> Millrace {
    let millrace = Millrace::new().env("USER", "ann");
    millrace.write("pipelines.yaml", pipelines);
    millrace.ok(&["topic", "create", "--all"]);
    produce(&millrace, lines);
    millrace
}

fn produce(millrace: &Millrace, lines: &[String]) {
    millrace.write("lines.ndjson", lines.join("\n"));
    millrace.ok(&["topic", "produce", "things", "--key", "payload.thing", "--file", "lines.ndjson"]);
}

fn run(millrace: &Millrace) {
    millrace.ok(&["run", "--until-end", "--listen", "off"]);
}

fn letters(millrace: &Millrace, more: &[&str]) -> Vec<Value> {
    let ran = millrace.ok(&[&["dlq", "list", "--json"], more].concat());
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(letters: &[Value]) -> Vec<&str> {
    letters.iter().map(|letter| letter["id"].as_str().unwrap()).collect()
}

fn views(millrace: &Millrace) -> Embedded {
    Embedded::open(&millrace.path().join(".millrace"))
}

/// A snapshot without the times and digests in it.
fn masked(ran: &Ran) -> String {
    let snapshot = ran.snapshot();
    let mut text = String::new();
    let mut rest = snapshot.as_str();
    let digits = |text: &str, shape: &str| {
        text.len() >= shape.len()
            && text
                .bytes()
                .zip(shape.bytes())
                .all(|(b, s)| if s == b'0' { b.is_ascii_digit() } else { b == s })
    };
    while let Some(first) = rest.chars().next() {
        let hex = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits(rest, "0000-00-00T00:00:00Z") && !rest.starts_with("2026-01-01") {
            text.push_str("0000-00-00T00:00:00Z");
            rest = &rest["0000-00-00T00:00:00Z".len()..];
        } else if hex == 64 {
            text.push_str("[SHA256]");
            rest = &rest[64..];
        } else {
            text.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    text
}

/// A process that ends with its test.
struct Running(std::process::Child);

impl Running {
    fn start(millrace: &Millrace, args: &[&str]) -> Self {
        Running(millrace.command(args).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which its test has seen.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
