//! A search index: documents under an id, with declared field types.

use super::{document::ChangeRule, required_template};
use crate::{
    error::Error,
    message::Message,
    settings::{Field, Kind, Object, Problems, Settings, Shape},
    template::Template,
    views::Change,
};

/// `index:` in YAML.
pub static INDEX: Kind = Kind { name: "index", settings: &SETTINGS };

static SETTINGS: Object = Object {
    name: "index",
    doc: "Documents in a search index whose field types are declared under 'indexes'. Readers use the index's name, which hides deleted documents.",
    fields: &[
        Field::required("store", Shape::Text, "the store that keeps it"),
        Field::required("index", Shape::Text, "the index, as declared under 'indexes'; never a template"),
        Field::with_default(
            "mode",
            Shape::Choice(&["replace", "merge"]),
            "replace",
            "replace: events carry whole documents; merge: events carry parts, per field the higher version wins",
        ),
        Field::with_default("op", Shape::Op(&["put", "delete"]), "put", "write, or delete"),
        Field::required("id", Shape::Template, "the document's id"),
        Field::with_default(
            "version",
            Shape::Template,
            "{@occurred_at}",
            "an integer; an older one never overwrites a newer one",
        ),
        Field::optional(
            "versions",
            Shape::Map(&Shape::Template),
            "merge only: another version for single fields, as { status: '{rank}' }",
        ),
        Field::optional(
            "document",
            Shape::Template,
            "the part of the value that is the document, as '{document}'; the whole value if not given",
        ),
    ],
};

/// The settings, parsed.
#[derive(Clone, Debug)]
pub struct Index {
    /// The index's name.
    pub name: String,
    /// How documents are written.
    pub mode: IndexMode,
    id: Template,
    change: ChangeRule,
}

/// How documents are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexMode {
    /// Whole documents; one version each.
    Replace,
    /// Parts; a version per field.
    Merge,
}

/// What a message asks of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEffect {
    /// The document's id.
    pub id: String,
    /// What happens to it.
    pub change: Change,
}

/// An index as declared under `indexes`: its fields, and how a cluster is to spread it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexFields {
    /// Name to type, in the order of the file. Other fields are kept in the document and not searchable.
    pub fields: Vec<(String, FieldType)>,
    /// Primary shards; the store's own default if none. Only read when the index is created.
    pub shards: Option<u32>,
    /// Copies of each shard; the store's own default if none. Only read when the index is created.
    pub replicas: Option<u32>,
}

/// The type of an indexed field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// Full text.
    Text,
    /// An exact value, for filters and aggregations.
    Keyword,
    /// An integer of 64 bits.
    Long,
    /// A floating-point number.
    Double,
    /// True or false.
    Boolean,
    /// A time: ms since 1970 or RFC 3339.
    Date,
    /// An IP address.
    Ip,
    /// A JSON object whose leaves are keywords.
    Flattened,
}

/// The words for field types in YAML.
pub const INDEX_FIELD_TYPES: &[&str] =
    &["text", "keyword", "long", "double", "boolean", "date", "ip", "flattened"];

impl FieldType {
    /// The type of a word of [`INDEX_FIELD_TYPES`].
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "text" => FieldType::Text,
            "keyword" => FieldType::Keyword,
            "long" => FieldType::Long,
            "double" => FieldType::Double,
            "boolean" => FieldType::Boolean,
            "date" => FieldType::Date,
            "ip" => FieldType::Ip,
            "flattened" => FieldType::Flattened,
            _ => return None,
        })
    }
}

impl Index {
    /// Reads checked settings. None when a problem was added, or had been reported by the check.
    pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        let mode = match settings.text("mode") {
            Some("merge") => IndexMode::Merge,
            _ => IndexMode::Replace,
        };
        if mode == IndexMode::Replace && settings.node("versions").is_some() {
            let (at, path) = (settings.at_key("versions"), settings.path_of("versions"));
            problems.suggest(at, &path, "has a meaning only with mode: merge", "add 'mode: merge'");
            return None;
        }
        Some(Index {
            name: settings.text("index")?.to_owned(),
            mode,
            id: required_template(settings, "id", problems)?,
            change: ChangeRule::read(settings, problems)?,
        })
    }

    /// The effect of a message.
    ///
    /// # Errors
    /// Reject, naming the template or field at fault.
    pub fn effect(&self, message: &Message) -> Result<IndexEffect, Error> {
        Ok(IndexEffect { id: self.id.render_id(message)?, change: self.change.of(message)? })
    }
}
