//! The mapping of an index: explicit, from the declared fields, so that no type depends on what arrives first.

use millrace_core::{
    Error, Result,
    views::{FieldType, IndexFields, IndexMode},
};
use serde_json::{Map, Value, json};

/// The object in which a document carries its versions. No document may have a field of this name.
pub(crate) const OWN_FIELD: &str = "millrace";

/// The format of that object. A newer one is refused.
const FORMAT: u64 = 1;

/// A keyword is indexed up to this many characters, which is as much as the server can; longer ones are kept.
const KEYWORD_CHARS_MAX: u32 = 8_191;

/// What a mapping that exists lacks.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Missing {
    /// The body of the request that adds it; none when nothing is missing.
    pub(crate) update: Option<Value>,
    /// Declared fields that are not in it.
    pub(crate) fields: Vec<String>,
}

/// Whether a document may not have a field of this name.
pub(crate) fn is_own(field: &str) -> bool {
    field.strip_prefix(OWN_FIELD).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether the names of index and fields can be served.
///
/// # Errors
/// Fatal, naming the one that cannot.
pub(crate) fn check_names(who: &str, index: &str, fields: &IndexFields) -> Result<()> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    let starts_well = index.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if !starts_well || !index.chars().all(allowed) || index.len() > 200 {
        let why = "an index is named with at most 200 lowercase letters, digits, '-', '_' and '.', and begins with a letter or digit";
        return Err(Error::fatal(who, why));
    }
    for (field, _) in &fields.fields {
        if is_own(field) || field.starts_with('_') || field.split('.').any(str::is_empty) {
            return Err(Error::fatal(who, format!("a field cannot be named '{field}'")));
        }
    }
    Ok(())
}

/// The body that creates the index, with its alias in the same step.
pub(crate) fn creation(alias: &str, fields: &IndexFields, mode: IndexMode) -> Value {
    let properties: Map<String, Value> =
        fields.fields.iter().map(|(name, of)| (name.clone(), field(*of))).chain([own()]).collect();
    let mut settings = Map::new();
    if let Some(shards) = fields.shards {
        settings.insert("number_of_shards".into(), shards.into());
    }
    if let Some(replicas) = fields.replicas {
        settings.insert("number_of_replicas".into(), replicas.into());
    }
    json!({
        "settings": { "index": settings },
        "mappings": { "_meta": meta(mode), "dynamic": false, "properties": properties },
        "aliases": { alias: alias_of_readers() },
    })
}

/// How readers see the index.
pub(crate) fn alias_of_readers() -> Value {
    json!({ "filter": { "bool": { "must_not": { "term": { "millrace.deleted": true } } } } })
}

/// Whether an alias hides deleted documents. Its filter may do more.
pub(crate) fn hides_deleted(alias: &Value) -> bool {
    alias["filter"].to_string().contains("millrace.deleted")
}

/// What `existing`, a mapping as the server tells it, lacks.
///
/// # Errors
/// Fatal when it has another type for a declared field, another mode, or a newer format.
pub(crate) fn missing(who: &str, existing: &Value, fields: &IndexFields, mode: IndexMode) -> Result<Missing> {
    let has_meta = check_meta(who, &existing["_meta"][OWN_FIELD], mode)?;
    let mut add = Map::new();
    let mut missing = Vec::new();
    for (name, of) in &fields.fields {
        let wanted = field(*of);
        match at_path(existing, name).map(type_of) {
            None => {
                add.insert(name.clone(), wanted);
                missing.push(name.clone());
            }
            Some(found) if wanted["type"] == found => {}
            Some(found) => {
                let wanted = wanted["type"].as_str().unwrap_or_default();
                let why = format!(
                    "field '{name}' is declared as {wanted}, the index has it as {found}; declare it so, or copy the documents into a new index and move the alias"
                );
                return Err(Error::fatal(who, why));
            }
        }
    }
    if at_path(existing, "millrace.deleted").is_none() {
        let (name, mapping) = own();
        add.insert(name, mapping);
    }
    let is_explicit = existing["dynamic"] == "false";
    if add.is_empty() && has_meta && is_explicit {
        return Ok(Missing::default());
    }
    let mut whole_meta = existing["_meta"].as_object().cloned().unwrap_or_default();
    whole_meta.extend(meta(mode));
    let update = json!({ "_meta": whole_meta, "dynamic": false, "properties": add });
    Ok(Missing { update: Some(update), fields: missing })
}

fn meta(mode: IndexMode) -> Map<String, Value> {
    Map::from_iter([(OWN_FIELD.to_owned(), json!({ "format": FORMAT, "mode": mode_name(mode) }))])
}

fn mode_name(mode: IndexMode) -> &'static str {
    match mode {
        IndexMode::Replace => "replace",
        IndexMode::Merge => "merge",
    }
}

/// Whether the index carries our mark. One that somebody made without it is taken over.
fn check_meta(who: &str, meta: &Value, mode: IndexMode) -> Result<bool> {
    if meta.is_null() {
        return Ok(false);
    }
    if meta["format"] != FORMAT {
        let why = format!("the index has format {}, this program knows {FORMAT}", meta["format"]);
        return Err(Error::fatal(who, why));
    }
    if meta["mode"] != mode_name(mode) {
        let why = format!(
            "the index is written with mode {}, not {}: their versions do not mix",
            meta["mode"],
            mode_name(mode)
        );
        return Err(Error::fatal(who, why));
    }
    Ok(true)
}

