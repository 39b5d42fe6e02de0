//! Documents: one JSON string each for readers, with the version of every field beside it for the merge.

use std::{fmt::Write as _, sync::LazyLock};

use millrace_core::{
    Message, Ordinals,
    views::{Change, Document},
};

use crate::{
    calls::{Calls, Parts},
    script::Script,
    send::Writes,
};

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/document.lua")));

/// A merged document has at most this many fields; an event that would add more is rejected.
const FIELDS_MAX: usize = 1_000;

/// Writes a document.
pub(crate) struct DocumentWrites {
    view: Document,
    constants: [String; 3],
}

impl DocumentWrites {
    pub(crate) fn new(view: Document) -> Self {
        let ttl_ms = view.ttl.map_or(0, |ttl| ttl.as_millis());
        let constants = [ttl_ms.to_string(), view.ledger.as_millis().to_string(), FIELDS_MAX.to_string()];
        DocumentWrites { view, constants }
    }
}

impl Writes for DocumentWrites {
    fn kind(&self) -> &'static str {
        "document"
    }

    fn script(&self) -> &'static Script {
        &SCRIPT
    }

    fn keys_per_op(&self) -> usize {
        2
    }

    fn constants(&self) -> &[String] {
        &self.constants
    }

    fn encode(&self, messages: &[Message], _: &mut Ordinals, calls: &mut Calls) {
        for (place, message) in (0..).zip(messages) {
            match self.view.effect(message) {
                Ok(effect) => {
                    let arguments = match &effect.change {
                        Change::Put { fields, .. } => 2 + 3 * fields.len(),
                        Change::Delete { .. } => 1,
                    };
                    calls.push(place, &effect.key, &["fields"], arguments, |parts| {
                        write_change(parts, &effect.change);
                    });
                }
                Err(error) => calls.reject(place, error),
            }
        }
    }
}

fn write_change(parts: &mut Parts<'_>, change: &Change) {
    match change {
        Change::Delete { .. } => parts.word("delete"),
        Change::Put { fields, versions } => {
            parts.word("put");
            write_integer(parts, i64::try_from(fields.len()).unwrap_or(i64::MAX));
            for (name, text) in fields {
                // As JSON, so that the script can join names and values as they are.
                parts.text(&serde_json::Value::from(name.as_str()).to_string());
                write_integer(parts, versions.of(name));
                parts.text(text);
            }
        }
    }
}

fn write_integer(parts: &mut Parts<'_>, integer: i64) {
    parts.part(|buffer| {
        write!(buffer, "{integer}").expect("invariant: a buffer that grows takes any text");
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use millrace_core::settings::Problems;
    use millrace_testkit::{message::message, views_suite::settings};
    use serde_json::json;

    use super::*;
    use crate::send::tests::encoded;

    #[test]
    fn encodes_parts_with_their_versions_and_as_written() {
        let pairs = [
            ("key", "post:{id}"),
            ("op", "{op}"),
            ("version", "{v}"),
            ("document", "{doc}"),
            ("ttl", "1h"),
            ("ledger", "7d"),
        ];
        let writes =
            DocumentWrites::new(Document::read(&settings(&pairs), &mut Problems::default()).unwrap());
        let batch = [
            message(1, "1", r#"{"op":"put","id":"p1","v":3,"doc":{"tags":[ ],"n":1.10,"a\"b":null}}"#),
            message(2, "2", r#"{"op":"delete","id":"p1","v":4}"#),
            message(3, "3", r#"{"op":"put","id":"p1","v":3,"doc":7}"#),
        ];
        assert_eq!(writes.constants(), ["3600000", "604800000", "1000"]);
        let (calls, rejected) = encoded(writes, &batch);
        assert_eq!(
            calls,
            [json!({ "document": [
                ["post:p1", "fields:{post:p1}", "put", "3", "\"tags\"", "3", "[ ]", "\"n\"", "3", "1.10",
                 "\"a\\\"b\"", "3", "null"],
                ["post:p1", "fields:{post:p1}", "delete"],
            ] })]
        );
        assert_eq!(rejected, [2]);
    }
}
