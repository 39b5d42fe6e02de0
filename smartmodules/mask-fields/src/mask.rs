//! The walk over an event. The JSON is checked first; then its bytes are copied but for the masked values, so that
//! numbers, order and spaces stay as they were written. Nesting is kept on a stack of its own: no depth of input
//! overflows the guest's.

use std::collections::BTreeMap;

use event::{Error, Params, Path, each, text, utf8, write_string};

use crate::paths::Node;

/// The parameters.
#[derive(Debug)]
pub struct Settings {
    root: Node,
    mask_json: Vec<u8>,
}

impl Settings {
    /// Reads `fields`, a comma-separated list of paths, and `mask`.
    pub fn new(params: BTreeMap<String, String>) -> Result<Self, Error> {
        let params = Params::new(params, &["fields", "mask"])?;
        params.required("fields")?;
        let mut root = Node::default();
        for path in params.list("fields", "")? {
            root.insert(&Path::parse("fields", path)?);
        }
        let mut mask_json = Vec::new();
        write_string(&mut mask_json, params.get("mask").unwrap_or("***"));
        Ok(Self { root, mask_json })
    }

    /// The event with the mask in place of the values of its fields.
    pub fn masked(&self, value: &[u8]) -> Result<Vec<u8>, Error> {
        let json = utf8(value)?;
        each(json, "", |_, _| ())?;
        let mut walk = Walk { json, at: 0, copied: 0, out: Vec::with_capacity(json.len()), open: Vec::new() };
        walk.enter(&self.root);
        walk.run(&self.mask_json);
        walk.copy_to(json.len());
        Ok(walk.out)
    }
}

/// An object or array that is being walked; `node` holds for the object, or for the items of the array.
#[derive(Clone, Copy)]
enum Open<'n> {
    Object(&'n Node),
    Array(&'n Node),
}

/// A position in JSON that is known to be valid.
struct Walk<'a, 'n> {
    json: &'a str,
    at: usize,
    copied: usize,
    out: Vec<u8>,
    open: Vec<Open<'n>>,
}

impl<'n> Walk<'_, 'n> {
    fn run(&mut self, mask_json: &[u8]) {
        while let (Some(open), Some(byte)) = (self.open.last().copied(), self.token()) {
            match (open, byte) {
                (_, b',') => self.at += 1,
                (_, b'}' | b']') => {
                    self.at += 1;
                    self.open.pop();
                }
                (Open::Object(node), _) => self.field(node, mask_json),
                (Open::Array(node), _) => self.enter(node),
            }
        }
    }

    /// A name, its colon and its value.
    fn field(&mut self, node: &'n Node, mask_json: &[u8]) {
        let start = self.at;
        self.skip_string();
        let name = text(&self.json[start..self.at]);
        let child = name.and_then(|name| node.child(&name));
        if self.token() == Some(b':') {
            self.at += 1;
        }
        match child {
            None => self.skip_value(),
            Some(child) if child.masked => {
                self.token();
                self.copy_to(self.at);
                self.out.extend_from_slice(mask_json);
                self.skip_value();
                self.copied = self.at;
            }
            Some(child) => self.enter(child),
        }
    }

    /// Steps into an object or array, and over any other value.
    fn enter(&mut self, node: &'n Node) {
        match self.token() {
            Some(b'{') => self.open.push(Open::Object(node)),
            Some(b'[') => self.open.push(Open::Array(node)),
            _ => return self.skip_value(),
        }
        self.at += 1;
    }

    /// The next byte that is no space, left in place.
    fn token(&mut self) -> Option<u8> {
        while self.peek().is_some_and(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.peek()
    }

    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    fn skip_value(&mut self) {
        match self.token() {
            Some(b'"') => self.skip_string(),
            Some(b'{' | b'[') => self.skip_nested(),
            _ => {
                while self
                    .peek()
                    .is_some_and(|b| !matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'))
                {
                    self.at += 1;
                }
            }
        }
    }

    fn skip_nested(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.skip_string();
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => (),
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                return;
            }
        }
    }

    fn copy_to(&mut self, end: usize) {
        self.out.extend_from_slice(&self.json.as_bytes()[self.copied..end]);
        self.copied = end;
    }
}

#[cfg(test)]
mod tests;
