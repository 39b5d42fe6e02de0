//! Files as trees: what is equal whatever its layout, and where two differ.

use std::fmt::Write;

use millrace_core::settings::{Node, NodeKind};

/// A place where two files differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The keys that lead there; items with an `id` are named by it: `steps[fanout].with.from`.
    pub path: String,
    /// What stood there; none: nothing did.
    pub before: Option<String>,
    /// What stands there; none: nothing does.
    pub after: Option<String>,
}

/// The longest value that is shown, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// A node on one line, without its layout: equal nodes give equal texts, and others give others.
pub(crate) fn canonical(node: &Node) -> String {
    let mut text = String::new();
    write_canonical(node, &mut text);
    text
}

fn write_canonical(node: &Node, text: &mut String) {
    match &node.kind {
        NodeKind::Null => text.push('~'),
        NodeKind::Scalar { text: value, plain } => {
            let _ = if *plain { write!(text, "{value:?}p") } else { write!(text, "{value:?}") };
        }
        NodeKind::Expanded { source, .. } => {
            let _ = write!(text, "{source:?}");
        }
        NodeKind::List(items) => {
            text.push('[');
            for item in items {
                write_canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        NodeKind::Map(entries) => {
            text.push('{');
            for (key, value) in entries {
                let _ = write!(text, "{:?}:", key.text);
                write_canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
    }
}

/// Where two nodes differ, in the order of the newer one, then what is only in the older one.
pub fn differences(before: Option<&Node>, after: Option<&Node>) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), before, after, &mut found);
    found
}

fn compare(path: String, before: Option<&Node>, after: Option<&Node>, found: &mut Vec<Difference>) {
    let (Some(old), Some(new)) = (before, after) else {
        if before.is_some() || after.is_some() {
            found.push(Difference { path, before: before.map(shown), after: after.map(shown) });
        }
        return;
    };
    let both = (parts(old), parts(new));
    let (Some(old_parts), Some(new_parts)) = both else {
        if canonical(old) != canonical(new) {
            found.push(Difference { path, before: Some(shown(old)), after: Some(shown(new)) });
        }
        return;
    };
    for (name, value) in &new_parts {
        let older = old_parts.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        compare(join(&path, name), older, Some(value), found);
    }
    for (name, value) in
        old_parts.iter().filter(|(name, _)| !new_parts.iter().any(|(other, _)| other == name))
    {
        compare(join(&path, name), Some(value), None, found);
    }
    let order =
        |parts: &[(String, &Node)]| -> Vec<String> { parts.iter().map(|(name, _)| name.clone()).collect() };
    let (old_order, new_order) = (order(&old_parts), order(&new_parts));
    let same_set =
        old_order.len() == new_order.len() && old_order.iter().all(|name| new_order.contains(name));
    // The order of keys means nothing but for people, that of steps means everything.
    if same_set && old_order != new_order && matches!(new.kind, NodeKind::List(_)) {
        found.push(Difference { path, before: Some(old_order.join(" ")), after: Some(new_order.join(" ")) });
    }
}

/// Named parts of a mapping, or of a list: by its items' ids where they all have one, else by number.
fn parts(node: &Node) -> Option<Vec<(String, &Node)>> {
    match &node.kind {
        NodeKind::Map(entries) => {
            Some(entries.iter().map(|(key, value)| (key.text.clone(), value)).collect())
        }
        NodeKind::List(items) => {
            let ids: Option<Vec<&str>> =
                items.iter().map(|item| item.get("id").and_then(Node::text)).collect();
            let names = ids.map_or_else(
                || (0..items.len()).map(|index| format!("[{index}]")).collect(),
                |ids| ids.iter().map(|id| format!("[{id}]")).collect::<Vec<_>>(),
            );
            Some(names.into_iter().zip(items).collect())
        }
        NodeKind::Null | NodeKind::Scalar { .. } | NodeKind::Expanded { .. } => None,
    }
}

fn join(path: &str, name: &str) -> String {
    let dot = if path.is_empty() || name.starts_with('[') { "" } else { "." };
    format!("{path}{dot}{name}")
}

/// A value for people, not too much of it.
fn shown(node: &Node) -> String {
    let text = match &node.kind {
        NodeKind::Null => "~".to_owned(),
        NodeKind::Scalar { text, .. } | NodeKind::Expanded { source: text, .. } => {
            text.escape_debug().to_string()
        }
        NodeKind::List(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        NodeKind::Map(entries) => {
            let pairs = entries.iter().map(|(key, value)| format!("{}: {}", key.text, shown(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    };
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
