//! Records per second through the shipped modules, beside the same work done natively: one thread, records of about
//! one kilobyte, in batches of 1, 100 and 1,000.

use std::{collections::BTreeMap, hint::black_box, path::Path, sync::Arc};

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use millrace_core::{Envelope, Message, Origin, Record, Step, StepContext, StepFactory};
use millrace_engine::{EngineOptions, ModuleOptions, SmartEngine};
use serde_json::{Value, json};

const BATCHES: [usize; 3] = [1, 100, 1_000];

type Native = fn(&Message, &mut Vec<Message>);

/// A module, its parameters, and the same work without it.
struct Subject {
    module: &'static str,
    params: &'static [(&'static str, &'static str)],
    native: Native,
}

const SUBJECTS: [Subject; 3] = [
    Subject { module: "visible-posts", params: &[], native: filter },
    Subject { module: "mask-fields", params: &[("fields", "payload.content")], native: map },
    Subject { module: "feed-fanout", params: &[], native: array_map },
];

fn event(n: usize) -> Vec<u8> {
    let content = "the quick brown fox jumps over the lazy dog ".repeat(16);
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
            "tags": ["a"], "created_at": 1_424_129_760_000_i64, "version": 1,
        },
        "followers": followers,
    });
    serde_json::to_vec(&event).expect("JSON is written to memory")
}

fn batch(len: usize) -> Vec<Message> {
    let offsets = 0_i64..;
    let records = (0..len).zip(offsets).map(|(n, offset)| Record {
        topic: "t".into(),
        partition: 0,
        offset,
        timestamp_ms: 1_424_129_760_000,
        key: Some(Bytes::from_static(b"author")),
        value: Some(event(n).into()),
        headers: [].into(),
    });
    records.map(|record| Message::first(Arc::new(Origin { record, envelope: Envelope::default() }))).collect()
}

fn parse(message: &Message) -> Value {
    serde_json::from_slice(&message.value).expect("the bench's events are JSON")
}

fn filter(message: &Message, passed: &mut Vec<Message>) {
    if parse(message)["payload"]["visibility"] != "PRIVATE" {
        passed.push(message.clone());
    }
}

fn map(message: &Message, passed: &mut Vec<Message>) {
    let mut event = parse(message);
    event["payload"]["content"] = Value::from("***");
    let value = serde_json::to_vec(&event).expect("JSON is written to memory");
    passed.push(Message::derived(message.origin.clone(), message.key.clone(), value.into()));
}

fn array_map(message: &Message, passed: &mut Vec<Message>) {
    let event = parse(message);
    let payload = &event["payload"];
    for follower in event["followers"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let value = json!({
            "op": "add", "follower": follower, "post_id": payload["post_id"],
            "author_id": payload["user_id"], "created_at": payload["created_at"],
        });
        let value = serde_json::to_vec(&value).expect("JSON is written to memory");
        let key = Some(Bytes::copy_from_slice(follower.as_bytes()));
        passed.push(Message::derived(message.origin.clone(), key, value.into()));
    }
}

fn step(engine: &SmartEngine, subject: &Subject) -> Box<dyn Step> {
    let file = format!("../../smartmodules/dist/{}.wasm", subject.module);
    let wasm =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("the module is in dist");
    let params: BTreeMap<_, _> =
        subject.params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = ModuleOptions { params, ..ModuleOptions::default() };
    let factory = engine.load(subject.module, &wasm, &options).expect("a shipped module loads");
    factory
        .open(&StepContext { pipeline: "bench".into(), partition: 0, lane: None })
        .expect("a shipped module opens")
}

fn modules(criterion: &mut Criterion) {
    let engine = SmartEngine::new(EngineOptions::default()).expect("the engine starts");
    for subject in &SUBJECTS {
        let mut group = criterion.benchmark_group(subject.module);
        for len in BATCHES {
            let messages = batch(len);
            group.throughput(Throughput::Elements(len as u64));
            group.bench_function(BenchmarkId::new("native", len), |bencher| {
                bencher.iter(|| {
                    let mut passed = Vec::with_capacity(len);
                    messages.iter().for_each(|message| (subject.native)(message, &mut passed));
                    black_box(passed)
                });
            });
            let mut step = step(&engine, subject);
            group.bench_function(BenchmarkId::new("host", len), |bencher| {
                bencher.iter_batched(
                    || messages.clone(),
                    |messages| black_box(step.apply(messages).expect("the module works")),
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, modules);
criterion_main!(benches);
