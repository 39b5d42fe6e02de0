//! The SmartModule ABI, version 22, as bytes: what the host writes into a guest and reads out of it.
//!
//! Integers are big endian; a string is a u16 length and bytes; a list is a u32 count and its items; an option is
//! a byte and the value; a varint is zigzag LEB128. Nothing in here knows of WASM.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub(crate) use decode::{DecodeError, RecordOut, decode_answer, decode_hint, decode_refusal};
pub(crate) use encode::{Base, Input, RecordIn, RecordsInput, encode_params};

/// The version passed to every call.
pub(crate) const VERSION: i32 = 22;

/// The import through which a guest hands over its output, in whatever namespace.
pub(crate) const COPY_RECORDS: &str = "copy_records";

/// The export by which an `array_map` says that each of its outputs has the offset of the record it was made of, in the
/// order of the records. It is no part of Fluvio's ABI: without it, or in Fluvio, nothing follows from such offsets.
pub(crate) const PROVENANCE: &str = "millrace_provenance_v1";

/// The code of `init` that goes with a hint.
pub(crate) const INIT_REFUSED: i32 = -2;

/// The code of `look_back` that goes with a hint and an offset.
pub(crate) const LOOK_BACK_REFUSED: i32 = -99;

/// The largest timestamp delta in milliseconds: guests encode varints of 32 bits.
pub(crate) const DELTA_MAX: i64 = i32::MAX as i64;

/// What a module does with records. A module is of the first kind, in this order, that it exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Keeps or drops each record.
    Filter,
    /// Makes one record of each.
    Map,
    /// Makes one record of each, or none.
    FilterMap,
    /// Makes any number of records of each.
    ArrayMap,
    /// Folds each record into an accumulator and answers its state.
    Aggregate,
}

impl Kind {
    /// All kinds, in the order a module's exports are looked at.
    pub const ALL: [Kind; 5] = [Kind::Filter, Kind::Map, Kind::FilterMap, Kind::ArrayMap, Kind::Aggregate];

    /// The name of the export.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Filter => "filter",
            Kind::Map => "map",
            Kind::FilterMap => "filter_map",
            Kind::ArrayMap => "array_map",
            Kind::Aggregate => "aggregate",
        }
    }
}

/// What a negative code of a transform or of `look_back` stands for.
pub(crate) fn code_meaning(code: i32) -> &'static str {
    match code {
        -11 | -10 | -66 => "cannot decode its input",
        -22 | -77 => "cannot decode the records",
        -33 | -88 => "cannot encode its output",
        -44 => "cannot decode its parameters",
        -55 => "cannot decode the join record",
        _ => "unknown error",
    }
}
