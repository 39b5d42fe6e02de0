//! `mask-fields`, a map: puts a mask in place of the values of named fields and leaves every other byte as it is.

pub mod mask;
mod paths;

#[cfg(target_family = "wasm")]
mod guest {
    use std::sync::OnceLock;

    use event::guest;
    use fluvio_smartmodule::dataplane::core::Encoder;
    use fluvio_smartmodule::dataplane::smartmodule::{
        SMARTMODULE_TIMESTAMPS_VERSION, SmartModuleExtraParams,
    };
    use fluvio_smartmodule::{RecordData, Result, SmartModuleRecord, smartmodule};

    use crate::mask::Settings;

    static SETTINGS: OnceLock<Settings> = OnceLock::new();

    #[smartmodule(init)]
    fn init(params: SmartModuleExtraParams) -> Result<()> {
        let mut encoded = Vec::new();
        params.encode(&mut encoded, SMARTMODULE_TIMESTAMPS_VERSION)?;
        Ok(guest::init(&SETTINGS, &encoded, Settings::new)?)
    }

    #[smartmodule(map)]
    fn map(record: &SmartModuleRecord) -> Result<(Option<RecordData>, RecordData)> {
        let value = guest::settings(&SETTINGS, Settings::new)?.masked(record.value.as_ref())?;
        Ok((record.key.clone(), value.into()))
    }
}
