//! An array map for the conformance kit. `split` asks for an output for each byte of the key, `empty` for one without
//! key and value.

mod shared;

use fluvio_smartmodule::{RecordData, Result, SmartModuleRecord, smartmodule};
use shared::{Wish, changed, wish};

/// One output with the suffix, or none, or several.
#[smartmodule(array_map)]
pub fn array_map(record: &SmartModuleRecord) -> Result<Vec<(Option<RecordData>, RecordData)>> {
    let value = record.value.as_ref();
    match (value, wish(value)?) {
        (b"split", _) => {
            let key = record.key().map_or(&[][..], AsRef::as_ref);
            Ok(key.iter().map(|byte| (Some(vec![*byte].into()), value.into())).collect())
        }
        (b"empty", _) => Ok(vec![(None, RecordData::default())]),
        (_, Wish::Drop) => Ok(Vec::new()),
        (_, wish) => Ok(vec![(record.key().cloned(), changed(&wish, value).into())]),
    }
}
