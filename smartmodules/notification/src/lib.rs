//! `notification`, a filter map: likes, comments and follows become notifications of the person they concern.

pub mod notice;

#[cfg(target_family = "wasm")]
mod guest {
    use std::sync::OnceLock;

    use event::guest;
    use fluvio_smartmodule::dataplane::core::Encoder;
    use fluvio_smartmodule::dataplane::smartmodule::{
        SMARTMODULE_TIMESTAMPS_VERSION, SmartModuleExtraParams,
    };
    use fluvio_smartmodule::{RecordData, Result, SmartModuleRecord, smartmodule};

    use crate::notice::Settings;

    static SETTINGS: OnceLock<Settings> = OnceLock::new();

    #[smartmodule(init)]
    fn init(params: SmartModuleExtraParams) -> Result<()> {
        let mut encoded = Vec::new();
        params.encode(&mut encoded, SMARTMODULE_TIMESTAMPS_VERSION)?;
        Ok(guest::init(&SETTINGS, &encoded, Settings::new)?)
    }

    #[smartmodule(filter_map)]
    fn filter_map(record: &SmartModuleRecord) -> Result<Option<(Option<RecordData>, RecordData)>> {
        let notice = guest::settings(&SETTINGS, Settings::new)?.notice(record.value.as_ref())?;
        Ok(notice.map(|notice| (Some(notice.recipient.into()), notice.json.into())))
    }
}
