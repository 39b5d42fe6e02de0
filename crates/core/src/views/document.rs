//! A document that events build part by part: per field the highest version wins, a delete wins over all.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde_json::value::RawValue;
use tokio::time::Duration;

use super::{
    LEDGER_DEFAULT,
    op::{OpRule, Polarity},
    required_template, version_of,
};
use crate::{
    error::Error,
    message::Message,
    settings::{Field, Kind, Object, Problems, Settings, Shape},
    template::Template,
};

/// A document may have this many top-level fields.
const FIELDS_MAX: usize = 1_000;

/// `document:` in YAML.
pub static DOCUMENT: Kind = Kind { name: "document", settings: &SETTINGS };

static SETTINGS: Object = Object {
    name: "document",
    doc: "A JSON document merged from parts: per field the higher version wins, and a deleted one never comes back.",
    fields: &[
        Field::required("store", Shape::Text, "the store that keeps it"),
        Field::required("key", Shape::Template, "the document's key, as 'post:{id}'"),
        Field::with_default("op", Shape::Op(&["put", "delete"]), "put", "merge the fields, or delete"),
        Field::with_default(
            "version",
            Shape::Template,
            "{@occurred_at}",
            "an integer; per field the higher one wins",
        ),
        Field::optional(
            "versions",
            Shape::Map(&Shape::Template),
            "another version for single fields, as { status: '{rank}' }",
        ),
        Field::optional(
            "document",
            Shape::Template,
            "the part of the value that is the document, as '{document}'; the whole value if not given",
        ),
        Field::optional("ttl", Shape::Duration, "forget a document that was not written for this long"),
        Field::with_default(
            "ledger",
            Shape::Duration,
            LEDGER_DEFAULT,
            "how long a deleted document stays away",
        ),
    ],
};

const WORDS: [&str; 2] = ["put", "delete"];

/// The settings, parsed.
#[derive(Clone, Debug)]
pub struct Document {
    key: Template,
    change: ChangeRule,
    /// Life of an idle document.
    pub ttl: Option<Duration>,
    /// Life of a tombstone.
    pub ledger: Duration,
}

/// What a message asks of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentEffect {
    /// The document's key.
    pub key: String,
    /// What happens to it.
    pub change: Change,
}

/// A change of a document, in whatever store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These fields, as raw JSON in the order of the event.
    Put {
        /// Name to JSON text, exactly as it stood in the event.
        fields: IndexMap<String, String>,
        /// Which version they have.
        versions: FieldVersions,
    },
    /// Gone for good.
    Delete {
        /// The version of the delete, for stores that want one; it beats every version all the same.
        version: i64,
    },
}

/// The version of each field of a change, from 0 to 2^53.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldVersions {
    /// Of all fields but those below.
    pub version: i64,
    /// Of single fields.
    pub of_field: BTreeMap<String, i64>,
}

/// How a change is read from a message; shared with indexes.
#[derive(Clone, Debug)]
pub(super) struct ChangeRule {
    op: OpRule,
    version: Template,
    versions: Vec<(String, Template)>,
    document: Option<Vec<String>>,
}

impl Document {
    /// Reads checked settings. None when a problem was added, or had been reported by the check.
    pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        Some(Document {
            key: required_template(settings, "key", problems)?,
            change: ChangeRule::read(settings, problems)?,
            ttl: settings.duration("ttl"),
            ledger: settings.duration("ledger").unwrap_or(Duration::from_secs(30 * 86_400)),
        })
    }

    /// The effect of a message.
    ///
    /// # Errors
    /// Reject, naming the template or field at fault.
    pub fn effect(&self, message: &Message) -> Result<DocumentEffect, Error> {
        Ok(DocumentEffect { key: self.key.render_id(message)?, change: self.change.of(message)? })
    }
}

impl FieldVersions {
    /// The version of one field.
    pub fn of(&self, field: &str) -> i64 {
        self.of_field.get(field).copied().unwrap_or(self.version)
    }
}

impl ChangeRule {
    pub(super) fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        let document = match settings.template("document") {
            None => None,
            Some(template) => match template.single_path() {
                Some(path) => Some(path.to_vec()),
                None => {
                    let at = settings.at_key("document");
                    let path = settings.path_of("document");
                    problems.suggest(at, &path, "must name one field", "as '{document}'");
                    return None;
                }
            },
        };
        let versions = settings.pairs("versions");
        Some(ChangeRule {
            op: OpRule::read(settings, "op", &WORDS)?,
            version: settings.template("version").or_else(|| Template::parse("{@occurred_at}").ok())?,
            versions: versions
                .into_iter()
                .filter_map(|(field, text)| Some((field, Template::parse(&text).ok()?)))
                .collect(),
            document,
        })
    }

    pub(super) fn of(&self, message: &Message) -> Result<Change, Error> {
        let version = version_of(&self.version, message)?;
        if self.op.of(message)? == Polarity::Remove {
            return Ok(Change::Delete { version });
        }
        let raw = raw_at(&message.value, self.document.as_deref().unwrap_or_default())?;
        let fields: IndexMap<String, &RawValue> =
            serde_json::from_str(raw).map_err(|_| Error::reject("document", "is not a JSON object"))?;
        if fields.is_empty() || fields.len() > FIELDS_MAX {
            return Err(Error::reject(
                "document",
                format!("has {} fields, allowed are 1 to {FIELDS_MAX}", fields.len()),
            ));
        }
        let mut of_field = BTreeMap::new();
        for (field, template) in &self.versions {
            if fields.contains_key(field) {
                of_field.insert(field.clone(), version_of(template, message)?);
            }
        }
        let fields = fields.into_iter().map(|(name, raw)| (name, raw.get().to_owned())).collect();
        Ok(Change::Put { fields, versions: FieldVersions { version, of_field } })
    }
}

/// The JSON text at a path, untouched: numbers keep all their digits.
fn raw_at<'a>(value: &'a [u8], path: &[String]) -> Result<&'a str, Error> {
    let not_json = || Error::reject("message", "the value is not JSON");
    let mut text = std::str::from_utf8(value).map_err(|_| not_json())?;
    for (depth, name) in path.iter().enumerate() {
        let object: IndexMap<std::borrow::Cow<'a, str>, &'a RawValue> =
            serde_json::from_str(text).map_err(|_| not_json())?;
        let field = object.get(name.as_str());
        text = field
            .ok_or_else(|| Error::reject(format!("field '{}'", path[..=depth].join(".")), "is missing"))?
            .get();
    }
    Ok(text)
}
