//! The paths to mask as a tree, so that an event is walked once for all of them.

use event::Path;

/// A name on the way to a field, or the field itself.
#[derive(Debug, Default)]
pub struct Node {
    /// Whether the value here is masked, with all that is in it.
    pub masked: bool,
    children: Vec<(String, Node)>,
}

impl Node {
    /// Adds a path below this node.
    pub fn insert(&mut self, path: &Path) {
        let mut node = self;
        for segment in path.segments() {
            let known = node.children.iter().position(|(name, _)| *name == segment.name);
            let at = known.unwrap_or_else(|| {
                node.children.push((segment.name.clone(), Node::default()));
                node.children.len() - 1
            });
            node = &mut node.children[at].1;
        }
        node.masked = true;
    }

    /// The node of a field of this name.
    pub fn child(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|(known, _)| known == name).map(|(_, node)| node)
    }
}
