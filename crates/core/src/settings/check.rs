//! Checks a node against a shape and says everything that is wrong with it.

use super::{
    node::{Key, Location, Node, NodeKind},
    problem::Problems,
    shape::{Field, Object, Shape},
    units::{parse_duration, parse_size},
};
use crate::template::{META_FIELDS, Template, TemplateErrorKind};

/// Checks a mapping: unknown keys, missing keys, and each value against its field's shape. Nothing at all is
/// an empty mapping: `stdout:`.
pub fn check_object(node: &Node, object: &Object, path: &str, problems: &mut Problems) {
    if !matches!(node.kind, NodeKind::Map(_) | NodeKind::Null) {
        problems.add(
            node.at,
            path,
            format!("expected a mapping with the keys of {}, found {}", object.name, node.type_name()),
        );
        return;
    }
    for (key, value) in node.entries() {
        match object.fields.iter().find(|field| field.key == key.text) {
            Some(field) if field.required && value.kind == NodeKind::Null => {
                missing(field, key.at, path, problems);
            }
            Some(field) => check_shape(value, &field.shape, &join(path, &key.text), problems),
            None => unknown_key(key, object.fields, path, problems),
        }
    }
    for field in object.fields.iter().filter(|field| field.required && node.get(field.key).is_none()) {
        missing(field, node.at, path, problems);
    }
}

fn missing(field: &Field, at: Location, path: &str, problems: &mut Problems) {
    problems.suggest(
        at,
        path,
        format!("'{}' is missing", field.key),
        format!("{}: {}", field.key, field.doc),
    );
}

/// Checks any value against a shape.
pub fn check_shape(node: &Node, shape: &Shape, path: &str, problems: &mut Problems) {
    match shape {
        Shape::Any => {}
        Shape::Object(object) => check_object(node, object, path, problems),
        Shape::OneOf(fields) => check_one_of(node, fields, path, problems),
        Shape::List(item) => match &node.kind {
            NodeKind::List(items) => {
                for (index, value) in items.iter().enumerate() {
                    check_shape(value, item, &format!("{path}[{index}]"), problems);
                }
            }
            _ => problems.add(node.at, path, format!("expected a list, found {}", node.type_name())),
        },
        Shape::Map(item) => match &node.kind {
            NodeKind::Map(entries) => {
                for (key, value) in entries {
                    check_shape(value, item, &join(path, &key.text), problems);
                }
            }
            _ => problems.add(node.at, path, format!("expected a mapping, found {}", node.type_name())),
        },
        Shape::Op(words) if matches!(node.kind, NodeKind::Map(_)) => {
            check_op_map(node, words, path, problems);
        }
        _ => match node.text() {
            Some(text) => check_scalar(node, text, shape, path, problems),
            None => {
                let message = format!("expected {}, found {}", shape.wanted(), node.type_name());
                match unquoted_template(node).filter(|_| matches!(shape, Shape::Template | Shape::Text)) {
                    Some(template) => problems.suggest(node.at, path, message, quote_it(&template)),
                    None => problems.add(node.at, path, message),
                }
            }
        },
    }
}

/// Longer texts get no suggestion, and no more candidates than this are compared: a hostile file must not cost
/// much time.
const SUGGEST_BYTES_MAX: usize = 64;
const SUGGEST_CANDIDATES_MAX: usize = 200;

