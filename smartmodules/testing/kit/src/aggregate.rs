//! An aggregate for the conformance kit: the values so far, with the suffix behind each.

mod shared;

use fluvio_smartmodule::{RecordData, Result, SmartModuleRecord, smartmodule};
use shared::{Wish, changed, wish};

/// Appends the value; `drop` empties what there was.
#[smartmodule(aggregate)]
pub fn aggregate(accumulator: RecordData, record: &SmartModuleRecord) -> Result<RecordData> {
    let value = record.value.as_ref();
    match wish(value)? {
        Wish::Drop => Ok(RecordData::default()),
        wish => Ok([accumulator.as_ref(), &changed(&wish, value)].concat().into()),
    }
}
