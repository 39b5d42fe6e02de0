//! Text to a tree of located nodes. YAML as people write it in configuration: one document, text keys, anchors
//! and aliases; tags, merge keys and keys that stand twice are refused, because each of them hides something.

use std::collections::HashMap;

use millrace_core::settings::{Key, Location, Node, NodeKind, Problem, Problems};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use crate::tree::{Frame, Size, Tree};

/// The largest file.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// The deepest nesting of mappings and lists.
pub const DEPTH_MAX: usize = 32;
/// The most values, counted after aliases have been replaced by what they stand for.
pub const NODES_MAX: usize = 100_000;
/// The most text, counted after aliases and variables have been replaced.
pub const TEXT_BYTES_MAX: usize = 4 << 20;
/// The longest key.
pub const KEY_BYTES_MAX: usize = 256;

/// Reads a file's text into a tree.
///
/// # Errors
/// All mistakes up to the first that leaves no tree to go on with.
pub fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let (node, problems) = parse_all(text);
    match node {
        Some(node) if problems.is_empty() => Ok(node),
        _ => Err(problems.into_sorted()),
    }
}

/// The tree as far as there is one, and the mistakes.
pub(crate) fn parse_all(text: &str) -> (Option<Node>, Problems) {
    let mut problems = Problems::default();
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes, at most {FILE_BYTES_MAX} are allowed", text.len());
        problems.add(START, "", message);
        return (None, problems);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some((at, c)) = control_character(text) {
        problems.add(at, "", format!("control character U+{:04X}", c as u32));
        return (None, problems);
    }
    let lines = lines(text).collect();
    let mut reader = Reader { lines, tree: Tree::default(), anchors: HashMap::new(), documents: 0, problems };
    match reader.read(text) {
        Ok(()) => {
            let root = reader.tree.root.take();
            if root.as_ref().is_none_or(|root| root.kind == NodeKind::Null) {
                reader.problems.suggest(START, "", "the file is empty", "begin with 'version: 1'");
                return (None, reader.problems);
            }
            (root, reader.problems)
        }
        Err(Stop) => (None, reader.problems),
    }
}

const START: Location = Location { line: 1, column: 1 };

/// Reading cannot go on; the problem has been added.
struct Stop;

struct Reader<'a> {
    lines: Vec<&'a str>,
    tree: Tree,
    anchors: HashMap<usize, (Node, Size)>,
    documents: usize,
    problems: Problems,
}