/// The candidate that was probably meant by `text`.
pub fn suggest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > SUGGEST_BYTES_MAX {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(text.len()) <= 1 + candidate.len() / 4)
        .take(SUGGEST_CANDIDATES_MAX)
        .map(|candidate| (strsim::damerau_levenshtein(text, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The advice that names what was probably meant by `text`.
pub fn did_you_mean<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    suggest(text, candidates).map(|meant| format!("did you mean '{meant}'?"))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn unknown_key(key: &Key, fields: &[Field], path: &str, problems: &mut Problems) {
    let message = format!("unknown key '{}'", key.text);
    let advice = match did_you_mean(&key.text, fields.iter().map(|field| field.key)) {
        Some(advice) => advice,
        None if fields.is_empty() => "there are no keys here".to_owned(),
        None => format!("known keys: {}", keys(fields)),
    };
    problems.suggest(key.at, &join(path, &key.text), message, advice);
}

fn keys(fields: &[Field]) -> String {
    fields.iter().map(|field| field.key).collect::<Vec<_>>().join(", ")
}

fn check_one_of(node: &Node, fields: &[Field], path: &str, problems: &mut Problems) {
    let NodeKind::Map(entries) = &node.kind else {
        problems.add(node.at, path, format!("expected a mapping with one of: {}", keys(fields)));
        return;
    };
    for (key, value) in entries {
        match fields.iter().find(|field| field.key == key.text) {
            Some(field) => check_shape(value, &field.shape, &join(path, &key.text), problems),
            None => unknown_key(key, fields, path, problems),
        }
    }
    if entries.len() != 1 {
        problems.add(
            node.at,
            path,
            format!("expected exactly one of: {}; found {}", keys(fields), entries.len()),
        );
    }
}

fn check_op_map(node: &Node, words: &'static [&'static str], path: &str, problems: &mut Problems) {
    if let Some(template) = unquoted_template(node) {
        let message = format!("expected {}, found a mapping", Shape::Op(words).wanted());
        problems.suggest(node.at, path, message, quote_it(&template));
        return;
    }
    for (key, value) in node.entries() {
        if !words.contains(&key.text.as_str()) {
            let advice = format!("one of: {}", words.join(", "));
            problems.suggest(
                key.at,
                &join(path, &key.text),
                format!("unknown operation '{}'", key.text),
                advice,
            );
        }
        check_shape(value, &Shape::List(&Shape::Text), &join(path, &key.text), problems);
    }
}

/// `{name}` without quotes is a YAML mapping from `name` to nothing.
fn unquoted_template(node: &Node) -> Option<String> {
    match node.entries() {
        [(key, value)] if value.kind == NodeKind::Null => Some(format!("{{{}}}", key.text)),
        _ => None,
    }
}

fn quote_it(template: &str) -> String {
    format!("a template needs quotes: \"{template}\"")
}

fn check_scalar(node: &Node, text: &str, shape: &Shape, path: &str, problems: &mut Problems) {
    let shown = node.shown().unwrap_or_default();
    let wrong = |problems: &mut Problems| {
        problems.add(node.at, path, format!("expected {}, found '{shown}'", shape.wanted()));
    };
    match shape {
        Shape::Integer { min, max }
            if !text.parse().is_ok_and(|number: i64| (*min..=*max).contains(&number)) =>
        {
            wrong(problems);
        }
        Shape::Flag if !matches!(text, "true" | "false") => wrong(problems),
        Shape::Duration if parse_duration(text).is_none() => wrong(problems),
        Shape::Size if parse_size(text).is_none() => wrong(problems),
        Shape::Choice(words) if !words.contains(&text) => {
            let message = format!("unknown value '{shown}'");
            let advice = did_you_mean(text, words.iter().copied()).filter(|_| !node.is_expanded());
            let known = || format!("one of: {}", words.join(", "));
            problems.suggest(node.at, path, message, advice.unwrap_or_else(known));
        }
        Shape::Op(words) => {
            check_template(node, text, path, problems);
            let literal = Template::parse(text).is_ok_and(|template| template.is_literal());
            if literal && !words.contains(&text) {
                let advice = format!("one of: {}, or a template such as '{{op}}'", words.join(", "));
                problems.suggest(node.at, path, format!("unknown operation '{shown}'"), advice);
            }
        }
        Shape::Template => check_template(node, text, path, problems),
        Shape::Text | Shape::Path if text.is_empty() => problems.add(node.at, path, "must not be empty"),
        _ => {}
    }
}

fn check_template(node: &Node, text: &str, path: &str, problems: &mut Problems) {
    let Err(error) = Template::parse(text) else { return };
    let shown = node.shown().unwrap_or_default();
    if node.is_expanded() {
        problems.add(node.at, path, format!("'{shown}' does not expand to a template"));
        return;
    }
    let message = format!("template '{shown}': {error}");
    let known = META_FIELDS.iter().map(|(name, _)| *name);
    match &error.kind {
        TemplateErrorKind::UnknownMeta(name) => {
            let advice = did_you_mean(name, known.clone());
            let known = || format!("known: {}", known.collect::<Vec<_>>().join(", "));
            problems.suggest(node.at, path, message, advice.unwrap_or_else(known));
        }
        _ => problems.add(node.at, path, message),
    }
}

impl Shape {
    /// How an error names what is wanted.
    pub fn wanted(&self) -> String {
        match self {
            Shape::Text => "text".into(),
            Shape::Template => "a template".into(),
            Shape::Integer { min, max: i64::MAX } => format!("an integer from {min}"),
            Shape::Integer { min, max } => format!("an integer from {min} to {max}"),
            Shape::Flag => "true or false".into(),
            Shape::Duration => "a time span such as 500ms, 30s, 5m, 168h or 30d".into(),
            Shape::Size => "a size such as 64KiB, 16MiB or 1GiB".into(),
            Shape::Choice(words) => format!("one of {}", words.join(", ")),
            Shape::Path => "a path".into(),
            Shape::Scalar => "a scalar".into(),
            Shape::Secret => "a secret".into(),
            Shape::Op(words) => format!(
                "a template giving one of {}, or a mapping from these to event types",
                words.join(", ")
            ),
            Shape::List(_) => "a list".into(),
            Shape::Map(_) | Shape::Object(_) | Shape::OneOf(_) => "a mapping".into(),
            Shape::Any => "anything".into(),
        }
    }
}
