//! Transactions that Kafka itself has lost track of: its coordinator has ended one, and a partition still holds it open
//! and will for ever. Whoever reads what is committed, and whoever asks for stable progress, waits behind it. Asked of
//! Kafka's own tool, because clients have no such question.

use std::collections::BTreeSet;

use crate::laboratory::kafka_tool;

const TOOL: &str = "org.apache.kafka.tools.TransactionsCommand";

/// An open transaction that its coordinator does not know as one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Hanging {
    topic: String,
    partition: String,
    producer: String,
    start_offset: String,
}

impl Hanging {
    /// A line of `find-hanging`: topic, partition, producer's id and epoch, coordinator's epoch, first offset.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (topic, partition, producer) = (words.next()?, words.next()?, words.next()?);
        let start_offset = words.nth(2)?;
        let is_one = [partition, producer, start_offset].iter().all(|word| word.parse::<u64>().is_ok());
        let text = str::to_owned;
        is_one.then(|| Hanging {
            topic: text(topic),
            partition: text(partition),
            producer: text(producer),
            start_offset: text(start_offset),
        })
    }

    /// Where it lies, and what the coordinator says of its producer.
    fn told(&self) -> String {
        let list = kafka_tool(&[TOOL, "list"]);
        let id = list.lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words.get(2) == Some(&self.producer.as_str())).then(|| words[0].to_owned())
        });
        let coordinator = id.map(|id| kafka_tool(&[TOOL, "describe", "--transactional-id", &id]));
        format!(
            "{}/{} from offset {} on, producer {}; its coordinator says:\n{}",
            self.topic,
            self.partition,
            self.start_offset,
            self.producer,
            coordinator.as_deref().unwrap_or("nothing, it does not know the producer"),
        )
    }
}

/// Whatever is held open and not known as open at this moment: it may have ended just in between.
fn suspects() -> BTreeSet<Hanging> {
    // Open for any time, not only for longer than any transaction may be.
    let found = kafka_tool(&[TOOL, "find-hanging", "--broker-id", "1", "--max-transaction-timeout", "0"]);
    found.lines().filter_map(Hanging::parse).collect()
}

/// What Kafka has lost track of, in words for whoever reads why a test failed; None where there is nothing.
pub fn transactions() -> Option<String> {
    let first = suspects();
    if first.is_empty() {
        return None;
    }
    let told: Vec<String> = suspects().intersection(&first).map(Hanging::told).collect();
    (!told.is_empty()).then(|| {
        format!(
            "KAFKA HAS LOST TRACK of transactions: {} partitions hold one open that has ended for its coordinator. \
             That is Kafka's own fault and not what is tested here; docs/operations.md says what an operator does.\n{}",
            told.len(),
            told.join("\n"),
        )
    })
}
