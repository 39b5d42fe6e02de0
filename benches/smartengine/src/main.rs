//! Our host beside fluvio-smartengine 0.50.1, Fluvio's own, on the modules of `smartmodules/dist`.
//!
//! Run with `cargo run --release --manifest-path benches/smartengine/Cargo.toml`.
//!
//! Both hosts get the same records of about one kilobyte in batches of 1, 100 and 1,000, and take turns in one
//! process, so that what slows the machine slows both. Time is the CPU time of the calling thread. Before anything is
//! timed, the outputs of both are compared, keys and values.
//!
//! What is timed is the way from records in memory to records in memory. fluvio-smartengine takes a batch that is
//! already encoded, as a broker that stores Fluvio's format has it; a program that reads its records from elsewhere
//! has to encode them first. Both are shown: `fluvio` encodes, `encoded` does not.

use std::{collections::BTreeMap, hint::black_box, path::Path, sync::Arc};

use bytes::Bytes;
use fluvio_protocol::{
    Encoder,
    record::{Record as FluvioRecord, RecordData},
};
use fluvio_smartengine::{SmartModuleChainBuilder, SmartModuleChainInstance, SmartModuleConfig};
use fluvio_smartmodule::{
    SMARTMODULE_TIMESTAMPS_VERSION as ABI_VERSION, dataplane::smartmodule::SmartModuleInput,
};
use millrace_core::{Envelope, Message, Origin, Record, Step, StepContext, StepFactory};
use millrace_engine::{EngineOptions, ModuleOptions, SmartEngine};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

const BATCHES: [usize; 3] = [1, 100, 1_000];
const ROUNDS: usize = 9;
const ROUND_SECONDS_MIN: f64 = 0.2;
/// How many records' inputs are made at once, outside the time that counts.
const PREPARED_RECORDS: usize = 1_000;
const TIMESTAMP_MS: i64 = 1_424_129_760_000;

/// A shipped module and its parameters.
struct Subject {
    module: &'static str,
    kind: &'static str,
    params: &'static [(&'static str, &'static str)],
}

const SUBJECTS: [Subject; 3] = [
    Subject { module: "visible-posts", kind: "filter", params: &[] },
    Subject { module: "mask-fields", kind: "map", params: &[("fields", "payload.content")] },
    Subject { module: "feed-fanout", kind: "array_map", params: &[] },
];

/// One output: key and value.
type Output = (Option<Bytes>, Bytes);

/// One batch in the form that each host takes it.
struct Batch {
    messages: Vec<Message>,
    records: Vec<FluvioRecord>,
    encoded: Vec<u8>,
}

/// The engines, and a module in each of them.
struct Hosts {
    ours: Box<dyn Step>,
    fluvio: SmartModuleChainInstance,
}

/// Records per second of CPU time, a figure for each round.
#[derive(Default)]
struct Rates {
    ours: Vec<f64>,
    fluvio: Vec<f64>,
    encoded: Vec<f64>,
}

impl Batch {
    fn of(len: usize) -> Self {
        let key = || Bytes::from_static(b"author");
        let values: Vec<Vec<u8>> = (0..len).map(event).collect();
        let messages = (0_i64..).zip(&values).map(|(offset, value)| {
            let record = Record {
                topic: "t".into(),
                partition: 0,
                offset,
                timestamp_ms: TIMESTAMP_MS,
                key: Some(key()),
                value: Some(value.clone().into()),
                headers: [].into(),
            };
            Message::first(Arc::new(Origin { record, envelope: Envelope::default() }))
        });
        let records: Vec<FluvioRecord> = (0_i64..)
            .zip(&values)
            .map(|(offset, value)| {
                let value = RecordData::from(value.clone());
                let mut record = FluvioRecord::new_key_value(RecordData::from(key()), value);
                record.preamble.set_offset_delta(offset);
                record
            })
            .collect();
        let mut encoded = Vec::new();
        records.encode(&mut encoded, ABI_VERSION).expect("records are encoded to memory");
        Batch { messages: messages.collect(), records, encoded }
    }

    fn len(&self) -> usize {
        self.messages.len()
    }
}

impl Hosts {
    fn open(subject: &Subject, ours: &SmartEngine, fluvio: &fluvio_smartengine::SmartEngine) -> Self {
        let file = format!("../../smartmodules/dist/{}.wasm", subject.module);
        let wasm =
            std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("the module is in dist");
        let params: BTreeMap<_, _> =
            subject.params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let config = SmartModuleConfig::builder()
            .smartmodule_names(&[subject.module.to_owned()])
            .params(params.clone().into())
            .build()
            .expect("the configuration is complete");
        let options = ModuleOptions { params, ..ModuleOptions::default() };
        let factory = ours.load(subject.module, &wasm, &options).expect("our host loads a shipped module");
        let context = StepContext { pipeline: "bench".into(), partition: 0 };
        Hosts {
            ours: factory.open(&context).expect("our host opens a shipped module"),
            fluvio: SmartModuleChainBuilder::from((config, wasm))
                .initialize(fluvio)
                .expect("fluvio-smartengine loads a shipped module"),
        }
    }

