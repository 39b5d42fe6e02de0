//! A filter map for the conformance kit, whose function takes the record in its older form.

#![allow(deprecated, reason = "what the attribute of fluvio-smartmodule generates for that form")]

mod shared;

use fluvio_smartmodule::{Record, RecordData, Result, smartmodule};
use shared::{Wish, changed, wish};

/// Adds the suffix to what is not to be dropped.
#[smartmodule(filter_map)]
pub fn filter_map(record: &Record) -> Result<Option<(Option<RecordData>, RecordData)>> {
    let value = record.value.as_ref();
    match wish(value)? {
        Wish::Drop => Ok(None),
        wish => Ok(Some((record.key.clone(), changed(&wish, value).into()))),
    }
}
