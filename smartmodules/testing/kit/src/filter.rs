//! A filter for the conformance kit. `seen` asks whether `look_back` was shown anything.

mod shared;

use fluvio_smartmodule::{Result, SmartModuleRecord, smartmodule};
use shared::{Wish, state, wish};

/// Keeps what is not to be dropped.
#[smartmodule(filter)]
pub fn filter(record: &SmartModuleRecord) -> Result<bool> {
    if record.value.as_ref() == b"seen" {
        return Ok(state().looked_back > 0);
    }
    Ok(!matches!(wish(record.value.as_ref())?, Wish::Drop))
}
