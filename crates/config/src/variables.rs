//! Variables: `${NAME}` and `${NAME:-default}` in values, after parsing, so that no value can change the
//! structure of the file. `$${` is a literal `${`.

use std::collections::HashSet;

use millrace_core::settings::{Location, Node, NodeKind, Problems, Secret};

use crate::parse::TEXT_BYTES_MAX;

/// What a variable holds; none when it is not set.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Substitutes variables in every value of the tree. Returns the places whose variables could not be: what is
/// wrong there afterwards is a consequence.
pub(crate) fn expand(
    node: &mut Node,
    env: Env<'_>,
    lenient: bool,
    problems: &mut Problems,
) -> HashSet<Location> {
    let mut expander =
        Expander { env, lenient, text_bytes: 0, problems, unresolved: HashSet::new(), path: Vec::new() };
    expander.node(node);
    expander.unresolved
}

struct Expander<'a> {
    env: Env<'a>,
    /// The file is to run embedded: brokers and stores are not reached, so their variables need not be set.
    lenient: bool,
    text_bytes: usize,
    problems: &'a mut Problems,
    unresolved: HashSet<Location>,
    path: Vec<String>,
}

/// Why a text does not expand.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    Unset(String),
    Unclosed,
    BadName(String),
    Nested,
}

impl Expander<'_> {
    fn node(&mut self, node: &mut Node) {
        match &mut node.kind {
            NodeKind::Map(entries) => {
                for (key, value) in entries {
                    self.path.push(key.text.clone());
                    self.node(value);
                    self.path.pop();
                }
            }
            NodeKind::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.path.push(format!("[{index}]"));
                    self.node(item);
                    self.path.pop();
                }
            }
            NodeKind::Scalar { text, .. } if text.contains("${") => {
                let source = std::mem::take(text);
                match substitute(&source, self.env) {
                    Ok(text) => self.replace(node, source, text),
                    Err(wrong) => {
                        self.report(&wrong, node.at);
                        node.kind = NodeKind::Scalar { text: source, plain: false };
                    }
                }
            }
            NodeKind::Null | NodeKind::Scalar { .. } | NodeKind::Expanded { .. } => {}
        }
    }

    fn replace(&mut self, node: &mut Node, source: String, text: String) {
        self.text_bytes = self.text_bytes.saturating_add(text.len());
        if self.text_bytes > TEXT_BYTES_MAX {
            let message = format!("the variables hold more than {TEXT_BYTES_MAX} bytes");
            self.problems.add(node.at, &self.path(), message);
            self.unresolved.insert(node.at);
            node.kind = NodeKind::Scalar { text: source, plain: false };
        } else {
            node.kind = NodeKind::Expanded { text: Secret::new(text), source };
        }
    }

    fn report(&mut self, wrong: &Wrong, at: Location) {
        self.unresolved.insert(at);
        let path = self.path();
        match wrong {
            Wrong::Unset(_) if self.lenient && self.in_a_system() => {}
            Wrong::Unset(name) => self.problems.suggest(
                at,
                &path,
                format!("the variable '{name}' is not set and has no default"),
                format!("set it, or write '${{{name}:-default}}'"),
            ),
            Wrong::Unclosed => {
                self.problems.suggest(at, &path, "'${' without '}'", "write '$${' for a literal '${'");
            }
            Wrong::BadName(name) => self.problems.suggest(
                at,
                &path,
                format!("'{name}' is not the name of a variable"),
                "names have letters, digits and '_'; write '$${' for a literal '${'",
            ),
            Wrong::Nested => {
                self.problems.add(at, &path, "a variable's default must not hold another variable");
            }
        }
    }

    fn in_a_system(&self) -> bool {
        matches!(self.path.first().map(String::as_str), Some("brokers" | "stores"))
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for part in &self.path {
            if !path.is_empty() && !part.starts_with('[') {
                path.push('.');
            }
            path.push_str(part);
        }
        path
    }
}

fn substitute(source: &str, env: Env<'_>) -> Result<String, Wrong> {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(dollar) = rest.find('$') {
        text.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(after) = after.strip_prefix("${") {
            text.push_str("${");
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let (inside, after) = to_closing_brace(after).ok_or(Wrong::Unclosed)?;
            text.push_str(&value_of(inside, env)?);
            rest = after;
        } else {
            text.push('$');
            rest = after;
        }
    }
    text.push_str(rest);
    Ok(text)
}

/// What stands before the brace that closes this one, and after it; a default may hold `{field}`.
fn to_closing_brace(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    for (index, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some((&text[..index], &text[index + 1..])),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// An empty variable counts as not set where there is a default, as in a shell.
fn value_of(inside: &str, env: Env<'_>) -> Result<String, Wrong> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Wrong::BadName(name.chars().take(64).collect()));
    }
    if default.is_some_and(|default| default.contains("${")) {
        return Err(Wrong::Nested);
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Wrong::Unset(name.to_owned())),
    }
}

#[cfg(test)]
#[path = "variables/tests.rs"]
mod tests;