    fn ours(&mut self, batch: Vec<Message>) -> Vec<Message> {
        let outcome = self.ours.apply(batch).expect("the module works in our host");
        assert!(outcome.rejected.is_empty(), "our host rejected a record");
        outcome.passed
    }

    fn fluvio(&mut self, input: SmartModuleInput) -> Vec<FluvioRecord> {
        let output = self.fluvio.process(input).expect("the module works in fluvio-smartengine");
        assert!(output.error.is_none(), "fluvio-smartengine rejected a record");
        output.successes
    }

    /// Both give the same for this batch; how many records that is.
    fn compare(&mut self, subject: &Subject, batch: &Batch) -> usize {
        let ours: Vec<Output> = self
            .ours(batch.messages.clone())
            .into_iter()
            .map(|message| (message.key.clone(), message.value.clone()))
            .collect();
        let theirs = [encoding(batch.records.clone()), already_encoded(batch.encoded.clone())];
        for input in theirs {
            let theirs: Vec<Output> = self
                .fluvio(input)
                .into_iter()
                .map(|record| (record.key.as_deref().cloned(), Bytes::clone(&record.value)))
                .collect();
            assert!(ours == theirs, "{}: the outputs differ, batch of {}", subject.module, batch.len());
        }
        ours.len()
    }

    /// One round of each.
    fn round(&mut self, batch: &Batch, rates: &mut Rates) {
        let len = batch.len();
        rates.ours.push(rate(len, || batch.messages.clone(), |messages| self.ours(messages)));
        rates.fluvio.push(rate(len, || batch.records.clone(), |records| self.fluvio(encoding(records))));
        rates.encoded.push(rate(len, || already_encoded(batch.encoded.clone()), |input| self.fluvio(input)));
    }
}

fn encoding(records: Vec<FluvioRecord>) -> SmartModuleInput {
    let mut input =
        SmartModuleInput::try_from_records(records, ABI_VERSION).expect("records are encoded to memory");
    input.set_base_timestamp(TIMESTAMP_MS);
    input
}

fn already_encoded(encoded: Vec<u8>) -> SmartModuleInput {
    SmartModuleInput::new(encoded, 0, TIMESTAMP_MS)
}

fn event(n: usize) -> Vec<u8> {
    let content = "the quick brown fox jumps over the lazy dog ".repeat(14);
    let followers: Vec<String> = (0..4).map(|follower| format!("user-{}", n + follower)).collect();
    let event = json!({
        "eventId": format!("event-{n}"),
        "eventType": "content.post.created.v1",
        "bizId": format!("post-{n}"),
        "occurredAt": "2015-02-16T23:36:00Z",
        "source": "bench",
        "correlationId": "c",
        "payload": {
            "post_id": format!("post-{n}"), "user_id": "author", "content": content, "type": "TEXT",
            "visibility": if n.is_multiple_of(2) { "PUBLIC" } else { "PRIVATE" },
            "tags": ["a"], "created_at": TIMESTAMP_MS, "version": 1,
        },
        "followers": followers,
    });
    serde_json::to_vec(&event).expect("JSON is written to memory")
}

/// Records per second of CPU time of `call`, dropping what it gives included, over inputs of `len` records that
/// `make` makes.
fn rate<I, O>(len: usize, make: impl Fn() -> I, mut call: impl FnMut(I) -> O) -> f64 {
    let calls = (PREPARED_RECORDS / len).max(1);
    let (mut records, mut seconds) = (0, 0.0);
    while seconds < ROUND_SECONDS_MIN {
        let inputs: Vec<I> = (0..calls).map(|_| make()).collect();
        let start = cpu_seconds();
        for input in inputs {
            black_box(call(input));
        }
        seconds += cpu_seconds() - start;
        records += calls * len;
    }
    records as f64 / seconds
}

/// The CPU time this thread has used.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How many times faster we are: the median of the rounds, the smallest and the largest.
fn ratios(ours: &[f64], theirs: &[f64]) -> String {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({least:.2}-{most:.2})", median(ratios))
}

fn main() {
    let ours = SmartEngine::new(EngineOptions::default()).expect("our engine starts");
    let fluvio = fluvio_smartengine::SmartEngine::new();
    println!(
        "records of {} bytes, medians of {ROUNDS} rounds in records/s of thread CPU time",
        event(0).len()
    );
    println!("ratio: ours to the other, median of the rounds (least-most)\n");
    println!("| module | batch | outputs | ours | fluvio | encoded | ratio | ratio to encoded |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for subject in &SUBJECTS {
        for len in BATCHES {
            let batch = Batch::of(len);
            let mut hosts = Hosts::open(subject, &ours, &fluvio);
            let outputs = hosts.compare(subject, &batch);
            let mut rates = Rates::default();
            for _ in 0..ROUNDS {
                hosts.round(&batch, &mut rates);
            }
            println!(
                "| {} ({}) | {len} | {outputs} | {:.0} | {:.0} | {:.0} | {} | {} |",
                subject.module,
                subject.kind,
                median(rates.ours.iter().copied()),
                median(rates.fluvio.iter().copied()),
                median(rates.encoded.iter().copied()),
                ratios(&rates.ours, &rates.fluvio),
                ratios(&rates.ours, &rates.encoded),
            );
        }
    }
}
