//! `count-by`, an aggregate: counts events by the value of a field.

pub mod count;

#[cfg(target_family = "wasm")]
mod guest {
    use std::sync::OnceLock;

    use event::guest;
    use fluvio_smartmodule::dataplane::core::Encoder;
    use fluvio_smartmodule::dataplane::smartmodule::{
        SMARTMODULE_TIMESTAMPS_VERSION, SmartModuleExtraParams,
    };
    use fluvio_smartmodule::{RecordData, Result, SmartModuleRecord, smartmodule};

    use crate::count::Settings;

    static SETTINGS: OnceLock<Settings> = OnceLock::new();

    #[smartmodule(init)]
    fn init(params: SmartModuleExtraParams) -> Result<()> {
        let mut encoded = Vec::new();
        params.encode(&mut encoded, SMARTMODULE_TIMESTAMPS_VERSION)?;
        Ok(guest::init(&SETTINGS, &encoded, Settings::new)?)
    }

    #[smartmodule(aggregate)]
    fn aggregate(accumulator: RecordData, record: &SmartModuleRecord) -> Result<RecordData> {
        let settings = guest::settings(&SETTINGS, Settings::new)?;
        Ok(settings.add(accumulator.as_ref(), record.value.as_ref())?.into())
    }
}
