//! A reader that follows a source as a pipeline would, and checks what must hold at every event.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use millrace_core::{
    Assignment, Broker, Class, Control, Error, Record, Source, SourceEvent, Subscription, TopicPartition,
};
use tokio::time::{Duration, timeout};

/// The longest wait for something that must come. Joining a group of a real broker takes seconds.
const PATIENCE: Duration = Duration::from_secs(45);

/// What a reader has seen so far.
pub struct Reader {
    source: Box<dyn Source>,
    /// The source's handle.
    pub control: Arc<dyn Control>,
    topic: String,
    batch_records_max: usize,
    /// The partitions it owns.
    pub assigned: BTreeMap<i32, Assignment>,
    /// All records, in the order of arrival.
    pub records: Vec<Record>,
    /// Per partition, the next offset to read.
    pub next: BTreeMap<i32, i64>,
    /// Per partition, the end told last and how many times one was told.
    pub ends: BTreeMap<i32, (i64, usize)>,
    /// The lost ranges told: partition, from, to.
    pub gaps: Vec<(i32, i64, i64)>,
}

impl Reader {
    /// Subscribes.
    pub async fn open(broker: &dyn Broker, subscription: Subscription) -> Self {
        let topic = subscription.topic.clone();
        let batch_records_max = subscription.batch_records_max;
        let source = broker.subscribe(subscription).await.expect("a subscription");
        Reader {
            control: source.control(),
            source,
            topic,
            batch_records_max,
            assigned: BTreeMap::new(),
            records: Vec::new(),
            next: BTreeMap::new(),
            ends: BTreeMap::new(),
            gaps: Vec::new(),
        }
    }

    /// Waits for one event and takes it in. Errors that pass are waited out.
    pub async fn step(&mut self) -> Result<(), Error> {
        match timeout(PATIENCE, self.source.next()).await {
            Err(_) => panic!("{}: no event in {PATIENCE:?}; {:?}", self.topic, self.state()),
            Ok(Err(error)) if error.class() == Class::Retry => Ok(()),
            Ok(Err(error)) => Err(error),
            Ok(Ok(None)) => panic!("{}: the source has ended", self.topic),
            Ok(Ok(Some(event))) => {
                self.take(event).await;
                Ok(())
            }
        }
    }

    /// Goes on until the condition holds.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Reader) -> bool) {
        let reached = timeout(PATIENCE, async {
            while !holds(self) {
                self.step().await.expect("a source that works");
            }
        });
        if reached.await.is_err() {
            panic!("{}: not reached in {PATIENCE:?}: {what}; {:?}", self.topic, self.state());
        }
    }

    /// Goes on until that many records have come.
    pub async fn read(&mut self, count: usize) {
        self.until(&format!("{count} records"), |reader| reader.records.len() >= count).await;
    }

    /// Polls the source once and cancels it when it is not ready at once.
    pub async fn poll_once(&mut self) {
        let event = tokio::select! {
            biased;
            event = self.source.next() => event.expect("a source that works"),
            () = tokio::task::yield_now() => return,
        };
        self.take(event.expect("a source that goes on")).await;
    }

    /// Commits all that was read.
    pub async fn commit_all(&mut self) {
        let offsets: Vec<_> = self.next.iter().map(|(p, next)| (self.partition(*p), *next)).collect();
        self.control.commit(&offsets).await.expect("a commit");
    }

    /// Commits one offset.
    pub async fn commit(&mut self, partition: i32, next_offset: i64) {
        self.control.commit(&[(self.partition(partition), next_offset)]).await.expect("a commit");
    }

    /// The partition by name.
    pub fn partition(&self, partition: i32) -> TopicPartition {
        TopicPartition { topic: self.topic.as_str().into(), partition }
    }

    /// The values read from a partition, as text.
    pub fn values(&self, partition: i32) -> Vec<String> {
        let of = self.records.iter().filter(|record| record.partition == partition);
        of.map(|record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into()).collect()
    }

    fn state(&self) -> impl Debug {
        (self.records.len(), self.next.clone(), self.ends.clone(), self.gaps.clone())
    }

    async fn take(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Assigned(assignments) => assignments.into_iter().for_each(|one| self.assign(one)),
            SourceEvent::Batch(batch) => self.batch(batch.partition, batch.records, &batch.topic),
            SourceEvent::CaughtUp { partition, next_offset } => {
                let next = self.next.get(&partition.partition).copied();
                assert!(next <= Some(next_offset), "{partition}: end {next_offset} is before {next:?}");
                let end = self.ends.entry(partition.partition).or_default();
                *end = (next_offset, end.1 + 1);
            }
            SourceEvent::Revoked { partitions, lost, done } => {
                let offsets: Vec<_> = partitions
                    .iter()
                    .filter_map(|partition| Some((partition.clone(), *self.next.get(&partition.partition)?)))
                    .collect();
                if !lost {
                    self.control.commit(&offsets).await.expect("a commit inside a revoke");
                }
                for partition in &partitions {
                    let known = self.assigned.remove(&partition.partition);
                    assert!(known.is_some(), "{partition}: revoked without having been assigned");
                    self.next.remove(&partition.partition);
                }
                drop(done);
            }
            SourceEvent::Gap { partition, from, to } => {
                assert!(self.assigned.contains_key(&partition.partition), "{partition}: gap, not assigned");
                assert!(from < to, "{partition}: empty gap {from}..{to}");
                self.gaps.push((partition.partition, from, to));
            }
        }
    }

    fn assign(&mut self, assignment: Assignment) {
        let number = assignment.partition.partition;
        assert_eq!(&*assignment.partition.topic, self.topic, "assigned another topic");
        assert!(assignment.lease.is_valid(), "{}: assigned without a valid lease", assignment.partition);
        self.next.insert(number, assignment.next_offset);
        let before = self.assigned.insert(number, assignment);
        assert!(before.is_none(), "partition {number} is assigned twice");
    }

    fn batch(&mut self, partition: i32, records: Vec<Record>, topic: &str) {
        let at = format!("{}/{partition}", self.topic);
        assert_eq!(topic, self.topic, "a batch of another topic");
        assert!(!records.is_empty(), "{at}: an empty batch");
        assert!(records.len() <= self.batch_records_max, "{at}: a batch of {} records", records.len());
        let assignment = self.assigned.get(&partition).unwrap_or_else(|| panic!("{at}: batch, not assigned"));
        assert!(assignment.lease.is_valid(), "{at}: a batch under an invalid lease");
        for record in records {
            let next = self.next[&partition];
            assert_eq!((&*record.topic, record.partition), (topic, partition), "{at}: a foreign record");
            assert!(record.offset >= next, "{at}: offset {} after {next} was due", record.offset);
            self.next.insert(partition, record.offset + 1);
            self.records.push(record);
        }
    }
}
