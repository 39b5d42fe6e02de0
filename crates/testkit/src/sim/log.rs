//! The log: topics that keep what they acknowledged, and the groups that read them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use millrace_core::{
    CreateOutcome, Error, NewRecord, PartitionSpan, Position, Record, Result, TopicInfo, TopicSpec,
    partition_for_key,
};
use tokio::sync::Notify;

use super::{
    group::{Group, Transaction, Verdict},
    network::System,
    world::World,
};

/// The one log of a world. Cloning shares it.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    world: World,
    system: System,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) topics: BTreeMap<String, Topic>,
    pub(super) groups: BTreeMap<String, Group>,
}

pub(super) struct Topic {
    spec: TopicSpec,
    pub(super) partitions: Vec<Partition>,
}

#[derive(Default)]
pub(super) struct Partition {
    pub(super) start: i64,
    /// The offset that the next record will have.
    pub(super) end: i64,
    records: Vec<Record>,
}

impl Topic {
    fn judge(&self, record: &NewRecord) -> Result<()> {
        let TopicSpec { name, record_bytes_max, compact, .. } = &self.spec;
        let bytes = record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len);
        if bytes > *record_bytes_max {
            return Err(Error::reject("log", format!("a record of {bytes} bytes is too large for '{name}'")));
        }
        if *compact && record.key.is_none() {
            return Err(Error::reject(
                "log",
                format!("'{name}' is compacted and takes records with a key only"),
            ));
        }
        Ok(())
    }
}

impl Partition {
    /// The records from an offset on; compaction leaves gaps between them.
    pub(super) fn from(&self, offset: i64) -> &[Record] {
        &self.records[self.records.partition_point(|record| record.offset < offset)..]
    }
}

impl Log {
    /// An empty log.
    pub fn new(world: &World) -> Self {
        let shared = Shared {
            world: world.clone(),
            system: System::new("log"),
            state: Mutex::default(),
            changed: Notify::new(),
        };
        Log { shared: Arc::new(shared) }
    }

    /// The server, to take it away.
    pub fn system(&self) -> &System {
        &self.shared.system
    }

    /// Creates a topic unless it is there.
    pub fn create(&self, spec: &TopicSpec) -> CreateOutcome {
        let mut state = self.lock();
        if let Some(topic) = state.topics.get(&spec.name) {
            return CreateOutcome::Exists { partitions: topic.spec.partitions };
        }
        let partitions = (0..spec.partitions).map(|_| Partition::default()).collect();
        state.topics.insert(spec.name.clone(), Topic { spec: spec.clone(), partitions });
        CreateOutcome::Created
    }

    /// Appends at once.
    ///
    /// # Errors
    /// Fatal when the topic does not exist, Reject when the record is too large.
    pub fn append(&self, topic: &str, new: NewRecord) -> Result<Position> {
        let position = self.add(&mut self.lock(), topic, new)?;
        self.shared.changed.notify_waiters();
        Ok(position)
    }

    /// Whether a topic takes this record.
    pub(super) fn judge(&self, topic: &str, record: &NewRecord) -> Result<()> {
        let state = self.lock();
        state.topics.get(topic).ok_or_else(|| unknown(topic))?.judge(record)
    }

    /// A transaction, all of it or nothing.
    pub(super) fn transact(
        &self,
        group: &str,
        transaction: Transaction,
        records: Vec<(String, NewRecord)>,
    ) -> Verdict {
        let mut state = self.lock();
        let of = state.groups.entry(group.to_owned()).or_default();
        let (verdict, is_new) = of.decide(&self.shared.world, transaction);
        if verdict == Verdict::Committed && is_new {
            for (topic, record) in records {
                if let Err(error) = self.add(&mut state, &topic, record) {
                    self.shared.world.violation(format!("not in its transaction: {}", error.chain()));
                }
            }
        }
        drop(state);
        self.shared.changed.notify_waiters();
        verdict
    }

