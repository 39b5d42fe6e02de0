//! Typed reading of settings that have been checked. A value that does not fit its shape was reported by the
//! check and reads as absent, so that reading never reports a mistake twice.

use std::{fmt, path::PathBuf};

use tokio::time::Duration;

use super::{
    node::{Location, Node},
    secret::{Secret, SecretSource},
    units::{parse_duration, parse_size},
};
use crate::template::Template;

/// A mapping of a component's settings and the path that leads to it. Prints as its place: it may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    node: Node,
    path: String,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.node.at;
        write!(f, "Settings({} at {}:{})", self.path, at.line, at.column)
    }
}

impl Settings {
    /// Settings at a path.
    pub fn new(node: Node, path: impl Into<String>) -> Self {
        Settings { node, path: path.into() }
    }

    /// The mapping itself.
    pub fn as_node(&self) -> &Node {
        &self.node
    }

    /// Where they stand.
    pub fn at(&self) -> Location {
        self.node.at
    }

    /// The keys that lead to them.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value at a key.
    pub fn node(&self, key: &str) -> Option<&Node> {
        self.node.get(key)
    }

    /// Where a key's value stands, or the settings themselves when it is not given.
    pub fn at_key(&self, key: &str) -> Location {
        self.node(key).map_or(self.node.at, |node| node.at)
    }

    /// The path of a key.
    pub fn path_of(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// The text at a key as an error may show it: variables by their names.
    pub fn shown(&self, key: &str) -> Option<String> {
        self.node(key)?.shown()
    }

    /// Text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.node(key).and_then(Node::text)
    }

    /// An integer.
    pub fn integer(&self, key: &str) -> Option<i64> {
        self.text(key)?.parse().ok()
    }

    /// An integer that is never negative.
    pub fn count(&self, key: &str) -> Option<u32> {
        self.text(key)?.parse().ok()
    }

    /// A flag.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.text(key)?.parse().ok()
    }

    /// A time span.
    pub fn duration(&self, key: &str) -> Option<Duration> {
        parse_duration(self.text(key)?)
    }

    /// An amount of bytes.
    pub fn size(&self, key: &str) -> Option<u64> {
        parse_size(self.text(key)?)
    }

    /// A template.
    pub fn template(&self, key: &str) -> Option<Template> {
        Template::parse(self.text(key)?).ok()
    }

    /// A path; the configuration has made it relative to its file.
    pub fn file(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// A secret given as `key` or as `key_file`.
    pub fn secret(&self, key: &str) -> Option<SecretSource> {
        if let Some(text) = self.text(key) {
            return Some(SecretSource::Inline(Secret::new(text)));
        }
        self.file(&format!("{key}_file")).map(SecretSource::File)
    }

    /// A nested mapping.
    pub fn object(&self, key: &str) -> Option<Settings> {
        self.node(key).map(|node| Settings::new(node.clone(), self.path_of(key)))
    }

    /// The texts of a list; empty when it is not given.
    pub fn texts(&self, key: &str) -> Vec<String> {
        self.node(key)
            .map(|node| node.items().iter().filter_map(Node::text).map(str::to_owned).collect())
            .unwrap_or_default()
    }

    /// The texts of a mapping from names to texts; empty when it is not given.
    pub fn pairs(&self, key: &str) -> Vec<(String, String)> {
        let entries = self.node(key).map(Node::entries).unwrap_or_default();
        entries.iter().filter_map(|(key, node)| Some((key.text.clone(), node.text()?.to_owned()))).collect()
    }
}
