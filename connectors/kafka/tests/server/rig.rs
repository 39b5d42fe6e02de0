//! Brokers and names for tests.
#![allow(clippy::panic, reason = "a test fails by panicking")]

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    pin::Pin,
};

use millrace_core::{
    TopicPartition,
    settings::{Key, Location, Node, NodeKind, Problems, Settings, check_object},
};
use millrace_kafka::{KAFKA, KafkaBroker, Options};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};

/// A variable that names a test server.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run scripts/test, or: eval \"$(scripts/services env)\"")
    })
}

/// Begins names that nobody else uses.
pub fn prefix(test: &str) -> String {
    format!("kafka-{test}-{:08x}", RandomState::new().build_hasher().finish() >> 32)
}

/// A broker with these settings, or the problems in them.
pub fn open(pairs: &[(&str, &str)]) -> millrace_core::Result<KafkaBroker> {
    let at = Location::default();
    let scalar = |text: &str| Node { at, kind: NodeKind::Scalar { text: text.into(), plain: true } };
    let entries = pairs.iter().map(|(key, value)| (Key { at, text: (*key).into() }, scalar(value))).collect();
    let node = Node { at, kind: NodeKind::Map(entries) };
    let mut problems = Problems::default();
    check_object(&node, KAFKA.settings, "brokers.main", &mut problems);
    let options = Options::read(&Settings::new(node, "brokers.main"), &mut problems);
    let options = options.unwrap_or_else(|| panic!("the test's own settings: {:?}", problems.into_sorted()));
    KafkaBroker::open("main", options)
}

/// The plain broker. Heartbeats are quick, so that rebalances are; the session is long, so that a member that
/// does not say goodbye shows.
pub fn plain() -> KafkaBroker {
    let bootstrap = variable("KAFKA_BROKERS");
    open(&[("bootstrap", &bootstrap), ("session_timeout", "40s"), ("heartbeat", "200ms")]).expect("it opens")
}

/// librdkafka's own configuration for the plain broker.
pub fn native() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", variable("KAFKA_BROKERS"));
    config
}

/// Deletes the records of a partition below an offset.
pub fn discard(partition: TopicPartition, before: i64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let admin: AdminClient<DefaultClientContext> = native().create().expect("an admin client");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(before))
            .expect("an offset");
        let deleted = admin.delete_records(&list, &AdminOptions::new()).await.expect("records are deleted");
        assert_eq!(deleted.elements()[0].error(), Ok(()), "{partition}: records below {before} are deleted");
    })
}

/// Deletes a topic, as somebody might by mistake.
pub async fn discard_topic(name: &str) {
    let admin: AdminClient<DefaultClientContext> = native().create().expect("an admin client");
    let deleted = admin.delete_topics(&[name], &AdminOptions::new()).await.expect("an answer");
    deleted[0].as_ref().expect("the topic is deleted");
}
