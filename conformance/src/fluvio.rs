//! fluvio-smartengine, the host inside Fluvio.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use fluvio_protocol::record::{Record, RecordData};
use fluvio_smartengine::{
    Lookback, SmartEngine, SmartModuleChainBuilder, SmartModuleChainInstance, SmartModuleConfig,
};
use fluvio_smartmodule::{
    SMARTMODULE_TIMESTAMPS_VERSION as ABI_VERSION, dataplane::smartmodule::SmartModuleInput,
};

use crate::host::{Answer, Guest, Host, Input, Output, Usage, first_line};

/// See the module's documentation.
pub struct Fluvio(SmartEngine);

struct Open {
    chain: SmartModuleChainInstance,
    /// Whether offsets of outputs mean anything: those of an `array_map` do with our SDK only.
    tells_offsets: bool,
}

impl Fluvio {
    /// Starts the engine.
    pub fn start() -> Self {
        Fluvio(SmartEngine::new())
    }
}

impl Host for Fluvio {
    fn name(&self) -> &'static str {
        "fluvio-smartengine"
    }

    fn open(&self, wasm: &[u8], usage: &Usage) -> Result<Box<dyn Guest>, String> {
        let mut config = SmartModuleConfig::builder()
            .smartmodule_names(&["module".to_owned()])
            .params(usage.params.clone().into())
            .build()
            .map_err(|error| error.to_string())?;
        config.set_lookback(usage.history.as_ref().map(|_| Lookback::Last(1_000)));
        let mut chain = SmartModuleChainBuilder::from((config, wasm))
            .initialize(&self.0)
            .map_err(|error| error.to_string())?;
        if let Some(history) = &usage.history {
            let reads = |_| async { Ok(history.iter().map(record).collect()) };
            let mut looks_back = pin!(chain.look_back(reads));
            // Nothing in it waits.
            let Poll::Ready(done) = looks_back.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
                return Err("look_back waits for something".to_owned());
            };
            done.map_err(|error| error.to_string())?;
        }
        let exports = |name: &[u8]| wasm.windows(name.len()).any(|window| window == name);
        Ok(Box::new(Open {
            chain,
            tells_offsets: !exports(b"array_map") || exports(b"millrace_provenance_v1"),
        }))
    }
}

impl Guest for Open {
    fn call(&mut self, batch: &[Input]) -> Result<Answer, String> {
        let (base_offset, base_timestamp) =
            batch.first().map_or((0, 0), |first| (first.offset, first.timestamp_ms));
        let records = batch.iter().map(|input| {
            let mut record = record(input);
            record.preamble.set_offset_delta(input.offset - base_offset);
            record.preamble.set_timestamp_delta(input.timestamp_ms - base_timestamp);
            record
        });
        let mut input = SmartModuleInput::try_from_records(records.collect(), ABI_VERSION)
            .map_err(|error| error.to_string())?;
        input.set_base_offset(base_offset);
        input.set_base_timestamp(base_timestamp);
        let output = self.chain.process(input).map_err(|error| error.to_string())?;
        let outputs = output.successes.into_iter().map(|record| Output {
            offset: self.tells_offsets.then(|| base_offset + record.preamble.offset_delta()),
            key: record.key.map(RecordData::into_vec),
            value: record.value.into_vec(),
        });
        let error = output.error.map(|error| (error.offset, first_line(&error.hint)));
        Ok(Answer { outputs: outputs.collect(), error })
    }
}

fn record(input: &Input) -> Record {
    let value = RecordData::from(input.value.clone());
    match &input.key {
        None => Record::new(value),
        Some(key) => Record::new_key_value(RecordData::from(key.clone()), value),
    }
}
