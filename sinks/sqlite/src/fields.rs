//! The merge of a document: pure, and the same in every order of arrival. Per field the higher version wins, at
//! equal versions the greater text. The text of a value is never touched: digits and empty arrays stay.

use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
};

use bytes::Bytes;
use millrace_core::{Class, views::Change};
use millrace_sqlite_file::Failure;
use serde_json::{Value, json, value::RawValue};

use crate::calls::{Parts, foreign, integer_part};

/// A merged document has at most this many fields; a change that would add more is rejected.
const FIELDS_MAX: usize = 1_000;

/// A document's fields by name.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Fields<'a> {
    by_name: BTreeMap<Cow<'a, str>, Field<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Field<'a> {
    raw: &'a str,
    version: i64,
}

/// A document as it lies in its row.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) json: String,
    /// The highest of all fields.
    pub(crate) version: i64,
    /// A JSON object of the fields that have another one.
    pub(crate) versions: Option<String>,
}

/// What is known of a document.
pub(crate) enum Known {
    Nothing,
    Deleted,
    Document(Stored),
}

/// A change, read from an operation.
#[derive(Clone, Copy)]
pub(crate) enum ChangeOp<'a> {
    Put {
        /// A JSON object.
        document: &'a str,
        version: i64,
        /// A JSON object of single fields' versions, or nothing.
        versions: &'a str,
    },
    Delete {
        version: i64,
    },
}

impl<'a> Fields<'a> {
    /// The fields of a stored document.
    ///
    /// # Errors
    /// Fatal when the row was not written by this program.
    pub(crate) fn of(stored: &'a Stored) -> Result<Self, Failure> {
        let mut fields = Fields::default();
        let versions = stored.versions.as_deref().unwrap_or_default();
        fields.merge(&stored.json, stored.version, versions).map_err(|_| {
            Failure::new(Class::Fatal, "a stored document is damaged: its row was not written by millrace")
        })?;
        Ok(fields)
    }

    /// Merges a change; tells whether anything changed.
    ///
    /// # Errors
    /// Reject when the document would have too many fields; Fatal for what no sink encoded.
    pub(crate) fn merge(&mut self, document: &'a str, version: i64, versions: &str) -> Result<bool, Failure> {
        let fields: BTreeMap<Cow<'a, str>, &'a RawValue> =
            serde_json::from_str(document).map_err(|_| foreign())?;
        let own: BTreeMap<String, i64> = match versions {
            "" => BTreeMap::new(),
            versions => serde_json::from_str(versions).map_err(|_| foreign())?,
        };
        let mut changed = false;
        for (name, raw) in fields {
            let version = own.get(&*name).copied().unwrap_or(version);
            let new = Field { raw: raw.get(), version };
            match self.by_name.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(new);
                    changed = true;
                }
                Entry::Occupied(mut entry) => {
                    let old = entry.get_mut();
                    if (new.version, new.raw.as_bytes()) > (old.version, old.raw.as_bytes()) {
                        *old = new;
                        changed = true;
                    }
                }
            }
        }
        if self.by_name.len() > FIELDS_MAX {
            let why =
                format!("the document would have {} fields, allowed are {FIELDS_MAX}", self.by_name.len());
            return Err(Failure::new(Class::Reject, why));
        }
        Ok(changed)
    }

    /// The row for them, in the order of their names.
    pub(crate) fn store(&self) -> Stored {
        let version = self.by_name.values().map(|field| field.version).max().unwrap_or(0);
        let mut json = String::from("{");
        let mut versions = serde_json::Map::new();
        for (name, field) in &self.by_name {
            if json.len() > 1 {
                json.push(',');
            }
            json.push_str(&Value::from(&**name).to_string());
            json.push(':');
            json.push_str(field.raw);
            if field.version != version {
                versions.insert(name.clone().into_owned(), field.version.into());
            }
        }
        json.push('}');
        let versions = (!versions.is_empty()).then(|| Value::from(versions).to_string());
        Stored { json, version, versions }
    }
}

impl Stored {
    /// The row of a whole document, as it came.
    pub(crate) fn whole(document: &str, version: i64) -> Self {
        Stored { json: document.to_owned(), version, versions: None }
    }
}

impl<'a> ChangeOp<'a> {
    /// The parts of an operation on a document.
    pub(crate) fn parts(key: String, change: &Change) -> Vec<Bytes> {
        match change {
            Change::Delete { version } => {
                vec![Bytes::from_static(b"delete"), Bytes::from(key), integer_part(*version)]
            }
            Change::Put { fields, versions } => {
                let mut document = String::from("{");
                for (name, raw) in fields {
                    if document.len() > 1 {
                        document.push(',');
                    }
                    document.push_str(&Value::from(&**name).to_string());
                    document.push(':');
                    document.push_str(raw);
                }
                document.push('}');
                let mut parts = vec![
                    Bytes::from_static(b"put"),
                    Bytes::from(key),
                    integer_part(versions.version),
                    Bytes::from(document),
                ];
                if !versions.of_field.is_empty() {
                    parts.push(Bytes::from(json!(versions.of_field).to_string()));
                }
                parts
            }
        }
    }

    /// The change of an operation.
    ///
    /// # Errors
    /// Fatal for what no sink encoded.
    pub(crate) fn read(op: Parts<'a>) -> Result<Self, Failure> {
        let version = op.integer(2)?;
        match op.bytes(0)? {
            b"put" => {
                let versions = op.text(4).unwrap_or_default();
                Ok(ChangeOp::Put { document: op.text(3)?, version, versions })
            }
            b"delete" => Ok(ChangeOp::Delete { version }),
            _ => Err(foreign()),
        }
    }

    /// The change for people, beside `owner`.
    pub(crate) fn describe(self, mut owner: Value) -> Value {
        let (ChangeOp::Put { version, .. } | ChangeOp::Delete { version }) = self;
        owner["version"] = version.into();
        if let ChangeOp::Put { document, versions, .. } = self {
            owner["document"] = shown(document);
            if !versions.is_empty() {
                owner["versions"] = shown(versions);
            }
        }
        owner
    }
}

/// JSON as JSON where a value can hold it, else as text.
fn shown(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

#[cfg(test)]
#[path = "fields/tests.rs"]
mod tests;
