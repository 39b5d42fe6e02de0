//! What lies in the index: a document's fields as the events wrote them, and beside them the object `millrace`
//! with the versions. The order in which changes are applied does not show in the result.

use std::{cmp::Ordering, collections::HashMap, fmt::Write};

use indexmap::IndexMap;
use millrace_core::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{encode::Work, mapping::OWN_FIELD};

/// A merged document may grow to this many fields.
const FIELDS_MAX: usize = 10_000;

/// A document that is being merged. Borrows the texts of the stored one and of the changes.
#[derive(Debug, Default)]
pub(crate) struct Document<'a> {
    fields: IndexMap<String, Cell<'a>>,
    /// The version of the delete.
    deleted: Option<i64>,
    changed: bool,
}

/// A field: its version, and its JSON text as it stood in the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell<'a> {
    version: i64,
    text: &'a str,
}

/// The object `millrace`. `version` holds for every field that `versions` does not list.
#[derive(Deserialize)]
struct Own {
    #[serde(default)]
    deleted: bool,
    /// Fields that somebody else wrote are older than any event.
    #[serde(default = "before_all")]
    version: i64,
    #[serde(default)]
    versions: HashMap<String, i64>,
}

impl<'a> Document<'a> {
    /// A document as it is stored.
    ///
    /// # Errors
    /// Reject when it is none of ours: its versions cannot be read.
    pub(crate) fn stored(source: &'a RawValue) -> Result<Self> {
        let unreadable = || Error::reject("stored document", "its versions cannot be read");
        let mut fields: IndexMap<String, &'a RawValue> =
            serde_json::from_str(source.get()).map_err(|_| unreadable())?;
        let own = match fields.shift_remove(OWN_FIELD) {
            Some(own) => serde_json::from_str(own.get()).map_err(|_| unreadable())?,
            None => Own { deleted: false, version: before_all(), versions: HashMap::new() },
        };
        let fields = fields.into_iter().map(|(name, raw)| {
            let version = own.versions.get(&name).copied().unwrap_or(own.version);
            (name, Cell { version, text: raw.get() })
        });
        let fields = fields.collect();
        Ok(Document { fields, deleted: own.deleted.then_some(own.version), changed: false })
    }

    /// Applies a change: per field the higher version wins, at equal versions the bytewise greater text, and a
    /// delete wins over all.
    ///
    /// # Errors
    /// Reject when the document would get too many fields.
    pub(crate) fn apply(&mut self, work: &Work<'a>) -> Result<()> {
        if self.deleted.is_some() {
            return Ok(());
        }
        if work.document.is_none() {
            self.fields.clear();
            self.deleted = Some(work.version);
            self.changed = true;
            return Ok(());
        }
        for (name, raw) in work.fields()? {
            let version = work.of_field.get(name.as_str()).copied().unwrap_or(work.version);
            let given = Cell { version, text: raw.get() };
            match self.fields.get(&name) {
                Some(found) if given <= *found => continue,
                None if self.fields.len() == FIELDS_MAX => {
                    return Err(Error::reject(
                        "document",
                        format!("would have more than {FIELDS_MAX} fields"),
                    ));
                }
                _ => self.fields.insert(name, given),
            };
            self.changed = true;
        }
        Ok(())
    }

    /// What is to be stored; none when nothing changed.
    pub(crate) fn changed_source(&self) -> Option<Vec<u8>> {
        if !self.changed {
            return None;
        }
        if let Some(version) = self.deleted {
            return Some(tombstone(version));
        }
        let version = self.fields.values().map(|cell| cell.version).max().unwrap_or_default();
        let bytes: usize = self.fields.iter().map(|(name, cell)| name.len() + cell.text.len() + 8).sum();
        let mut text = String::with_capacity(bytes + 80);
        let mut versions = String::new();
        text.push('{');
        for (name, cell) in &self.fields {
            let name = Value::from(name.as_str()).to_string();
            if cell.version != version {
                let comma = if versions.is_empty() { "" } else { "," };
                write!(versions, "{comma}{name}:{}", cell.version).expect("invariant: a String takes all");
            }
            text.push_str(&name);
            text.push(':');
            text.push_str(cell.text);
            text.push(',');
        }
        write!(text, r#""{OWN_FIELD}":{{"deleted":false,"version":{version},"versions":{{{versions}}}}}}}"#)
            .expect("invariant: a String takes all");
        Some(text.into_bytes())
    }
}

impl PartialOrd for Cell<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Cell<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.version, self.text.as_bytes()).cmp(&(other.version, other.text.as_bytes()))
    }
}

/// A whole document as it is stored. `document` is a JSON object.
pub(crate) fn whole(document: &str, version: i64) -> Vec<u8> {
    let open = document.trim_end().strip_suffix('}').unwrap_or(document);
    let comma = if open.trim_end().ends_with('{') { "" } else { "," };
    format!(r#"{open}{comma}"{OWN_FIELD}":{{"deleted":false,"version":{version}}}}}"#).into_bytes()
}

/// What is left of a deleted document.
pub(crate) fn tombstone(version: i64) -> Vec<u8> {
    format!(r#"{{"{OWN_FIELD}":{{"deleted":true,"version":{version}}}}}"#).into_bytes()
}

fn before_all() -> i64 {
    -1
}

#[cfg(test)]
#[path = "document/tests.rs"]
mod tests;
