//! Secrets that stand in the file itself. A file whose text is stored for all to read must name a variable instead.

use millrace_core::settings::{Kind, Node, NodeKind, Object, Problems, Shape};

use crate::catalog::{Catalog, Section};

/// Every place of an unexpanded file where a secret is written out.
pub fn inline_secrets(root: &Node, catalog: &Catalog) -> Vec<millrace_core::settings::Problem> {
    let mut problems = Problems::default();
    for (key, section) in [("brokers", Section::Brokers), ("stores", Section::Stores)] {
        for (name, node) in root.get(key).map(Node::entries).unwrap_or_default() {
            component(node, &format!("{key}.{}", name.text), &catalog.kinds(section), &mut problems);
        }
    }
    for (pipeline, node) in root.get("pipelines").map(Node::entries).unwrap_or_default() {
        for (id, sink) in node.get("to").map(Node::entries).unwrap_or_default() {
            let path = format!("pipelines.{}.to.{}", pipeline.text, id.text);
            component(sink, &path, &catalog.kinds(Section::Sinks), &mut problems);
        }
    }
    credentials(root, "", &mut problems);
    problems.into_sorted()
}

fn component(node: &Node, path: &str, kinds: &[&'static Kind], problems: &mut Problems) {
    for (key, settings) in node.entries() {
        if let Some(kind) = kinds.iter().find(|kind| kind.name == key.text) {
            object(settings, &format!("{path}.{}", kind.name), kind.settings, problems);
        }
    }
}

fn object(node: &Node, path: &str, object: &Object, problems: &mut Problems) {
    for (key, value) in node.entries() {
        if let Some(field) = object.fields.iter().find(|field| field.key == key.text) {
            shape(value, &format!("{path}.{}", key.text), &field.shape, problems);
        }
    }
}

fn shape(node: &Node, path: &str, of: &Shape, problems: &mut Problems) {
    match of {
        Shape::Secret if node.text().is_some_and(|text| !is_variable(text)) => {
            let file = path.rsplit('.').next().unwrap_or_default();
            problems.suggest(
                node.at,
                path,
                "a secret stands in the file, and the file would be stored for all who read the control topic",
                format!("name a variable without a default, '${{NAME}}', or use '{file}_file' where there is one"),
            );
        }
        Shape::Object(inner) => object(node, path, inner, problems),
        Shape::Map(item) => {
            for (key, value) in node.entries() {
                shape(value, &format!("{path}.{}", key.text), item, problems);
            }
        }
        Shape::List(item) => node.items().iter().for_each(|value| shape(value, path, item, problems)),
        _ => {}
    }
}

/// Addresses with a password in them, wherever they stand.
fn credentials(node: &Node, path: &str, problems: &mut Problems) {
    match &node.kind {
        NodeKind::Map(entries) => {
            for (key, value) in entries {
                let dot = if path.is_empty() { "" } else { "." };
                credentials(value, &format!("{path}{dot}{}", key.text), problems);
            }
        }
        NodeKind::List(items) => {
            for (index, item) in items.iter().enumerate() {
                credentials(item, &format!("{path}[{index}]"), problems);
            }
        }
        NodeKind::Scalar { text, .. } if has_password(text) => problems.suggest(
            node.at,
            path,
            "a password stands in an address, and the file would be stored for all who read the control topic",
            "name a variable without a default for the whole address, as '${REDIS_URL}'",
        ),
        NodeKind::Scalar { .. } | NodeKind::Null | NodeKind::Expanded { .. } => {}
    }
}

/// Nothing but a variable, without a default.
fn is_variable(text: &str) -> bool {
    let inside = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    text.is_empty() || inside.is_some_and(|name| !name.contains([':', '$', '{']))
}

/// Whether `user:password@` stands behind a scheme, and the password is not a variable's.
fn has_password(text: &str) -> bool {
    text.match_indices("://").any(|(at, mark)| {
        let authority = text[at + mark.len()..].split(['/', '?', ',', ' ']).next().unwrap_or_default();
        let password = authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':'));
        password.is_some_and(|(_, password)| !is_variable(password))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_a_variable_without_a_default_is_none() {
        assert!(is_variable("${PASSWORD}") && is_variable(""));
        for secret in ["hunter2", "${A}${B}", "${A:-hunter2}", "x${A}", "$${A}"] {
            assert!(!is_variable(secret), "{secret}");
        }
        assert!(has_password("redis://me:hunter2@host/0") && has_password("${A:-redis://:x@host}"));
        for clean in ["redis://me:${PASSWORD}@host", "redis://host:6379", "https://a/b:c@d", "${REDIS_URL}"] {
            assert!(!has_password(clean), "{clean}");
        }
    }

    #[test]
    fn every_place_is_named() {
        let catalog = Catalog { sinks: crate::SinkKind::builtin(), ..Catalog::default() };
        let root = crate::parse("a: [ { b: 'x://u:p@h' } ]\nc: 'x://u:${P}@h'\n").unwrap();
        let found = inline_secrets(&root, &catalog);
        assert_eq!(found.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), ["a[0].b"]);
    }
}
