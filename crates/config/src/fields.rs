//! Which fields a message can have at a place of a pipeline, so that a template on one that cannot exist is found
//! before the first event.

use millrace_core::{
    Template,
    settings::{Node, NodeKind, Object, Problems, Shape, suggest},
};

/// The top-level fields of an event: its own envelope, and that of CloudEvents.
pub const ENVELOPE_FIELDS: &[&str] = &[
    "eventId",
    "eventType",
    "bizId",
    "occurredAt",
    "timestamp",
    "source",
    "correlationId",
    "traceparent",
    "specversion",
    "id",
    "type",
    "subject",
    "time",
    "data",
    "payload",
];

/// The top-level fields that messages can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fields {
    /// Any.
    Any,
    /// Those of an event, and what lookups added.
    Event { added: Vec<FieldName> },
    /// What a module makes, and what lookups added.
    Output { module: String, names: Vec<FieldName> },
}

/// The name of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldName {
    pub(crate) text: String,
    /// Whether an error may show it: not when it came from a variable.
    pub(crate) shown: bool,
}

impl FieldName {
    /// A name that is known beforehand.
    pub(crate) fn known(text: &str) -> Self {
        FieldName { text: text.to_owned(), shown: true }
    }
}

impl Fields {
    /// Whether a message can have the field.
    pub(crate) fn may_have(&self, name: &str) -> bool {
        match self {
            Fields::Any => true,
            Fields::Event { added } => {
                ENVELOPE_FIELDS.contains(&name) || added.iter().any(|n| n.text == name)
            }
            Fields::Output { names, .. } => names.iter().any(|n| n.text == name),
        }
    }

    /// Whether it is known to have the field, or at least reserved for it.
    pub(crate) fn has(&self, name: &str) -> bool {
        *self != Fields::Any && self.may_have(name)
    }

    /// Adds a field.
    pub(crate) fn add(&mut self, name: FieldName) {
        match self {
            Fields::Any => {}
            Fields::Event { added: names } | Fields::Output { names, .. } => names.push(name),
        }
    }

    /// Checks the templates of a mapping.
    pub(crate) fn check_object(&self, node: &Node, object: &Object, path: &str, problems: &mut Problems) {
        for (key, value) in node.entries() {
            if let Some(field) = object.fields.iter().find(|field| field.key == key.text) {
                self.check_shape(value, &field.shape, &format!("{path}.{}", key.text), problems);
            }
        }
    }

    fn check_shape(&self, node: &Node, shape: &Shape, path: &str, problems: &mut Problems) {
        match shape {
            Shape::Template => self.check_template(node, path, problems),
            Shape::Op(_) if !matches!(node.kind, NodeKind::Map(_)) => {
                self.check_template(node, path, problems);
            }
            Shape::Object(object) => self.check_object(node, object, path, problems),
            Shape::List(item) => {
                for (index, value) in node.items().iter().enumerate() {
                    self.check_shape(value, item, &format!("{path}[{index}]"), problems);
                }
            }
            Shape::Map(item) => {
                for (key, value) in node.entries() {
                    self.check_shape(value, item, &format!("{path}.{}", key.text), problems);
                }
            }
            Shape::OneOf(fields) => {
                for (key, value) in node.entries() {
                    if let Some(field) = fields.iter().find(|field| field.key == key.text) {
                        self.check_shape(value, &field.shape, &format!("{path}.{}", key.text), problems);
                    }
                }
            }
            _ => {}
        }
    }

    /// Checks one template.
    pub(crate) fn check_template(&self, node: &Node, path: &str, problems: &mut Problems) {
        let Some(template) = node.text().and_then(|text| Template::parse(text).ok()) else { return };
        let shown = node.shown().unwrap_or_default();
        for hole in template.paths() {
            let Some(name) = hole.first().filter(|name| !self.may_have(name)) else { continue };
            if node.is_expanded() {
                problems.add(
                    node.at,
                    path,
                    format!("template '{shown}' names a field that cannot exist here"),
                );
                return;
            }
            let message = format!("template '{shown}': there can be no field '{name}' here");
            problems.suggest(node.at, path, message, self.advice(&hole.join("."), name));
        }
    }

    fn advice(&self, hole: &str, name: &str) -> String {
        match self {
            Fields::Any => String::new(),
            Fields::Event { added } => {
                let known = ENVELOPE_FIELDS.iter().copied().chain(shown(added));
                match suggest(name, known) {
                    Some(meant) => format!("did you mean '{{{meant}}}'?"),
                    None => format!("a field of the payload is written '{{payload.{hole}}}'"),
                }
            }
            Fields::Output { module, names } => match suggest(name, shown(names)) {
                Some(meant) => format!("did you mean '{{{meant}}}'?"),
                None => {
                    format!("after '{module}' there are: {}", shown(names).collect::<Vec<_>>().join(", "))
                }
            },
        }
    }
}

fn shown(names: &[FieldName]) -> impl Iterator<Item = &str> {
    names.iter().filter(|name| name.shown).map(|name| name.text.as_str())
}
