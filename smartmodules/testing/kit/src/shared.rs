//! What the kit's modules have in common: parameters, the records from before, and what a value asks for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use fluvio_smartmodule::dataplane::smartmodule::{SmartModuleExtraParams, SmartModuleInitError};
use fluvio_smartmodule::{Result, SmartModuleRecord, eyre, smartmodule};

static STATE: Mutex<State> = Mutex::new(State { suffix: String::new(), looked_back: 0 });

/// What a module keeps from its start on.
pub struct State {
    /// The parameter `suffix`.
    pub suffix: String,
    /// Records that `look_back` was shown.
    pub looked_back: u64,
}

/// What a record's value asks for.
pub enum Wish {
    /// The value is to be dropped.
    Drop,
    /// A megabyte is to be made of it.
    Grow,
    /// Nothing in particular.
    Pass,
}

/// The state there is.
pub fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads `suffix`; `needs` names a parameter that must be given, and `refuse` is refused.
#[smartmodule(init)]
fn init(params: SmartModuleExtraParams) -> Result<()> {
    if let Some(reason) = params.get("refuse") {
        return Err(eyre!("refused: {reason}"));
    }
    if let Some(name) = params.get("needs").filter(|name| params.get(name).is_none()) {
        return Err(SmartModuleInitError::MissingParam(name.clone()).into());
    }
    state().suffix = params.get("suffix").cloned().unwrap_or_default();
    Ok(())
}

/// Counts the records from before. One whose value is `refuse` is an error.
#[smartmodule(look_back)]
pub fn look_back(record: &SmartModuleRecord) -> Result<()> {
    if record.value.as_ref() == b"refuse" {
        return Err(eyre!("refused to look back at {}", record.offset()));
    }
    state().looked_back += 1;
    Ok(())
}

/// What the value asks for; `error` and `number` ask for an error, one of the module's own and one of the library.
pub fn wish(value: &[u8]) -> Result<Wish> {
    match value {
        b"error" => Err(eyre!("asked to fail")),
        b"number" => Err("number".parse::<u8>().map(|_| ()).expect_err("invariant: it is none").into()),
        b"grow" => Ok(Wish::Grow),
        _ if value.starts_with(b"drop") => Ok(Wish::Drop),
        _ => Ok(Wish::Pass),
    }
}

/// The value with the suffix, or a megabyte.
#[allow(dead_code, reason = "a filter makes nothing")]
pub fn changed(wish: &Wish, value: &[u8]) -> Vec<u8> {
    match wish {
        Wish::Grow => vec![b'g'; 1 << 20],
        _ => [value, state().suffix.as_bytes()].concat(),
    }
}
