//! What can go wrong in a call, as codes and as the error that an answer carries.

use std::fmt;

use crate::record::{Offset, Record, RecordData};

/// The codes of a transform that has failed as a whole. An author's error is none of them: it is part of the answer.
#[repr(i32)]
#[derive(thiserror::Error, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SmartModuleTransformErrorStatus {
    /// Nothing else fits.
    #[default]
    #[error("encountered unknown error during SmartModule processing")]
    UnknownError = -1,
    /// The input is not what the ABI says.
    #[error("failed to decode SmartModule base input")]
    DecodingBaseInput = -11,
    /// A record of the input is not what the ABI says.
    #[error("failed to decode SmartModule record input")]
    DecodingRecords = -22,
    /// The answer does not fit.
    #[error("failed to encode SmartModule output")]
    EncodingOutput = -33,
    /// The parameters are not what the ABI says.
    #[error("failed to parse SmartModule extra params")]
    ParsingExtraParams = -44,
    /// Of joins, which are gone.
    #[error("undefined right record in Join SmartModule")]
    UndefinedRightRecord = -55,
}

/// The codes of `init`.
#[repr(i32)]
#[derive(thiserror::Error, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SmartModuleInitErrorStatus {
    /// Nothing else fits.
    #[default]
    #[error("encountered unknown error during SmartModule processing")]
    UnknownError = -1,
    /// The author's error, which the answer carries.
    #[error("Error during initialization")]
    InitError = -2,
    /// The input is not what the ABI says.
    #[error("failed to decode SmartModule init input")]
    DecodingInput = -10,
    /// The answer does not fit.
    #[error("failed to encode SmartModule init output")]
    EncodingOutput = -11,
}

/// The codes of `look_back`.
#[repr(i32)]
#[derive(thiserror::Error, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SmartModuleLookbackErrorStatus {
    /// Nothing else fits.
    #[default]
    #[error("encountered unknown error during SmartModule processing")]
    UnknownError = -1,
    /// The input is not what the ABI says.
    #[error("failed to decode SmartModule look_back input")]
    DecodingBaseInput = -66,
    /// A record of the input is not what the ABI says.
    #[error("failed to decode SmartModule look_back record input")]
    DecodingRecords = -77,
    /// The answer does not fit.
    #[error("failed to encode SmartModule look_back output")]
    EncodingOutput = -88,
    /// The author's error, which the answer carries.
    #[error("Error returned from user look_back function call")]
    PropagatedError = -99,
}

/// What an author's `init` says of parameters.
#[derive(thiserror::Error, Debug)]
pub enum SmartModuleInitError {
    /// One that must be given is not.
    #[error("Missing param {0}")]
    MissingParam(String),
}

/// What a module does with records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SmartModuleKind {
    /// Keeps or drops each record.
    #[default]
    Filter,
    /// Makes one record of each.
    Map,
    /// Makes any number of records of each.
    ArrayMap,
    /// Folds records into an accumulator.
    Aggregate,
    /// Makes one record of each, or none.
    FilterMap,
    /// Of earlier versions.
    Join,
    /// Not known.
    Generic,
}

/// An author's error about a record of a transform.
#[derive(thiserror::Error, Clone, Debug, Default, PartialEq, Eq)]
#[error("{hint}\n\nSmartModule Info: \n    Type: {kind}\n    Offset: {offset}\n    Key: {}\n    Value: {}", shown(record_key.as_ref()), shown(Some(record_value)))]
pub struct SmartModuleTransformRuntimeError {
    /// For people, not for code.
    pub hint: String,
    /// The record's place.
    pub offset: Offset,
    /// What the module is.
    pub kind: SmartModuleKind,
    /// The record's key.
    pub record_key: Option<RecordData>,
    /// The record's value.
    pub record_value: RecordData,
}

/// An author's error about parameters.
#[derive(thiserror::Error, Clone, Debug, Default, PartialEq, Eq)]
#[error("{hint}\n\nSmartModule Init Error: \n")]
pub struct SmartModuleInitRuntimeError {
    /// For people, not for code.
    pub hint: String,
}

/// An author's error about a record of `look_back`.
#[derive(thiserror::Error, Clone, Debug, Default, PartialEq, Eq)]
#[error("{hint}\n\nSmartModule Lookback Error: \n    Offset: {offset}\n    Key: {}\n    Value: {}", shown(record_key.as_ref()), shown(Some(record_value)))]
pub struct SmartModuleLookbackRuntimeError {
    /// For people, not for code.
    pub hint: String,
    /// The record's place.
    pub offset: Offset,
    /// The record's key.
    pub record_key: Option<RecordData>,
    /// The record's value.
    pub record_value: RecordData,
}

impl fmt::Display for SmartModuleKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

impl SmartModuleTransformRuntimeError {
    /// What the author said of a record.
    #[expect(clippy::needless_pass_by_value, reason = "the signature is Fluvio's")]
    pub fn new(record: &Record, base_offset: Offset, kind: SmartModuleKind, error: eyre::Error) -> Self {
        SmartModuleTransformRuntimeError {
            hint: hint_of(&error),
            offset: base_offset.saturating_add(record.offset_delta()),
            kind,
            record_key: record.key.clone(),
            record_value: record.value.clone(),
        }
    }
}

impl SmartModuleInitRuntimeError {
    /// What the author said of parameters.
    #[expect(clippy::needless_pass_by_value, reason = "the signature is Fluvio's")]
    pub fn new(error: eyre::Error) -> Self {
        SmartModuleInitRuntimeError { hint: hint_of(&error) }
    }
}

impl SmartModuleLookbackRuntimeError {
    /// What the author said of a record.
    #[expect(clippy::needless_pass_by_value, reason = "the signature is Fluvio's")]
    pub fn new(record: &Record, base_offset: Offset, error: eyre::Error) -> Self {
        SmartModuleLookbackRuntimeError {
            hint: hint_of(&error),
            offset: base_offset.saturating_add(record.offset_delta()),
            record_key: record.key.clone(),
            record_value: record.value.clone(),
        }
    }
}

/// The error with its causes and its place in the source, as Fluvio's SDK words it.
fn hint_of(error: &eyre::Error) -> String {
    format!("{error:?}")
}

fn shown(data: Option<&RecordData>) -> String {
    match data {
        None => "NULL".to_owned(),
        Some(data) => match data.as_str() {
            Ok(text) => text.to_owned(),
            Err(_) => format!("Binary: {} bytes", data.len()),
        },
    }
}
