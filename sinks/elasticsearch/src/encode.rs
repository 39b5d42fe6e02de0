//! Messages to calls, purely: one call per message, so that each is answered for itself. How calls share a bulk
//! request is decided when they are sent.

use std::collections::BTreeMap;

use bytes::Bytes;
use indexmap::IndexMap;
use millrace_core::{
    Call, Encoded, Error, Message, Op, Result,
    views::{Change, FieldVersions, Index, IndexMode},
};
use serde_json::{Map, Value, json, value::RawValue};

use crate::mapping::{OWN_FIELD, is_own};

/// A whole document.
pub(crate) const REPLACE: &str = "replace";
/// A part of a document.
pub(crate) const MERGE: &str = "merge";
/// A document that goes for good.
pub(crate) const DELETE: &str = "delete";

/// An op, read back from the parts of a call: id and version, then for puts the document and, where single
/// fields have versions of their own, these.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub(crate) id: &'a str,
    pub(crate) version: i64,
    /// The document's JSON text, on one line; none: delete.
    pub(crate) document: Option<&'a str>,
    pub(crate) of_field: BTreeMap<&'a str, i64>,
}

/// The calls that messages ask for.
pub(crate) fn encode(index: &Index, messages: &[Message]) -> Encoded {
    let mut encoded = Encoded { calls: Vec::with_capacity(messages.len()), rejected: Vec::new() };
    for (place, message) in (0_u32..).zip(messages) {
        match call(index, place, message) {
            Ok(call) => encoded.calls.push(call),
            Err(error) => encoded.rejected.push((place, error)),
        }
    }
    encoded
}

/// What the system would see, for people.
pub(crate) fn describe(index: &Index, call: &Call) -> Value {
    let ops: Vec<Value> = call
        .ops
        .iter()
        .map(|op| {
            let mut shown = Map::from_iter([("index".to_owned(), Value::from(index.name.as_str()))]);
            for (name, part) in ["id", "version", "document", "versions"].iter().zip(&op.parts) {
                let text = String::from_utf8_lossy(part);
                let value = if *name == "id" { None } else { serde_json::from_str(&text).ok() };
                shown.insert((*name).to_owned(), value.unwrap_or_else(|| text.into()));
            }
            Value::Object(shown)
        })
        .collect();
    match <[Value; 1]>::try_from(ops) {
        Ok([op]) => json!({ call.kind: op }),
        Err(ops) => json!({ call.kind: ops }),
    }
}

impl<'a> Work<'a> {
    /// Reads an op back.
    ///
    /// # Errors
    /// Reject when the parts are not those of [`encode`].
    pub(crate) fn of(op: &'a Op) -> Result<Self> {
        let foreign = || Error::reject("elasticsearch call", "was not encoded by this sink");
        let text = |place: usize| op.parts.get(place).map(|part| std::str::from_utf8(part)).transpose();
        let parts = (text(0), text(1), text(2), text(3));
        let (Ok(Some(id)), Ok(Some(version)), Ok(document), Ok(versions)) = parts else {
            return Err(foreign());
        };
        let of_field = versions.map_or_else(|| Ok(BTreeMap::new()), serde_json::from_str);
        Ok(Work {
            id,
            version: version.parse().map_err(|_| foreign())?,
            document,
            of_field: of_field.map_err(|_| foreign())?,
        })
    }

    /// The document's fields as JSON text.
    pub(crate) fn fields(&self) -> Result<IndexMap<String, &'a RawValue>> {
        serde_json::from_str(self.document.unwrap_or("{}"))
            .map_err(|_| Error::reject("elasticsearch call", "was not encoded by this sink"))
    }
}

fn call(index: &Index, place: u32, message: &Message) -> Result<Call> {
    let effect = index.effect(message)?;
    let id = Bytes::from(effect.id);
    match effect.change {
        Change::Delete { version } => Ok(Call::single(DELETE, place, vec![id, version.to_string().into()])),
        Change::Put { fields, versions } => {
            let mut parts = vec![id, versions.version.to_string().into(), document(&fields)?];
            let kind = match index.mode {
                IndexMode::Replace => REPLACE,
                IndexMode::Merge => {
                    parts.extend(of_field(&versions));
                    MERGE
                }
            };
            Ok(Call::single(kind, place, parts))
        }
    }
}

/// The document as JSON on one line: a line end would end its line of the bulk request. Between the tokens of
/// JSON a space means the same, and within a string a bare line end is not JSON.
fn document(fields: &IndexMap<String, String>) -> Result<Bytes> {
    let bytes: usize = fields.iter().map(|(name, raw)| name.len() + raw.len() + 4).sum();
    let mut text = String::with_capacity(bytes + 2);
    for (name, raw) in fields {
        if is_own(name) {
            return Err(Error::reject(
                format!("field '{name}'"),
                format!("documents keep their versions under '{OWN_FIELD}'; name it otherwise"),
            ));
        }
        text.push(if text.is_empty() { '{' } else { ',' });
        text.push_str(&Value::from(name.as_str()).to_string());
        text.push(':');
        if raw.contains(['\n', '\r']) {
            text.extend(raw.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
        } else {
            text.push_str(raw);
        }
    }
    text.push('}');
    Ok(text.into())
}

fn of_field(versions: &FieldVersions) -> Option<Bytes> {
    (!versions.of_field.is_empty()).then(|| json!(versions.of_field).to_string().into())
}