    fn add(&self, state: &mut State, topic: &str, new: NewRecord) -> Result<Position> {
        let log = state.topics.get_mut(topic).ok_or_else(|| unknown(topic))?;
        log.judge(&new)?;
        let by_key = |key: &Bytes| i32::try_from(partition_for_key(key, log.spec.partitions)).unwrap_or(0);
        let spread = || i32::try_from(self.shared.world.index(log.partitions.len())).unwrap_or(0);
        let partition = new.partition.or_else(|| new.key.as_ref().map(by_key)).unwrap_or_else(spread);
        let kept = log.partitions.get_mut(usize::try_from(partition).unwrap_or(usize::MAX));
        let kept =
            kept.ok_or_else(|| Error::fatal("log", format!("'{topic}' has no partition {partition}")))?;
        let offset = kept.end;
        if log.spec.compact {
            kept.records.retain(|record| record.key != new.key);
        }
        kept.end += 1;
        kept.records.push(Record {
            topic: topic.into(),
            partition,
            offset,
            timestamp_ms: self.shared.world.now_ms(),
            key: new.key,
            value: new.value,
            headers: new.headers.into(),
        });
        Ok(Position { partition, offset })
    }

    /// Removes the records of a partition below an offset, as retention does.
    pub fn expire(&self, topic: &str, partition: i32, before: i64) {
        let mut state = self.lock();
        let index = usize::try_from(partition).unwrap_or(usize::MAX);
        if let Some(kept) = state.topics.get_mut(topic).and_then(|topic| topic.partitions.get_mut(index)) {
            kept.records.retain(|record| record.offset >= before);
            kept.start = kept.start.max(before);
            kept.end = kept.end.max(before);
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// All records of a topic, by partition and offset.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        let state = self.lock();
        let partitions = state.topics.get(topic).map(|topic| &topic.partitions);
        partitions.into_iter().flatten().flat_map(|partition| partition.records.iter().cloned()).collect()
    }

    /// A topic as it is.
    pub fn info(&self, name: &str) -> Option<TopicInfo> {
        let state = self.lock();
        let topic = state.topics.get(name)?;
        let span = |partition: &Partition| PartitionSpan { start: partition.start, end: partition.end };
        Some(TopicInfo {
            name: name.to_owned(),
            partitions: (0..).zip(topic.partitions.iter().map(span)).collect(),
        })
    }

    /// All topics.
    pub fn infos(&self) -> Vec<TopicInfo> {
        let names: Vec<String> = self.lock().topics.keys().cloned().collect();
        names.iter().filter_map(|name| self.info(name)).collect()
    }

    /// What a group has committed, by partition.
    pub fn progress(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let state = self.lock();
        state.groups.get(group).map(|group| group.progress(topic)).unwrap_or_default()
    }

    pub(super) fn offsets_at(&self, topic: &str, at_ms: i64) -> Result<BTreeMap<i32, i64>> {
        let state = self.lock();
        let topic = state.topics.get(topic).ok_or_else(|| unknown(topic))?;
        let first = |p: &Partition| p.records.iter().find(|r| r.timestamp_ms >= at_ms).map(|r| r.offset);
        Ok((0..).zip(topic.partitions.iter().map(|p| first(p).unwrap_or(p.end))).collect())
    }

    /// Sets progress from outside, or forgets it.
    pub(super) fn set_progress(
        &self,
        group: &str,
        topic: &str,
        offsets: Option<BTreeMap<i32, i64>>,
    ) -> Result<()> {
        let mut state = self.lock();
        let group = state.groups.entry(group.to_owned()).or_default();
        if group.is_read() {
            return Err(Error::fatal("log", "the group has members"));
        }
        group.reset(topic, offsets);
        Ok(())
    }

    /// Makes the coordinator take a partition from whoever has it, as a rebalance may at any time.
    pub fn disturb(&self, group: &str, partition: i32) {
        if let Some(group) = self.lock().groups.get_mut(group) {
            group.take_back(partition);
        }
    }

    pub(super) fn changed(&self) -> &Notify {
        &self.shared.changed
    }

    pub(super) fn world(&self) -> &World {
        &self.shared.world
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("invariant: nobody panics while holding the log's lock")
    }
}

pub(super) fn unknown(topic: &str) -> Error {
    Error::missing_topic("log", topic)
}
