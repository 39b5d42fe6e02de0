//! Our host beside fluvio-smartengine 0.50.1, Fluvio's own, on the shipped modules in both of their builds.
//!
//! Run with `cargo run --release --manifest-path conformance/Cargo.toml --bin bench`.
//!
//! All get the same records of about one kilobyte in batches of 1, 100 and 1,000, and take turns in one process, so
//! that what slows the machine slows all. Time is the CPU time of the calling thread. Before anything is timed, the
//! outputs are compared, keys and values.
//!
//! What is timed is the way from records in memory to records in memory. fluvio-smartengine takes a batch that is
//! already encoded, as a broker that stores Fluvio's format has it; a program that reads its records from elsewhere
//! has to encode them first. Both are shown: `fluvio` encodes, `encoded` does not.

use std::{collections::BTreeMap, hint::black_box};

use bytes::Bytes;
use conformance::{case, host::Input, millrace::message};
use fluvio_protocol::{
    Encoder,
    record::{Record as FluvioRecord, RecordData},
};
use fluvio_smartengine::{SmartModuleChainBuilder, SmartModuleChainInstance, SmartModuleConfig};
use fluvio_smartmodule::{
    SMARTMODULE_TIMESTAMPS_VERSION as ABI_VERSION, dataplane::smartmodule::SmartModuleInput,
};
use millrace_core::{Message, Step, StepContext, StepFactory};
use millrace_engine::{EngineOptions, ModuleOptions, SmartEngine};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

const BATCHES: [usize; 3] = [1, 100, 1_000];
const ROUNDS: usize = 9;
const ROUND_SECONDS_MIN: f64 = 0.2;
/// How many records' inputs are made at once, outside the time that counts.
const PREPARED_RECORDS: usize = 1_000;
const TIMESTAMP_MS: i64 = 1_424_129_760_000;

/// A shipped module, its parameters, and its files with either SDK, below `smartmodules/dist`.
struct Subject {
    module: &'static str,
    kind: &'static str,
    params: &'static [(&'static str, &'static str)],
    fluvio: &'static str,
    lean: &'static str,
}

const SUBJECTS: [Subject; 3] = [
    Subject {
        module: "visible-posts",
        kind: "filter",
        params: &[],
        fluvio: "testing/visible-posts-fluvio.wasm",
        lean: "visible-posts.wasm",
    },
    Subject {
        module: "mask-fields",
        kind: "map",
        params: &[("fields", "payload.content")],
        fluvio: "mask-fields.wasm",
        lean: "testing/mask-fields-lean.wasm",
    },
    Subject {
        module: "feed-fanout",
        kind: "array_map",
        params: &[],
        fluvio: "testing/feed-fanout-fluvio.wasm",
        lean: "feed-fanout.wasm",
    },
];

/// One output: key and value.
type Output = (Option<Bytes>, Bytes);

/// One batch in the form that each host takes it.
struct Batch {
    messages: Vec<Message>,
    records: Vec<FluvioRecord>,
    encoded: Vec<u8>,
}

/// A module in both hosts, in each build.
struct Hosts {
    ours: Box<dyn Step>,
    ours_lean: Box<dyn Step>,
    fluvio: SmartModuleChainInstance,
    fluvio_lean: SmartModuleChainInstance,
}

/// Records per second of CPU time, a figure for each round.
#[derive(Default)]
struct Rates {
    ours: Vec<f64>,
    ours_lean: Vec<f64>,
    fluvio: Vec<f64>,
    encoded: Vec<f64>,
    fluvio_lean: Vec<f64>,
}

