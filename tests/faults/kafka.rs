//! What is in Kafka and how far groups have come, asked of the broker without any of Millrace's code.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};

const PATIENCE: Duration = Duration::from_secs(20);

pub struct Kafka {
    bootstrap: String,
}

impl Kafka {
    pub fn at(bootstrap: &str) -> Self {
        Kafka { bootstrap: bootstrap.to_owned() }
    }

    /// No topic of a test before.
    pub fn clear(&self) {
        let metadata = self.consumer("nobody").fetch_metadata(None, PATIENCE).expect("the broker answers");
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

    fn consumer(&self, group: &str) -> BaseConsumer {
        self.config()
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .expect("a consumer")
    }

    /// The first offset and the end of each partition; None where there is no such topic.
    pub fn spans(&self, topic: &str) -> Option<BTreeMap<i32, (i64, i64)>> {
        let consumer = self.consumer("nobody");
        let metadata = consumer.fetch_metadata(None, PATIENCE).expect("the broker answers");
        let topic = metadata.topics().iter().find(|t| t.name() == topic)?;
        let span = |partition: i32| {
            consumer.fetch_watermarks(topic.name(), partition, PATIENCE).expect("the broker answers")
        };
        Some(topic.partitions().iter().map(|p| (p.id(), span(p.id()))).collect())
    }

    /// Records that a group has not committed yet.
    pub fn lag(&self, group: &str, topic: &str) -> i64 {
        let spans = self.spans(topic).expect("a topic");
        let mut asked = TopicPartitionList::new();
        for partition in spans.keys() {
            asked.add_partition(topic, *partition);
        }
        let answer = self.consumer(group).committed_offsets(asked, PATIENCE).expect("the broker answers");
        let missing = answer.elements().into_iter().map(|element| {
            let (start, end) = spans[&element.partition()];
            let committed = if let Offset::Offset(offset) = element.offset() { offset } else { start };
            end - committed
        });
        missing.sum()
    }

    /// Every committed record of a topic, per partition in order: key and value.
    pub fn read(&self, topic: &str) -> Vec<(String, String)> {
        let spans = self.spans(topic).unwrap_or_default();
        let consumer = self.consumer("nobody");
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
            match consumer.poll(PATIENCE).expect("the broker answers in time") {
                Ok(record) => found.push((text(record.key()), text(record.payload()))),
                Err(rdkafka::error::KafkaError::PartitionEOF(_)) => open -= 1,
                Err(error) => panic!("reading {topic}: {error}"),
            }
        }
        found
    }
}
