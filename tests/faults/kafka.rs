//! What is in Kafka and how far groups have come, asked of the broker without any of Millrace's code.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long a question waits for its answer. The client may miss that its first connection is there, and notices with
/// the next question.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const TRIES: usize = 24;

/// The broker's answer; fails when it has none for two minutes.
fn answer<T>(ask: impl Fn() -> KafkaResult<T>) -> T {
    let mut last = None;
    for _ in 0..TRIES {
        match ask() {
            Ok(answer) => return answer,
            Err(error) => last = Some(error),
        }
    }
    panic!("the broker does not answer: {last:?}")
}

pub struct Kafka {
    bootstrap: String,
}

impl Kafka {
    pub fn at(bootstrap: &str) -> Self {
        Kafka { bootstrap: bootstrap.to_owned() }
    }

    /// No topic of a test before.
    pub fn clear(&self) {
        let consumer = self.reader();
        let metadata = answer(|| consumer.fetch_metadata(None, ANSWER_WITHIN));
        let names: Vec<&str> = metadata
            .topics()
            .iter()
            .map(rdkafka::metadata::MetadataTopic::name)
            .filter(|name| !name.starts_with("__"))
            .collect();
        let admin: AdminClient<DefaultClientContext> = self.config().create().expect("a client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        if !names.is_empty() {
            runtime.block_on(admin.delete_topics(&names, &options)).expect("topics are deleted");
        }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("broker.address.family", "v4");
        config
    }

    /// Reads what is committed.
    fn reader(&self) -> BaseConsumer {
        self.consumer("nobody", "read_committed")
    }

    fn consumer(&self, group: &str, isolation: &str) -> BaseConsumer {
        self.config()
            .set("group.id", group)
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .expect("a consumer")
    }

    /// The first offset and the end of each partition; None where there is no such topic.
    pub fn spans(&self, topic: &str) -> Option<BTreeMap<i32, (i64, i64)>> {
        let consumer = self.reader();
        let metadata = answer(|| consumer.fetch_metadata(None, ANSWER_WITHIN));
        let topic = metadata.topics().iter().find(|t| t.name() == topic)?;
        let span =
            |partition: i32| answer(|| consumer.fetch_watermarks(topic.name(), partition, ANSWER_WITHIN));
        Some(topic.partitions().iter().map(|p| (p.id(), span(p.id()))).collect())
    }

    /// Records that a group has not committed yet. What is in a transaction is not, and is not waited for: it may be
    /// one that never ends.
    pub fn lag(&self, group: &str, topic: &str) -> i64 {
        let spans = self.spans(topic).expect("a topic");
        let mut asked = TopicPartitionList::new();
        for partition in spans.keys() {
            asked.add_partition(topic, *partition);
        }
        let consumer = self.consumer(group, "read_uncommitted");
        let committed = answer(|| consumer.committed_offsets(asked.clone(), ANSWER_WITHIN));
        let missing = committed.elements().into_iter().map(|element| {
            let (start, end) = spans[&element.partition()];
            let committed = if let Offset::Offset(offset) = element.offset() { offset } else { start };
            end - committed
        });
        missing.sum()
    }

    /// Every committed record of a topic, per partition in order: key and value.
    pub fn read(&self, topic: &str) -> Vec<(String, String)> {
        let spans = self.spans(topic).unwrap_or_default();
        let consumer = self.reader();
        let mut from = TopicPartitionList::new();
        let mut open = 0;
        for (partition, (start, end)) in spans {
            if start < end {
                open += 1;
                from.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
            }
        }
        if open > 0 {
            consumer.assign(&from).expect("an assignment");
        }
        let mut found = Vec::new();
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        while open > 0 {
            let next = || match consumer.poll(ANSWER_WITHIN) {
                None => Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)),
                Some(Err(KafkaError::PartitionEOF(_))) => Ok(None),
                Some(next) => next.map(Some),
            };
            match answer(next) {
                Some(record) => found.push((text(record.key()), text(record.payload()))),
                None => open -= 1,
            }
        }
        found
    }
}