impl Batch {
    fn of(len: usize) -> Self {
        let key = || Bytes::from_static(b"author");
        let values: Vec<Vec<u8>> = (0..len).map(event).collect();
        let messages = (0_i64..).zip(&values).map(|(offset, value)| {
            message(&Input {
                offset,
                timestamp_ms: TIMESTAMP_MS,
                key: Some(key().to_vec()),
                value: value.clone(),
            })
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
        let wasm = |file: &str| std::fs::read(case::dist().join(file)).expect("the module is in dist");
        let params: BTreeMap<_, _> =
            subject.params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let options = ModuleOptions { params: params.clone(), ..ModuleOptions::default() };
        let in_ours = |file: &str| {
            let factory =
                ours.load(subject.module, &wasm(file), &options).expect("our host loads a shipped module");
            let context = StepContext { pipeline: "bench".into(), partition: 0, lane: None };
            factory.open(&context).expect("our host opens a shipped module")
        };
        let in_fluvio = |file: &str| {
            let config = SmartModuleConfig::builder()
                .smartmodule_names(&[subject.module.to_owned()])
                .params(params.clone().into())
                .build()
                .expect("the configuration is complete");
            SmartModuleChainBuilder::from((config, wasm(file)))
                .initialize(fluvio)
                .expect("fluvio-smartengine loads a shipped module")
        };
        Hosts {
            ours: in_ours(subject.fluvio),
            ours_lean: in_ours(subject.lean),
            fluvio: in_fluvio(subject.fluvio),
            fluvio_lean: in_fluvio(subject.lean),
        }
    }

    /// All give the same for this batch; how many records that is.
    fn compare(&mut self, subject: &Subject, batch: &Batch) -> usize {
        let of_ours = |step: &mut Box<dyn Step>| -> Vec<Output> {
            let passed = ours(step, batch.messages.clone()).into_iter();
            passed.map(|message| (message.key.clone(), message.value.clone())).collect()
        };
        let of_fluvio = |chain: &mut SmartModuleChainInstance, input| -> Vec<Output> {
            let records = fluvio(chain, input).into_iter();
            records.map(|record| (record.key.as_deref().cloned(), Bytes::clone(&record.value))).collect()
        };
        let first = of_ours(&mut self.ours);
        let others = [
            of_ours(&mut self.ours_lean),
            of_fluvio(&mut self.fluvio, encoding(batch.records.clone())),
            of_fluvio(&mut self.fluvio, already_encoded(batch.encoded.clone())),
            of_fluvio(&mut self.fluvio_lean, encoding(batch.records.clone())),
        ];
        for other in others {
            assert!(first == other, "{}: the outputs differ, batch of {}", subject.module, batch.len());
        }
        first.len()
    }

    /// One round of each.
    fn round(&mut self, batch: &Batch, rates: &mut Rates) {
        let len = batch.len();
        let messages = || batch.messages.clone();
        let records = || batch.records.clone();
        let encoded = || already_encoded(batch.encoded.clone());
        rates.ours.push(rate(len, messages, |messages| ours(&mut self.ours, messages)));
        rates.ours_lean.push(rate(len, messages, |messages| ours(&mut self.ours_lean, messages)));
        rates.fluvio.push(rate(len, records, |records| fluvio(&mut self.fluvio, encoding(records))));
        rates.encoded.push(rate(len, encoded, |input| fluvio(&mut self.fluvio, input)));
        rates
            .fluvio_lean
            .push(rate(len, records, |records| fluvio(&mut self.fluvio_lean, encoding(records))));
    }
}

fn ours(step: &mut Box<dyn Step>, batch: Vec<Message>) -> Vec<Message> {
    let outcome = step.apply(batch).expect("the module works in our host");
    assert!(outcome.rejected.is_empty(), "our host rejected a record");
    outcome.passed
}

fn fluvio(chain: &mut SmartModuleChainInstance, input: SmartModuleInput) -> Vec<FluvioRecord> {
    let output = chain.process(input).expect("the module works in fluvio-smartengine");
    assert!(output.error.is_none(), "fluvio-smartengine rejected a record");
    output.successes
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

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How many times faster we are: the median of the rounds, the smallest and the largest.
fn ratios(ours: &[f64], theirs: &[f64]) -> String {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({least:.2}-{most:.2})", median(&ratios))
}

fn main() {
    let ours = SmartEngine::new(EngineOptions::default()).expect("our engine starts");
    let fluvio = fluvio_smartengine::SmartEngine::new();
    println!(
        "records of {} bytes, medians of {ROUNDS} rounds in records/s of thread CPU time",
        event(0).len()
    );
    println!("ratio: of the rounds, median (least-most), to `fluvio`\n");
    println!(
        "| module | batch | outputs | ours | fluvio | encoded | ratio | ours, lean | ratio | fluvio, lean |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
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
                "| {} ({}) | {len} | {outputs} | {:.0} | {:.0} | {:.0} | {} | {:.0} | {} | {:.0} |",
                subject.module,
                subject.kind,
                median(&rates.ours),
                median(&rates.fluvio),
                median(&rates.encoded),
                ratios(&rates.ours, &rates.fluvio),
                median(&rates.ours_lean),
                ratios(&rates.ours_lean, &rates.fluvio),
                median(&rates.fluvio_lean),
            );
        }
    }
}
