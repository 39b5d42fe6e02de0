//! A map for the conformance kit. `where` asks for offset, time and what `look_back` was shown; `unkey` and `rekey`
//! for another key.

mod shared;

use fluvio_smartmodule::{RecordData, Result, SmartModuleRecord, smartmodule};
use shared::{changed, state, wish};

/// Adds the suffix.
#[smartmodule(map)]
pub fn map(record: &SmartModuleRecord) -> Result<(Option<RecordData>, RecordData)> {
    let value = record.value.as_ref();
    let key = match value {
        b"unkey" => None,
        b"rekey" => Some("another".into()),
        _ => record.key().cloned(),
    };
    if value == b"where" {
        let text = format!("{} {} {}", record.offset(), record.timestamp(), state().looked_back);
        return Ok((key, text.into()));
    }
    Ok((key, changed(&wish(value)?, value).into()))
}
