//! The guest's side that every module shares: parameters in, settings made once per instance.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::OnceLock;

use fluvio_smartmodule::dataplane::core::{Decoder, Encoder};
use fluvio_smartmodule::dataplane::smartmodule::{SMARTMODULE_TIMESTAMPS_VERSION, SmartModuleExtraParams};
use fluvio_smartmodule::{Result, eyre};

use crate::Error;

/// How a module makes its settings from its parameters.
pub type Make<S> = fn(BTreeMap<String, String>) -> std::result::Result<S, Error>;

/// Makes the settings from the parameters of `init`.
pub fn init<S>(settings: &OnceLock<S>, params: &SmartModuleExtraParams, make: Make<S>) -> Result<()> {
    let made = make(names_and_values(params)?)?;
    settings.set(made).map_err(|_| eyre!("init was called twice"))
}

/// The settings; those of no parameters where the host has not called `init`.
pub fn settings<S>(settings: &OnceLock<S>, make: Make<S>) -> Result<&S> {
    match settings.get() {
        Some(made) => Ok(made),
        None => {
            let made = make(BTreeMap::new())?;
            Ok(settings.get_or_init(|| made))
        }
    }
}

/// `SmartModuleExtraParams` answers for a name but does not list its names; its encoding begins with them.
fn names_and_values(params: &SmartModuleExtraParams) -> Result<BTreeMap<String, String>> {
    let mut bytes = Vec::new();
    params.encode(&mut bytes, SMARTMODULE_TIMESTAMPS_VERSION)?;
    let mut values = BTreeMap::new();
    Decoder::decode(&mut values, &mut Cursor::new(bytes), SMARTMODULE_TIMESTAMPS_VERSION)?;
    Ok(values)
}
