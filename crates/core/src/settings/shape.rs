//! Shapes: what may stand where. A component declares its settings as a table of fields.

/// A component or part of one: a mapping with known keys.
#[derive(Debug)]
pub struct Object {
    /// The name in schema and docs: `timeline`.
    pub name: &'static str,
    /// What it is, one or two sentences.
    pub doc: &'static str,
    /// Its keys.
    pub fields: &'static [Field],
}

/// One key of a mapping.
#[derive(Debug)]
pub struct Field {
    /// The key.
    pub key: &'static str,
    /// What it means, with its unit.
    pub doc: &'static str,
    /// What may stand there.
    pub shape: Shape,
    /// Whether it must be given.
    pub required: bool,
    /// What holds when it is not given, as one would write it.
    pub default: Option<&'static str>,
}

/// What may stand at a place.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Any text.
    Text,
    /// Text with `{field}` holes: see [`crate::Template`].
    Template,
    /// An integer within bounds, both included.
    Integer {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// `true` or `false`.
    Flag,
    /// A time span with its unit: `500ms`, `30s`, `5m`, `168h`, `30d`.
    Duration,
    /// An amount of bytes with its unit: `64KiB`, `1GiB`, or a plain number of bytes.
    Size,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A path to a file, relative to the YAML file.
    Path,
    /// Any scalar, also an empty one; the component gives it a meaning.
    Scalar,
    /// Text that must never be shown.
    Secret,
    /// An operation: a template that gives one of these words, or a mapping from word to event types.
    Op(&'static [&'static str]),
    /// A list of equal items.
    List(&'static Shape),
    /// A mapping from free names to equal values.
    Map(&'static Shape),
    /// A mapping with known keys.
    Object(&'static Object),
    /// A mapping with exactly one of these keys.
    OneOf(&'static [Field]),
    /// Anything; the component checks it itself.
    Any,
}

/// A kind of component that YAML names: a broker, a store or a sink.
#[derive(Debug)]
pub struct Kind {
    /// The key that selects it: `kafka`, `timeline`.
    pub name: &'static str,
    /// Its settings.
    pub settings: &'static Object,
}

impl Field {
    /// A key that must be given.
    pub const fn required(key: &'static str, shape: Shape, doc: &'static str) -> Self {
        Field { key, doc, shape, required: true, default: None }
    }

    /// A key that may be left out, without a default.
    pub const fn optional(key: &'static str, shape: Shape, doc: &'static str) -> Self {
        Field { key, doc, shape, required: false, default: None }
    }

    /// A key that may be left out, with what holds then.
    pub const fn with_default(
        key: &'static str,
        shape: Shape,
        default: &'static str,
        doc: &'static str,
    ) -> Self {
        Field { key, doc, shape, required: false, default: Some(default) }
    }
}
