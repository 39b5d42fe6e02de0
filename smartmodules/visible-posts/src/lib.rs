//! `visible-posts`, a filter: lets an event pass unless its post's visibility is one of those to hide.

pub mod visibility;

#[cfg(target_family = "wasm")]
mod guest {
    use std::sync::OnceLock;

    use event::guest;
    use fluvio_smartmodule::dataplane::core::Encoder;
    use fluvio_smartmodule::dataplane::smartmodule::{
        SMARTMODULE_TIMESTAMPS_VERSION, SmartModuleExtraParams,
    };
    use fluvio_smartmodule::{Result, SmartModuleRecord, smartmodule};

    use crate::visibility::Settings;

    static SETTINGS: OnceLock<Settings> = OnceLock::new();

    #[smartmodule(init)]
    fn init(params: SmartModuleExtraParams) -> Result<()> {
        let mut encoded = Vec::new();
        params.encode(&mut encoded, SMARTMODULE_TIMESTAMPS_VERSION)?;
        Ok(guest::init(&SETTINGS, &encoded, Settings::new)?)
    }

    #[smartmodule(filter)]
    fn filter(record: &SmartModuleRecord) -> Result<bool> {
        Ok(guest::settings(&SETTINGS, Settings::new)?.passes(record.value.as_ref())?)
    }
}
