//! A YAML value with its place in the file, independent of any parser.

use super::secret::Secret;

/// A place in a file, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its first character.
    pub at: Location,
    /// The value.
    pub kind: NodeKind,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Nothing, `~` or `null`.
    Null,
    /// Any scalar as it stands in the file.
    Scalar {
        /// The text.
        text: String,
        /// Written without quotes: may be a number or a boolean.
        plain: bool,
    },
    /// A scalar with variables substituted. What a variable holds may be a secret, whatever the field.
    Expanded {
        /// The text with the variables' values.
        text: Secret,
        /// The text as it stands in the file: the only form that is shown.
        source: String,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file; keys are unique.
    Map(Vec<(Key, Node)>),
}

/// A mapping's key and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its first character.
    pub at: Location,
    /// The key.
    pub text: String,
}

impl Node {
    /// The entry of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name.text == key).map(|(_, node)| node)
    }

    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.kind {
            NodeKind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a sequence; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            NodeKind::List(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar, variables substituted.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Scalar { text, .. } => Some(text),
            NodeKind::Expanded { text, .. } => Some(text.expose()),
            _ => None,
        }
    }

    /// The text of a scalar as an error may show it: variables by their names, and not too much of it.
    pub fn shown(&self) -> Option<String> {
        match &self.kind {
            NodeKind::Scalar { text, .. } | NodeKind::Expanded { source: text, .. } => Some(clip(text)),
            _ => None,
        }
    }

    /// Whether variables were substituted, so that no part of the text may be shown.
    pub fn is_expanded(&self) -> bool {
        matches!(self.kind, NodeKind::Expanded { .. })
    }

    /// How an error names what stands here.
    pub fn type_name(&self) -> &'static str {
        match &self.kind {
            NodeKind::Null => "nothing",
            NodeKind::Scalar { .. } | NodeKind::Expanded { .. } => "a scalar",
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a mapping",
        }
    }
}

/// At most 80 characters of a text, for messages.
fn clip(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_variables_hold_is_read_and_not_shown() {
        let kind = NodeKind::Expanded { text: Secret::new("sesame"), source: "${WORD}".into() };
        let node = Node { at: Location::default(), kind };
        assert_eq!((node.text(), node.shown()), (Some("sesame"), Some("${WORD}".to_owned())));
        assert!(!format!("{node:?}").contains("sesame"));
    }

    #[test]
    fn long_text_is_clipped() {
        let kind = NodeKind::Scalar { text: "ü".repeat(1_000), plain: true };
        let shown = Node { at: Location::default(), kind }.shown();
        assert_eq!(shown, Some(format!("{}…", "ü".repeat(80))));
    }
}
