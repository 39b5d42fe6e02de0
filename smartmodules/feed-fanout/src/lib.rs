//! `feed-fanout`, an array map: one record per follower of a post's author, keyed by the follower.

pub mod fanout;

#[cfg(target_family = "wasm")]
mod guest {
    use std::sync::OnceLock;

    use event::guest;
    use fluvio_smartmodule::dataplane::core::Encoder;
    use fluvio_smartmodule::dataplane::smartmodule::{
        SMARTMODULE_TIMESTAMPS_VERSION, SmartModuleExtraParams,
    };
    use fluvio_smartmodule::{RecordData, Result, SmartModuleRecord, smartmodule};

    use crate::fanout::Settings;

    static SETTINGS: OnceLock<Settings> = OnceLock::new();

    #[smartmodule(init)]
    fn init(params: SmartModuleExtraParams) -> Result<()> {
        let mut encoded = Vec::new();
        params.encode(&mut encoded, SMARTMODULE_TIMESTAMPS_VERSION)?;
        Ok(guest::init(&SETTINGS, &encoded, Settings::new)?)
    }

    #[smartmodule(array_map)]
    fn array_map(record: &SmartModuleRecord) -> Result<Vec<(Option<RecordData>, RecordData)>> {
        let entries = guest::settings(&SETTINGS, Settings::new)?.entries(record.value.as_ref())?;
        Ok(entries.map(|entry| (Some(entry.key.into()), entry.value.into())).collect())
    }
}
