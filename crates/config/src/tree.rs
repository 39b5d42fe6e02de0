//! A tree under construction: the mappings and lists that are still open, and how large all of it has become.

use std::collections::HashMap;

use millrace_core::settings::{Key, Location, Node, NodeKind};

/// The tree so far.
#[derive(Default)]
pub(crate) struct Tree {
    open: Vec<Frame>,
    size: Size,
    /// The document's value, once it is closed.
    pub(crate) root: Option<Node>,
}

/// How large a tree is.
#[derive(Clone, Copy, Default)]
pub(crate) struct Size {
    /// Values.
    pub(crate) nodes: usize,
    /// Bytes of keys and scalars.
    pub(crate) text_bytes: usize,
    /// Levels of mappings and lists.
    pub(crate) depth: usize,
}

/// A mapping or list that is not closed yet.
pub(crate) struct Frame {
    /// Where it begins.
    pub(crate) at: Location,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, seen: HashMap<String, Location>, pending: Option<Pending> },
}

/// A key whose value is still to come.
struct Pending {
    key: Key,
    /// It stands in the mapping already: the value is read and dropped.
    again: bool,
}

impl Frame {
    /// A list; anchor 0 is none.
    pub(crate) fn list(at: Location, anchor: usize) -> Self {
        Frame { at, anchor, content: Content::List(Vec::new()) }
    }

    /// A mapping; anchor 0 is none.
    pub(crate) fn map(at: Location, anchor: usize) -> Self {
        let content = Content::Map { entries: Vec::new(), seen: HashMap::new(), pending: None };
        Frame { at, anchor, content }
    }
}

impl Tree {
    /// Whether the next value is a key.
    pub(crate) fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Frame { content: Content::Map { pending: None, .. }, .. }))
    }

    /// Begins an entry of the innermost mapping. Returns where the key stood before, if it did.
    pub(crate) fn begin_entry(&mut self, key: Key) -> Option<Location> {
        let Some(Frame { content: Content::Map { seen, pending, .. }, .. }) = self.open.last_mut() else {
            return None;
        };
        let first = seen.get(&key.text).copied();
        if first.is_none() {
            seen.insert(key.text.clone(), key.at);
        }
        *pending = Some(Pending { key, again: first.is_some() });
        first
    }

    /// Opens a mapping or list.
    pub(crate) fn open(&mut self, frame: Frame) {
        self.open.push(frame);
    }

    /// Closes the innermost mapping or list: its value and its anchor.
    pub(crate) fn close(&mut self) -> Option<(Node, usize)> {
        let frame = self.open.pop()?;
        let kind = match frame.content {
            Content::List(items) => NodeKind::List(items),
            Content::Map { entries, .. } => NodeKind::Map(entries),
        };
        Some((Node { at: frame.at, kind }, frame.anchor))
    }

    /// Puts a whole value where the next one belongs.
    pub(crate) fn add(&mut self, node: Node) {
        match self.open.last_mut().map(|frame| &mut frame.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, pending, .. }) => {
                if let Some(Pending { key, again: false }) = pending.take() {
                    entries.push((key, node));
                }
            }
        }
    }

    /// Accounts for values about to be added: how large all of it is then, and how deep at this place.
    pub(crate) fn grow(&mut self, by: Size) -> Size {
        self.size.nodes = self.size.nodes.saturating_add(by.nodes);
        self.size.text_bytes = self.size.text_bytes.saturating_add(by.text_bytes);
        Size { depth: self.open.len() + by.depth, ..self.size }
    }

    /// The keys that lead to the place of the next value.
    pub(crate) fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.open {
            match &frame.content {
                Content::List(items) => path.push_str(&format!("[{}]", items.len())),
                Content::Map { pending: Some(pending), .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&pending.key.text);
                }
                Content::Map { pending: None, .. } => {}
            }
        }
        path
    }
}

impl Size {
    /// The size of a whole value.
    pub(crate) fn of(node: &Node) -> Self {
        let children = |nodes: &mut dyn Iterator<Item = (usize, &Node)>| {
            nodes.fold(Size { nodes: 1, text_bytes: 0, depth: 0 }, |sum, (key_bytes, node)| {
                let size = Size::of(node);
                Size {
                    nodes: sum.nodes + size.nodes,
                    text_bytes: sum.text_bytes + key_bytes + size.text_bytes,
                    depth: sum.depth.max(size.depth),
                }
            })
        };
        let inner = match &node.kind {
            NodeKind::List(items) => children(&mut items.iter().map(|item| (0, item))),
            NodeKind::Map(entries) => {
                children(&mut entries.iter().map(|(key, value)| (key.text.len(), value)))
            }
            NodeKind::Null | NodeKind::Scalar { .. } | NodeKind::Expanded { .. } => {
                return Size { nodes: 1, text_bytes: node.text().map_or(0, str::len), depth: 0 };
            }
        };
        Size { depth: inner.depth + 1, ..inner }
    }
}
