//! What the program knows of a SmartModule without running it.

/// A module that is part of the program, under the name pipelines use.
#[derive(Clone, Copy, Debug)]
pub struct ShippedModule {
    /// The name in `uses:`.
    pub name: &'static str,
    /// One line on what it does.
    pub doc: &'static str,
    /// The compiled module.
    pub wasm: &'static [u8],
    /// The names of its parameters.
    pub params: &'static [&'static str],
    /// The top-level fields of its output where it changes the shape; none: output has the input's shape.
    pub output_fields: Option<&'static [&'static str]>,
}
