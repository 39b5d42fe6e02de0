//! A table of settings as a reference page shows it.

use millrace_core::settings::{Field, Object, Shape};

/// The keys of an object as a Markdown table.
pub fn reference(object: &Object) -> String {
    let mut table = String::from("| key | value | default | meaning |\n|---|---|---|---|\n");
    for field in object.fields {
        let default = match (field.required, field.default) {
            (true, _) => "required".to_owned(),
            (false, Some(default)) => format!("`{default}`"),
            (false, None) => String::new(),
        };
        let row = [format!("`{}`", field.key), value(field), default, field.doc.to_owned()];
        table.push_str(&format!("| {} |\n", row.map(|cell| cell.replace('|', "\\|")).join(" | ")));
    }
    table
}

fn value(field: &Field) -> String {
    match &field.shape {
        Shape::Choice(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        shape => short(shape),
    }
}

fn short(shape: &Shape) -> String {
    match shape {
        Shape::Text => "text".into(),
        Shape::Template => "template".into(),
        Shape::Integer { min, max } if min == max => format!("`{min}`"),
        Shape::Integer { min, max: i64::MAX } => format!("integer from {min}"),
        Shape::Integer { min, max } => format!("integer, {min} to {max}"),
        Shape::Flag => "`true`, `false`".into(),
        Shape::Duration => "time span".into(),
        Shape::Size => "size".into(),
        Shape::Choice(words) => words.join(", "),
        Shape::Path => "path".into(),
        Shape::Scalar => "scalar".into(),
        Shape::Secret => "secret".into(),
        Shape::Op(words) => format!("operation: {}", words.join(", ")),
        Shape::List(item) => format!("list of {}", short(item)),
        Shape::Map(item) => format!("mapping to {}", short(item)),
        Shape::Object(object) => object.name.to_owned(),
        Shape::OneOf(_) => "mapping with one key".into(),
        Shape::Any => "component".into(),
    }
}
