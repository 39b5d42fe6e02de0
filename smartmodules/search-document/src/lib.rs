//! `search-document`, a map: an event as a versioned document, or as the delete of one.

pub mod document;
mod status;

#[cfg(target_family = "wasm")]
mod guest {
    use std::sync::OnceLock;

    use event::guest;
    use fluvio_smartmodule::dataplane::core::Encoder;
    use fluvio_smartmodule::dataplane::smartmodule::{
        SMARTMODULE_TIMESTAMPS_VERSION, SmartModuleExtraParams,
    };
    use fluvio_smartmodule::{RecordData, Result, SmartModuleRecord, smartmodule};

    use crate::document::Settings;

    static SETTINGS: OnceLock<Settings> = OnceLock::new();

    #[smartmodule(init)]
    fn init(params: SmartModuleExtraParams) -> Result<()> {
        let mut encoded = Vec::new();
        params.encode(&mut encoded, SMARTMODULE_TIMESTAMPS_VERSION)?;
        Ok(guest::init(&SETTINGS, &encoded, Settings::new)?)
    }

    #[smartmodule(map)]
    fn map(record: &SmartModuleRecord) -> Result<(Option<RecordData>, RecordData)> {
        let value = guest::settings(&SETTINGS, Settings::new)?.document(record.value.as_ref())?;
        Ok((record.key.clone(), value.into()))
    }
}
