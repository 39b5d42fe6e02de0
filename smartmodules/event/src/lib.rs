//! The JSON event envelope as the shipped SmartModules read it: one pass over the bytes, fields borrowed as they
//! were written, and an error that names the field at fault and never quotes what was in it.

mod envelope;
mod error;
mod fields;
pub mod guest;
mod params;
mod path;
mod time;

pub use envelope::{ENVELOPE_FIELDS, Event, utf8};
pub use error::Error;
pub use fields::{Field, INTEGER_MAX, each, object, pick, text};
pub use params::Params;
pub use path::{Path, Segment};
pub use time::rfc3339_ms;

/// Appends `text` to `out` as a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("invariant: a string is always written to memory");
}
