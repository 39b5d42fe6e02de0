//! A component: a mapping with one key that names the kind and holds the kind's settings, and with what may stand
//! beside it.

use std::path::Path;

use millrace_core::settings::{Kind, Node, NodeKind, Object, Problems, Settings, Shape, check_object};

use crate::{
    catalog::{Catalog, Section},
    names::advice,
    part::Part,
};

/// A component that was found in the catalog. Its settings may still be wrong.
pub(crate) struct Selected {
    pub(crate) kind: &'static Kind,
    pub(crate) settings: Settings,
    /// The settings have the right shapes: they can be read.
    pub(crate) sound: bool,
    /// What stands beside the kind.
    pub(crate) beside: Part,
}

/// Finds the kind, checks the settings against its table and makes their paths relative to the file.
pub(crate) fn select(
    node: &Node,
    path: &str,
    section: Section,
    catalog: &Catalog,
    base_dir: &Path,
    problems: &mut Problems,
) -> Option<Selected> {
    let kinds = catalog.kinds(section);
    let names = kinds.iter().map(|kind| kind.name);
    let noun = section.noun();
    let NodeKind::Map(entries) = &node.kind else {
        let message = format!("expected a mapping from a {noun} to its settings, found {}", node.type_name());
        let known: Vec<&str> = names.collect();
        problems.suggest(node.at, path, message, format!("one of: {}", known.join(", ")));
        return None;
    };
    let beside = section.beside();
    let (own, entries): (Vec<_>, Vec<_>) =
        entries.iter().cloned().partition(|(key, _)| beside.fields.iter().any(|field| field.key == key.text));
    let own = Node { at: node.at, kind: NodeKind::Map(own) };
    check_object(&own, beside, path, problems);
    let own = Part::new(&own, path, beside);
    if entries.len() != 1 {
        let message = format!("expected exactly one {noun}, found {}", entries.len());
        problems.suggest(node.at, path, message, advice("", noun, names.clone()));
    }
    let mut selected = None;
    for (key, value) in &entries {
        let Some(kind) = kinds.iter().copied().find(|kind| kind.name == key.text) else {
            let message = format!("unknown {noun} '{}'", key.text);
            problems.suggest(key.at, path, message, advice(&key.text, noun, names.clone()));
            continue;
        };
        let path = format!("{path}.{}", kind.name);
        let mut found = Problems::default();
        check_object(value, kind.settings, &path, &mut found);
        let mut value =
            Node { at: if value.kind == NodeKind::Null { key.at } else { value.at }, ..value.clone() };
        resolve_paths(&mut value, kind.settings, base_dir);
        let settings = Settings::new(value, path);
        if found.is_empty() {
            for check in catalog.checks.iter().filter(|c| c.section == section && c.kind == kind.name) {
                (check.check)(&settings, &mut found);
            }
        }
        let sound = found.is_empty();
        problems.append(found);
        selected = selected.or(Some((kind, settings, sound)));
    }
    let (kind, settings, sound) = selected?;
    Some(Selected { kind, settings, sound, beside: own })
}

/// Makes every path of the settings relative to the file's folder instead of the process's.
pub(crate) fn resolve_paths(node: &mut Node, object: &Object, base_dir: &Path) {
    let NodeKind::Map(entries) = &mut node.kind else { return };
    for (key, value) in entries {
        if let Some(field) = object.fields.iter().find(|field| field.key == key.text) {
            resolve(value, &field.shape, base_dir);
        }
    }
}

fn resolve(node: &mut Node, shape: &Shape, base_dir: &Path) {
    match shape {
        Shape::Path => {
            if let Some(text) = node.text() {
                let joined = base_dir.join(text).to_string_lossy().into_owned();
                node.kind = NodeKind::Scalar { text: joined, plain: false };
            }
        }
        Shape::Object(object) => resolve_paths(node, object, base_dir),
        Shape::List(item) => {
            if let NodeKind::List(items) = &mut node.kind {
                items.iter_mut().for_each(|value| resolve(value, item, base_dir));
            }
        }
        Shape::Map(item) => {
            if let NodeKind::Map(entries) = &mut node.kind {
                entries.iter_mut().for_each(|(_, value)| resolve(value, item, base_dir));
            }
        }
        Shape::OneOf(fields) => {
            if let NodeKind::Map(entries) = &mut node.kind {
                for (key, value) in entries {
                    if let Some(field) = fields.iter().find(|field| field.key == key.text) {
                        resolve(value, &field.shape, base_dir);
                    }
                }
            }
        }
        _ => {}
    }
}
