//! Event types: the ones a pipeline reads, and the settings that name some of them.

use std::collections::HashSet;

use indexmap::IndexMap;
use millrace_core::settings::{Field, Node, NodeKind, Object, Problems, Shape};

use crate::{names::advice, plan::RecordFormat};

/// Event types, each with the text that an error may show for it.
pub(crate) type EventTypes = IndexMap<String, String>;

/// The event types that can reach the steps and sinks of a pipeline.
pub(crate) struct Events {
    pub(crate) format: RecordFormat,
    /// None: all.
    pub(crate) listed: Option<EventTypes>,
}

impl Events {
    /// Checks a list of event types and returns it, each once.
    pub(crate) fn check_list(&self, node: &Node, path: &str, problems: &mut Problems) -> EventTypes {
        let mut types = EventTypes::new();
        for (index, item) in node.items().iter().enumerate() {
            let Some(text) = item.text() else { continue };
            let path = format!("{path}[{index}]");
            let shown = item.shown().unwrap_or_default();
            if types.insert(text.to_owned(), shown.clone()).is_some() {
                problems.add(item.at, &path, format!("the event type '{shown}' stands twice"));
            } else if let Some(listed) = self.listed.as_ref().filter(|listed| !listed.contains_key(text)) {
                let known =
                    listed.iter().filter(|(text, shown)| text == shown).map(|(text, _)| text.as_str());
                let meant = if item.is_expanded() { "" } else { text };
                problems.suggest(
                    item.at,
                    &path,
                    format!("the event type '{shown}' is not among 'from.events'"),
                    advice(meant, "event type", known),
                );
            }
        }
        if self.format == RecordFormat::Bytes && !types.is_empty() {
            problems.suggest(
                node.at,
                path,
                "records read as bytes have no event type",
                "use 'format: json' in 'from'",
            );
        }
        types
    }

    /// Checks the operations that a sink takes from the event type. Unless a module may have filtered it, an
    /// event without an operation would become a dead letter each time.
    pub(crate) fn check_ops(
        &self,
        node: &Node,
        object: &Object,
        path: &str,
        filtered: bool,
        problems: &mut Problems,
    ) {
        for (key, value) in node.entries() {
            let is_op = |field: &Field| field.key == key.text && matches!(field.shape, Shape::Op(_));
            if object.fields.iter().any(is_op) && matches!(value.kind, NodeKind::Map(_)) {
                self.check_op(value, &format!("{path}.{}", key.text), filtered, problems);
            }
        }
    }

    fn check_op(&self, node: &Node, path: &str, filtered: bool, problems: &mut Problems) {
        let mut all = HashSet::new();
        for (word, types) in node.entries() {
            for (event_type, shown) in self.check_list(types, &format!("{path}.{}", word.text), problems) {
                let message = format!("the event type '{shown}' has two operations");
                if !all.insert(event_type) {
                    problems.add(word.at, path, message);
                }
            }
        }
        let Some(listed) = self.listed.as_ref().filter(|_| !filtered) else { return };
        for (_, shown) in listed.iter().filter(|(event_type, _)| !all.contains(*event_type)) {
            problems.suggest(
                node.at,
                path,
                format!("the event type '{shown}' of 'from.events' has no operation here"),
                "list it here, or take it out of 'from.events'",
            );
        }
    }
}