impl Reader<'_> {
    fn read(&mut self, text: &str) -> Result<(), Stop> {
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            match event {
                Ok((event, span)) => self.event(event, location(&span.start))?,
                Err(error) => return self.syntax_error(&error),
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, at: Location) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return self.stop(at, "a second document in one file", "remove the line '---'");
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), at);
                let plain = style == ScalarStyle::Plain;
                let at = match style {
                    ScalarStyle::Literal | ScalarStyle::Folded => self.block_header(at),
                    _ => at,
                };
                if self.tree.wants_key() {
                    return self.key(&text, plain, at);
                }
                self.grow(Size { nodes: 1, text_bytes: text.len(), depth: 0 }, at)?;
                let kind = if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
                    NodeKind::Null
                } else {
                    NodeKind::Scalar { text: text.into_owned(), plain }
                };
                self.finish(Node { at, kind }, anchor)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), at);
                self.open(Frame::list(at, anchor))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), at);
                self.open(Frame::map(at, anchor))?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((node, anchor)) = self.tree.close() {
                    self.finish(node, anchor)?;
                }
            }
            Event::Alias(anchor) => self.alias(anchor, at)?,
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Nothing => {}
        }
        Ok(())
    }

    fn key(&mut self, text: &str, plain: bool, at: Location) -> Result<(), Stop> {
        if text.is_empty() {
            return self.stop(at, "a key is missing before ':'", "write 'key: value'");
        }
        if text.len() > KEY_BYTES_MAX {
            let message = format!("a key of {} bytes, at most {KEY_BYTES_MAX} are allowed", text.len());
            return self.stop(at, &message, "shorten it");
        }
        self.grow(Size { nodes: 0, text_bytes: text.len(), depth: 0 }, at)?;
        if plain && text == "<<" {
            let path = self.tree.path();
            self.problems.suggest(
                at,
                &path,
                "merge keys ('<<') are not supported",
                "write the keys out, or use an alias for the whole value",
            );
        }
        if let Some(first) = self.tree.begin_entry(Key { at, text: text.to_owned() }) {
            let message = format!("the key '{text}' stands twice, first in line {}", first.line);
            let path = self.tree.path();
            self.problems.suggest(at, &path, message, "remove one of them");
        }
        Ok(())
    }

    fn open(&mut self, frame: Frame) -> Result<(), Stop> {
        let at = frame.at;
        if self.tree.wants_key() {
            return self.stop(at, "a key must be text", "text that begins with '{' or '[' needs quotes");
        }
        self.grow(Size { nodes: 1, text_bytes: 0, depth: 1 }, at)?;
        self.tree.open(frame);
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: Location) -> Result<(), Stop> {
        if self.tree.wants_key() {
            return self.stop(at, "a key must be text, not an alias", "write the key out");
        }
        let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
            return self.stop(at, "an alias inside the value of its own anchor", "write the value out");
        };
        self.grow(size, at)?;
        self.finish(node, 0)
    }

    /// Takes a whole value; one with an anchor is also kept for its aliases, which costs as much again.
    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        if anchor > 0 {
            let size = Size::of(&node);
            self.grow(Size { depth: 0, ..size }, node.at)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        self.tree.add(node);
        Ok(())
    }

    fn grow(&mut self, size: Size, at: Location) -> Result<(), Stop> {
        let wrong = match self.tree.grow(size) {
            total if total.depth > DEPTH_MAX => too_deep(),
            total if total.nodes > NODES_MAX => {
                format!("more than {NODES_MAX} values, counting what aliases stand for")
            }
            total if total.text_bytes > TEXT_BYTES_MAX => {
                format!("more than {TEXT_BYTES_MAX} bytes of text, counting what aliases stand for")
            }
            _ => return Ok(()),
        };
        let path = self.tree.path();
        self.problems.add(at, &path, wrong);
        Err(Stop)
    }

    fn refuse_tag(&mut self, tagged: bool, at: Location) {
        if tagged {
            let path = self.tree.path();
            self.problems.suggest(
                at,
                &path,
                "tags ('!…') are not supported",
                "text that begins with '!' needs quotes",
            );
        }
    }

    fn stop(&mut self, at: Location, message: &str, advice: &str) -> Result<(), Stop> {
        let path = self.tree.path();
        self.problems.suggest(at, &path, message, advice);
        Err(Stop)
    }

    /// The parser places a block of text at its first line; its place is where `|` or `>` stands.
    fn block_header(&self, content: Location) -> Location {
        let above = self.lines.iter().enumerate().take(content.line.saturating_sub(1)).rev();
        let header = above.filter_map(|(index, line)| {
            let mark = line.rfind(['|', '>'])?;
            let rest =
                line[mark + 1..].trim_start_matches(|c: char| matches!(c, '+' | '-') || c.is_ascii_digit());
            let ends = rest.trim().is_empty() || rest.trim_start().starts_with('#');
            ends.then(|| Location { line: index + 1, column: line[..mark].chars().count() + 1 })
        });
        header.into_iter().next().unwrap_or(content)
    }

    fn syntax_error(&mut self, error: &ScanError) -> Result<(), Stop> {
        let at = location(error.marker());
        let path = self.tree.path();
        if error.info().contains("recursion limit") {
            self.problems.add(at, &path, too_deep());
            return Err(Stop);
        }
        let message = format!("not YAML: {}", error.info());
        let line = self.lines.get(at.line.saturating_sub(1)).copied().unwrap_or_default();
        if line.contains('{') {
            let advice =
                "close every bracket and quote; text with braces needs quotes, as \"feed:{follower}\"";
            self.problems.suggest(at, &path, message, advice);
        } else if line.contains('\t') {
            self.problems.suggest(at, &path, message, "indent with spaces, not with tabs");
        } else {
            self.problems.add(at, &path, message);
        }
        Err(Stop)
    }
}

fn too_deep() -> String {
    format!("nested deeper than {DEPTH_MAX} levels")
}

/// The lines of a text as YAML counts them.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\n', '\r']) else {
            rest = None;
            return Some(text);
        };
        let width = if text[end..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[end + width..]);
        Some(&text[..end])
    })
}

fn location(marker: &Marker) -> Location {
    Location { line: marker.line(), column: marker.col() + 1 }
}

/// YAML allows none but these in any place, and the parser would take U+0000 for the end of the file.
fn control_character(text: &str) -> Option<(Location, char)> {
    let is_wrong = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    lines(text).enumerate().find_map(|(index, line)| {
        let (column, c) = line.chars().enumerate().find(|(_, c)| is_wrong(*c))?;
        Some((Location { line: index + 1, column: column + 1 }, c))
    })
}

#[cfg(test)]
#[path = "parse/tests.rs"]
mod tests;
