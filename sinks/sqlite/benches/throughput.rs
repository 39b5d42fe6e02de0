//! What a feed fan-out costs until it is on the disk: timeline adds in calls of a thousand, into timelines that
//! grow and into timelines that are full.

use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use millrace_core::{Answer, Message, Sink, SinkId, Store, View, settings::Problems, views::Timeline};
use millrace_sqlite::SqliteStore;
use millrace_testkit::{message::message, views_suite::settings};

const ADDS: u64 = 5_000;

static POST: AtomicU64 = AtomicU64::new(0);

fn sink(store: &SqliteStore, keep: &str) -> std::sync::Arc<dyn Sink> {
    let pairs = [
        ("key", "feed:{follower}"),
        ("member", "{post_id}"),
        ("score", "{created_at}"),
        ("keep", keep),
        ("slack", "0"),
    ];
    let view = Timeline::read(&settings(&pairs), &mut Problems::default()).expect("valid settings");
    let id = SinkId { pipeline: "home-feed".into(), sink: "feeds".into() };
    store.sink(id, View::Timeline(view)).expect("the store keeps timelines")
}

/// Posts of ten followers each.
fn fan_out(users: u64) -> Vec<Message> {
    let output = |n: u64| {
        let post = POST.fetch_add(1, Ordering::Relaxed) / 10;
        let follower = (post * 7_919 + n % 10 * 104_729) % users;
        let value = format!(
            r#"{{"follower":"u{follower}","post_id":"p{post}","created_at":{}}}"#,
            1_424_129_760_000 + post
        );
        let message = message(1, "1", &value);
        assert!(message.json().is_ok());
        message
    };
    (0..ADDS).map(output).collect()
}

fn timelines(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut group = criterion.benchmark_group("timeline adds");
    group.throughput(Throughput::Elements(ADDS)).sample_size(20);
    for (name, users, keep) in
        [("1,000 growing", 1_000, "1000"), ("10,000 growing", 10_000, "1000"), ("10,000 full", 10_000, "10")]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let store = runtime.block_on(SqliteStore::open(folder.path())).expect("a store");
        let sink = sink(&store, keep);
        let send = |batch: Vec<Message>| {
            let calls = sink.encode(&batch).calls;
            let answers = runtime.block_on(sink.send(&calls));
            assert!(answers.iter().all(|answer| matches!(answer, Answer::Done)));
        };
        (0..40).for_each(|_| send(fan_out(users)));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| fan_out(users), send, BatchSize::LargeInput);
        });
    }
    group.finish();
}

criterion_group!(benches, timelines);
criterion_main!(benches);