fn own() -> (String, Value) {
    let properties = json!({
        "deleted": { "type": "boolean" },
        "version": { "type": "long" },
        "versions": { "type": "object", "enabled": false },
    });
    (OWN_FIELD.to_owned(), json!({ "properties": properties }))
}

fn field(of: FieldType) -> Value {
    match of {
        FieldType::Text => json!({ "type": "text" }),
        FieldType::Keyword => json!({ "type": "keyword", "ignore_above": KEYWORD_CHARS_MAX }),
        FieldType::Long => json!({ "type": "long" }),
        FieldType::Double => json!({ "type": "double" }),
        FieldType::Boolean => json!({ "type": "boolean" }),
        FieldType::Date => json!({ "type": "date", "format": "strict_date_optional_time||epoch_millis" }),
        FieldType::Ip => json!({ "type": "ip" }),
        FieldType::Flattened => json!({ "type": "flattened", "ignore_above": KEYWORD_CHARS_MAX }),
    }
}

/// The server nests what a dotted name declares.
fn at_path<'a>(mapping: &'a Value, name: &str) -> Option<&'a Value> {
    name.split('.').try_fold(mapping, |parent, part| parent["properties"].get(part))
}

fn type_of(mapping: &Value) -> &str {
    mapping["type"].as_str().unwrap_or("object")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use millrace_core::Class;

    use super::*;

    fn fields(list: &[(&str, FieldType)]) -> IndexFields {
        let fields = list.iter().map(|(name, of)| ((*name).to_owned(), *of)).collect();
        IndexFields { fields, shards: Some(2), replicas: None }
    }

    /// What the server tells of an index that was created with this body.
    fn as_told(creation: &Value) -> Value {
        let mut mapping = creation["mappings"].clone();
        mapping["dynamic"] = "false".into();
        mapping
    }

    #[test]
    fn all_types_and_only_the_given_settings() {
        let list = [
            ("a", FieldType::Text),
            ("b", FieldType::Keyword),
            ("c", FieldType::Long),
            ("d", FieldType::Double),
            ("e", FieldType::Boolean),
            ("f", FieldType::Date),
            ("g", FieldType::Ip),
            ("h", FieldType::Flattened),
        ];
        let body = creation("posts", &fields(&list), IndexMode::Merge);
        let types: Vec<&str> =
            list.iter().map(|(name, _)| type_of(&body["mappings"]["properties"][name])).collect();
        assert_eq!(types, ["text", "keyword", "long", "double", "boolean", "date", "ip", "flattened"]);
        assert_eq!(body["mappings"]["dynamic"], false);
        assert_eq!(body["settings"], json!({ "index": { "number_of_shards": 2 } }));
        assert!(hides_deleted(&body["aliases"]["posts"]));
    }

    #[test]
    fn an_index_of_ours_lacks_nothing_and_a_new_field_is_added() {
        let mut declared = fields(&[("a", FieldType::Text)]);
        let existing = as_told(&creation("posts", &declared, IndexMode::Merge));
        assert_eq!(missing("i", &existing, &declared, IndexMode::Merge).unwrap(), Missing::default());
        declared.fields.push(("b".into(), FieldType::Long));
        let found = missing("i", &existing, &declared, IndexMode::Merge).unwrap();
        assert_eq!(found.fields, ["b"]);
        assert_eq!(found.update.unwrap()["properties"], json!({ "b": { "type": "long" } }));
    }

    #[test]
    fn another_type_mode_or_format_is_fatal() {
        let declared = fields(&[("a", FieldType::Text)]);
        let existing = as_told(&creation("posts", &declared, IndexMode::Merge));
        let other = fields(&[("a", FieldType::Long)]);
        let error = missing("i", &existing, &other, IndexMode::Merge).unwrap_err();
        assert_eq!(error.class(), Class::Fatal);
        assert!(error.why().starts_with("field 'a' is declared as long, the index has it as text"));
        let error = missing("i", &existing, &declared, IndexMode::Replace).unwrap_err();
        assert!(error.why().contains("mode \"merge\", not replace"), "{error}");
        let mut newer = existing;
        newer["_meta"]["millrace"]["format"] = 2.into();
        assert!(missing("i", &newer, &declared, IndexMode::Merge).unwrap_err().why().contains("format 2"));
    }

    #[test]
    fn somebody_elses_index_is_taken_over() {
        let declared = fields(&[("a.b", FieldType::Keyword)]);
        let existing = json!({
            "_meta": { "owner": "them" },
            "properties": { "a": { "properties": { "b": { "type": "keyword", "ignore_above": 5 } } } },
        });
        let update = missing("i", &existing, &declared, IndexMode::Replace).unwrap().update.unwrap();
        assert_eq!(update["_meta"]["owner"], "them");
        assert_eq!(update["_meta"]["millrace"]["mode"], "replace");
        assert_eq!(update["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), ["millrace"]);
    }

    #[test]
    fn names() {
        let none = IndexFields::default();
        for name in ["posts", "a.b-c_d", "0"] {
            check_names("i", name, &none).unwrap();
        }
        for name in ["", "Posts", "-a", "_a", ".a", "a/b", "a b", "é", "a*", &"a".repeat(201)] {
            assert_eq!(check_names("i", name, &none).unwrap_err().class(), Class::Fatal, "{name}");
        }
        for name in ["millrace", "millrace.deleted", "_id", "a..b", ""] {
            assert!(check_names("i", "a", &fields(&[(name, FieldType::Long)])).is_err(), "{name}");
        }
        assert!(!is_own("millraces") && is_own("millrace.x"));
    }
}
