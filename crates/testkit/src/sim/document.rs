//! A stored document: its fields with their versions, or the mark that it was deleted.

use std::collections::BTreeMap;

use bytes::Bytes;
use millrace_core::views::{Change, FieldVersions};
use serde_json::Value;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) deleted: bool,
    /// Of a document that is replaced as a whole.
    pub(super) version: Option<i64>,
    fields: BTreeMap<String, (i64, String)>,
}

impl Stored {
    /// Per field the higher version wins, at equal versions the greater text; a delete wins over all.
    pub(super) fn merge(&mut self, change: &Change) {
        match change {
            Change::Delete { .. } => self.delete(),
            Change::Put { fields, versions } if !self.deleted => {
                for (name, text) in fields {
                    let new = (versions.of(name), text.clone());
                    let known = self.fields.entry(name.clone()).or_insert_with(|| new.clone());
                    if (new.0, new.1.as_bytes()) > (known.0, known.1.as_bytes()) {
                        *known = new;
                    }
                }
            }
            Change::Put { .. } => {}
        }
    }

    /// The higher version wins; a delete wins over all.
    pub(super) fn replace(&mut self, change: &Change) {
        match change {
            Change::Delete { .. } => self.delete(),
            Change::Put { fields, versions } => {
                if !self.deleted && self.version.is_none_or(|version| version < versions.version) {
                    self.version = Some(versions.version);
                    let field = |(name, text): (&String, &String)| (name.clone(), (0, text.clone()));
                    self.fields = fields.iter().map(field).collect();
                }
            }
        }
    }

    fn delete(&mut self) {
        *self = Stored { deleted: true, ..Stored::default() };
    }

    /// The document as JSON text; none if it is deleted.
    pub(super) fn json(&self) -> Option<String> {
        let field =
            |(name, (_, text)): (&String, &(i64, String))| format!("{}:{text}", Value::from(name.as_str()));
        let fields: Vec<String> = self.fields.iter().map(field).collect();
        (!self.deleted).then(|| format!("{{{}}}", fields.join(",")))
    }
}

/// Writes a change as parts of an operation.
pub(super) fn to_parts(change: &Change) -> Vec<Bytes> {
    match change {
        Change::Delete { version } => vec!["delete".into(), version.to_string().into()],
        Change::Put { fields, versions } => {
            let mut parts: Vec<Bytes> = vec!["put".into(), versions.version.to_string().into()];
            for (name, text) in fields {
                let of_field = versions.of_field.get(name).map(ToString::to_string).unwrap_or_default();
                parts.extend([name.clone().into(), of_field.into(), text.clone().into()]);
            }
            parts
        }
    }
}

/// Reads it again.
pub(super) fn of_parts(parts: &[Bytes]) -> Change {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let version = parts.get(1).and_then(|part| text(part).parse().ok()).unwrap_or_default();
    if parts.first().is_some_and(|verb| verb == "delete") {
        return Change::Delete { version };
    }
    let mut versions = FieldVersions { version, of_field: BTreeMap::new() };
    let mut fields = indexmap::IndexMap::new();
    for field in parts.get(2..).unwrap_or_default().chunks_exact(3) {
        if let Ok(version) = text(&field[1]).parse() {
            versions.of_field.insert(text(&field[0]), version);
        }
        fields.insert(text(&field[0]), text(&field[2]));
    }
    Change::Put { fields, versions }
}
