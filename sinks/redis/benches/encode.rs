//! What a feed fan-out costs before anything is sent: ten outputs of an event, encoded as timeline operations.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use millrace_core::{Message, Sink, SinkId, Store, View, settings::Problems, views::Timeline};
use millrace_redis::{RedisSettings, RedisStore};
use millrace_testkit::{message::message, views_suite::settings};

const EVENTS: u64 = 100;
const FOLLOWERS: u64 = 10;

fn sink(cluster: &str) -> std::sync::Arc<dyn Sink> {
    let pairs = [("url", "redis://localhost"), ("cluster", cluster)];
    let read = RedisSettings::read(&settings(&pairs), &mut Problems::default()).expect("valid settings");
    let store = RedisStore::open("bench", read).expect("nothing to read");
    let pairs = [("key", "feed:{follower}"), ("member", "{post_id}"), ("score", "{created_at}")];
    let view = Timeline::read(&settings(&pairs), &mut Problems::default()).expect("valid settings");
    let id = SinkId { pipeline: "home-feed".into(), sink: "feeds".into() };
    store.sink(id, View::Timeline(view)).expect("redis keeps timelines")
}

fn fan_out() -> Vec<Message> {
    let output = |event: u64, follower: u64| {
        let value = format!(
            r#"{{"op":"add","follower":"{}","post_id":"p{event}","created_at":{}}}"#,
            event * 31 + follower * 7,
            1_424_129_760_000 + event
        );
        message(i64::try_from(event).unwrap_or(0), &event.to_string(), &value)
    };
    (0..EVENTS).flat_map(|event| (0..FOLLOWERS).map(move |follower| output(event, follower))).collect()
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode timeline");
    group.throughput(Throughput::Elements(EVENTS));
    let fresh = fan_out();
    let parsed = fan_out();
    parsed.iter().for_each(|message| assert!(message.json().is_ok()));
    for (name, cluster, batch) in
        [("and parse", "false", &fresh), ("parsed", "false", &parsed), ("parsed, cluster", "true", &parsed)]
    {
        let sink = sink(cluster);
        group.bench_function(name, |bencher| {
            let encode = |batch: Vec<Message>| black_box(sink.encode(&batch)).calls.len();
            bencher.iter_batched(|| batch.clone(), encode, BatchSize::LargeInput);
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
