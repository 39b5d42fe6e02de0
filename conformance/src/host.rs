//! A host as the kit sees it: it opens a module and calls it with batches.

use std::collections::BTreeMap;

/// A record to be processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its place in the partition.
    pub offset: i64,
    /// When it was made, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Vec<u8>,
}

/// A record that a module made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The place of the record it was made of; none where host and module together cannot say.
    pub offset: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Vec<u8>,
}

/// What became of a batch up to its first error. What a host does with the records after that is its own business.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// In their order.
    pub outputs: Vec<Output>,
    /// The place of the record that the module refused, and the first line of its words.
    pub error: Option<(i64, String)>,
}

/// How a module is used.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// For `init`.
    pub params: BTreeMap<String, String>,
    /// The records from before that `look_back` is shown; none leaves it uncalled.
    pub history: Option<Vec<Input>>,
}

/// A host.
pub trait Host: Sync {
    /// For messages.
    fn name(&self) -> &'static str;

    /// Opens a module: compiled, initialised, shown its history.
    ///
    /// # Errors
    /// The host's words about what the module, or its author, refused.
    fn open(&self, wasm: &[u8], usage: &Usage) -> Result<Box<dyn Guest>, String>;
}

/// An open module.
pub trait Guest {
    /// Processes a batch.
    ///
    /// # Errors
    /// The host's words about a module that failed, as opposed to refusing a record.
    fn call(&mut self, batch: &[Input]) -> Result<Answer, String>;
}

/// The first line of an author's words: what follows may be a place in the source.
pub fn first_line(words: &str) -> String {
    words.lines().next().unwrap_or_default().to_owned()
}
