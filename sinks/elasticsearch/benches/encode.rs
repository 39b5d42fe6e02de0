//! How fast messages become calls: what the sink costs before the network.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_core::{
    Message, Sink, SinkId, Store, View,
    settings::{Key, Location, Node, NodeKind, Problems, Settings},
    views::{Index, IndexFields},
};
use millrace_elasticsearch::{Elasticsearch, Options};
use millrace_testkit::message::message;

const MESSAGES: u32 = 1_000;

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let at = Location::default();
    let scalar = |text: &str| Node { at, kind: NodeKind::Scalar { text: text.into(), plain: true } };
    let entries = pairs.iter().map(|(key, value)| (Key { at, text: (*key).into() }, scalar(value))).collect();
    Settings::new(Node { at, kind: NodeKind::Map(entries) }, "bench")
}

fn sink(mode: &str) -> Arc<dyn Sink> {
    let mut problems = Problems::default();
    let options = Options::read(&settings(&[("url", "http://localhost:1")]), &mut problems).unwrap();
    let pairs = [
        ("index", "posts"),
        ("mode", mode),
        ("op", "{op}"),
        ("id", "{post_id}"),
        ("version", "{version}"),
        ("document", "{document}"),
    ];
    let index = Index::read(&settings(&pairs), &mut problems).unwrap();
    let id = SinkId { pipeline: "post-search".into(), sink: "posts".into() };
    let store = Elasticsearch::open("bench", &options).unwrap();
    store.sink(id, View::Index(index, IndexFields::default())).unwrap()
}

fn posts() -> Vec<Message> {
    let post = |n: u32| {
        let id = n % 300;
        let text = "a post of ordinary length, with a few words more than the shortest ones have ".repeat(2);
        let document = format!(
            r#"{{"post_id":"p{id}","user_id":"u{n}","content":"{text}","type":"TEXT","tags":["rust","streams"],"created_at":"2015-02-16T23:36:00Z","version":{n}}}"#
        );
        let value = format!(r#"{{"op":"put","post_id":"p{id}","version":{n},"document":{document}}}"#);
        message(n.into(), &n.to_string(), &value)
    };
    (0..MESSAGES).map(post).collect()
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("elasticsearch_encode");
    group.throughput(Throughput::Elements(MESSAGES.into()));
    for mode in ["replace", "merge"] {
        let sink = sink(mode);
        group.bench_function(mode, |bencher| {
            // A message keeps its parsed value: each round encodes messages that nobody has parsed yet.
            bencher.iter_batched(
                posts,
                |messages| black_box(sink.encode(&messages)),
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
