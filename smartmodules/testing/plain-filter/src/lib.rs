//! A filter as a module's author finds it in Fluvio's documentation, with nothing of ours in it: keeps the records
//! whose text contains an `a`, and refuses what is not UTF-8.

use fluvio_smartmodule::{Result, SmartModuleRecord, smartmodule};

/// Keeps a record whose text contains an `a`.
#[smartmodule(filter)]
pub fn filter(record: &SmartModuleRecord) -> Result<bool> {
    let text = std::str::from_utf8(record.value.as_ref())?;
    Ok(text.contains('a'))
}
