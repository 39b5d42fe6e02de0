//! The JSON Schema of the file, for editors: built from the tables that check it.
//!
//! It says yes to whatever the check says yes to, as far as shapes go; names are for the check. Where a number or
//! a time span stands, a string with a variable may stand.

use millrace_core::settings::{Field, Kind, Object, Shape};
use serde_json::{Map, Value, json};

use crate::{
    catalog::{Catalog, Section},
    tables,
};

const VARIABLE: &str = r"\$\{";
const NAME: &str = "^[A-Za-z0-9._-]{1,100}$";
const ID: &str = "^[A-Za-z0-9._-]{1,64}$";
const TOPIC_NAME: &str = "^[A-Za-z0-9._-]{1,249}$";
const INDEX_NAME: &str = "^[a-z0-9][a-z0-9._-]{0,199}$";

/// The JSON Schema (draft 2020-12) of a pipeline file.
pub fn schema(catalog: &Catalog) -> Value {
    let mut defs = Map::new();
    for (section, prefix) in SECTIONS {
        for kind in catalog.kinds(section) {
            defs.insert(format!("{prefix}.{}", kind.name), object(kind.settings));
        }
    }
    for declared in tables::OBJECTS {
        defs.insert(def_name(declared), object(declared));
    }
    let mut file = object(&tables::FILE);
    file["properties"]["brokers"]["additionalProperties"] = one_kind(catalog, Section::Brokers);
    file["properties"]["stores"]["additionalProperties"] = one_kind(catalog, Section::Stores);
    for (key, pattern) in [
        ("brokers", NAME),
        ("stores", NAME),
        ("smartmodules", NAME),
        ("pipelines", NAME),
        ("topics", TOPIC_NAME),
        ("indexes", INDEX_NAME),
    ] {
        file["properties"][key]["propertyNames"] = json!({ "pattern": pattern });
    }
    let to = &mut defs["pipeline"]["properties"]["to"];
    to["additionalProperties"] = one_kind(catalog, Section::Sinks);
    to["propertyNames"] = json!({ "pattern": ID });
    to["minProperties"] = json!(1);
    defs["step"]["oneOf"] = json!([{ "required": ["uses"] }, { "required": ["lookup"] }]);
    defs["smartmodule"]["oneOf"] = json!([{ "required": ["file"] }, { "required": ["registry"] }]);
    defs["lookup"]["oneOf"] = json!([{ "required": ["members"] }, { "required": ["document"] }]);
    defs.remove("file");
    file["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    file["title"] = json!("Millrace pipelines");
    file["$defs"] = Value::Object(defs);
    file
}

const SECTIONS: [(Section, &str); 3] =
    [(Section::Brokers, "broker"), (Section::Stores, "store"), (Section::Sinks, "sink")];

fn one_kind(catalog: &Catalog, section: Section) -> Value {
    let prefix = SECTIONS.iter().find(|(other, _)| *other == section).map_or("", |(_, prefix)| prefix);
    let of = |kind: &&'static Kind| {
        let reference = json!({ "$ref": format!("#/$defs/{prefix}.{}", kind.name) });
        (kind.name.to_owned(), reference)
    };
    let mut properties: Map<String, Value> = catalog.kinds(section).iter().map(of).collect();
    let one: Vec<Value> = properties.keys().map(|kind| json!({ "required": [kind] })).collect();
    properties.extend(section.beside().fields.iter().map(|beside| (beside.key.to_owned(), field(beside))));
    json!({ "type": "object", "properties": properties, "additionalProperties": false, "oneOf": one })
}

fn def_name(object: &Object) -> String {
    object.name.replace(' ', "_")
}

fn object(object: &Object) -> Value {
    let required: Vec<&str> =
        object.fields.iter().filter(|field| field.required).map(|field| field.key).collect();
    let mut schema = json!({
        "description": object.doc,
        "type": if required.is_empty() { json!(["object", "null"]) } else { json!("object") },
        "properties": object.fields.iter().map(|of| (of.key.to_owned(), field(of))).collect::<Map<_, _>>(),
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn field(field: &Field) -> Value {
    let mut schema = shape(&field.shape);
    schema["description"] = json!(field.doc);
    if let Some(default) = field.default {
        schema["default"] = match field.shape {
            Shape::Integer { .. } => default.parse::<i64>().map_or(json!(default), |number| json!(number)),
            Shape::Flag => json!(default == "true"),
            _ => json!(default),
        };
    }
    schema
}

fn shape(shape: &Shape) -> Value {
    match shape {
        // Plain YAML such as `by: 1` is a number to an editor and text to us.
        Shape::Text | Shape::Template | Shape::Path | Shape::Secret => {
            let mut text = json!({ "type": ["string", "number", "boolean"], "minLength": 1 });
            if matches!(shape, Shape::Secret) {
                text["writeOnly"] = json!(true);
            }
            text
        }
        Shape::Scalar => json!({ "type": ["string", "number", "boolean"] }),
        Shape::Integer { min, max } => {
            let mut number = json!({ "type": "integer", "minimum": min });
            if *max != i64::MAX {
                number["maximum"] = json!(max);
            }
            or_variable(&number, "[0-9]+")
        }
        Shape::Flag => or_variable(&json!({ "type": "boolean" }), "(true|false)"),
        Shape::Duration => json!({ "type": "string", "pattern": text_or_variable("[0-9]+ *(ms|s|m|h|d)") }),
        Shape::Size => or_variable(
            &json!({ "type": "integer", "minimum": 0 }),
            "[0-9]+( *(B|kB|KB|MB|GB|KiB|MiB|GiB|TiB))?",
        ),
        Shape::Choice(words) => {
            json!({ "anyOf": [{ "enum": words }, { "type": "string", "pattern": VARIABLE }] })
        }
        Shape::Op(words) => {
            let types = json!({ "type": "array", "items": self::shape(&Shape::Text) });
            let by_type: Map<String, Value> =
                words.iter().map(|word| ((*word).to_owned(), types.clone())).collect();
            json!({ "anyOf": [
                { "enum": words },
                { "type": "string", "pattern": r"\{" },
                { "type": "object", "properties": by_type, "additionalProperties": false },
            ] })
        }
        Shape::List(item) => json!({ "type": "array", "items": self::shape(item) }),
        Shape::Map(item) => json!({ "type": "object", "additionalProperties": self::shape(item) }),
        Shape::Object(inner) if tables::OBJECTS.iter().any(|known| std::ptr::eq(*known, *inner)) => {
            json!({ "$ref": format!("#/$defs/{}", def_name(inner)) })
        }
        Shape::Object(inner) => object(inner),
        Shape::OneOf(fields) => json!({
            "type": "object",
            "properties": fields.iter().map(|of| (of.key.to_owned(), field(of))).collect::<Map<_, _>>(),
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
        }),
        Shape::Any => json!({}),
    }
}

fn or_variable(value: &Value, text: &str) -> Value {
    json!({ "anyOf": [value, { "type": "string", "pattern": text_or_variable(text) }] })
}

fn text_or_variable(text: &str) -> String {
    format!("^{text}$|{VARIABLE}")
}
