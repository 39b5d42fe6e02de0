//! A broker, a store for lookups and a sink in memory, with faults that a test arms beforehand.

mod lookup;
mod transactor;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::Bytes;
use millrace_core::{
    Admin, Answer, Assignment, Batch, Broker, Call, Control, CreateOutcome, Encoded, Error, Lease, Message,
    NewRecord, PartitionSpan, Position, Producer, Record, Result, Sink, Source, SourceEvent, Start, States,
    Subscription, TopicInfo, TopicPartition, TopicSpec, Transactor, partition_for_key,
};
use tokio::sync::{Notify, oneshot};

pub use lookup::MemoryLookup;
pub use transactor::CommitFault;
use transactor::MemoryTransactor;

/// A group, and a partition it reads.
type Owner = (String, TopicPartition);

/// A log in memory: one member per group.
#[derive(Clone, Default)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, Topic>,
    progress: HashMap<Owner, i64>,
    states: HashMap<Owner, States>,
    /// How many transactors an owner has had.
    epochs: HashMap<Owner, u64>,
    commit_faults: VecDeque<CommitFault>,
    /// How many restores are not answered.
    silent_restores: u32,
    /// Whose last commit was carried out without saying so.
    silent: HashSet<Owner>,
    /// By group.
    paused: HashSet<(Option<String>, TopicPartition)>,
    lease: Option<Arc<Lease>>,
    revokes: VecDeque<SourceEvent>,
}

struct Topic {
    spec: TopicSpec,
    partitions: Vec<Partition>,
}

#[derive(Default)]
struct Partition {
    start: i64,
    next: i64,
    records: VecDeque<Record>,
}

impl MemoryBroker {
    /// A broker with this topic.
    pub fn with_topic(name: &str, partitions: u32) -> Self {
        let broker = MemoryBroker::default();
        let spec = TopicSpec {
            name: name.to_owned(),
            partitions,
            retention_ms: None,
            retention_bytes: None,
            record_bytes_max: 1 << 20,
            replication: None,
            compact: false,
        };
        broker.create(&spec);
        broker
    }

    /// Appends values without keys to one partition.
    pub fn append(&self, topic: &str, partition: i32, values: impl IntoIterator<Item = impl Into<Bytes>>) {
        for value in values {
            let record =
                NewRecord { value: Some(value.into()), partition: Some(partition), ..NewRecord::default() };
            self.push(topic, record).expect("invariant: the test made the topic");
        }
    }

    /// All records of a topic, by partition and offset.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        let state = self.lock();
        let partitions = state.topics.get(topic).map(|t| &t.partitions);
        partitions.into_iter().flatten().flat_map(|p| p.records.iter().cloned()).collect()
    }

    /// What a group has committed for a partition.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let partition = TopicPartition { topic: topic.into(), partition };
        self.lock().progress.get(&(group.to_owned(), partition)).copied()
    }

    /// Commits for a group, as an earlier run would have.
    pub fn set_committed(&self, group: &str, topic: &str, partition: i32, next_offset: i64) {
        let partition = TopicPartition { topic: topic.into(), partition };
        self.lock().progress.insert((group.to_owned(), partition), next_offset);
    }

    /// Removes the oldest records of a partition, as retention does.
    pub fn expire(&self, topic: &str, partition: usize, before: i64) {
        let mut state = self.lock();
        let topic = state.topics.get_mut(topic).expect("invariant: the test made the topic");
        let partition = &mut topic.partitions[partition];
        partition.records.retain(|record| record.offset >= before);
        partition.start = before;
        partition.next = partition.next.max(before);
    }

    /// The next restores, so many, are never answered.
    pub fn silence_restores(&self, count: u32) {
        self.lock().silent_restores = count;
    }

    /// What becomes of the next commits of transactions, in order.
    pub fn arm_commits(&self, faults: impl IntoIterator<Item = CommitFault>) {
        self.lock().commit_faults.extend(faults);
    }

    /// The lease that the next assignment carries.
    pub fn set_lease(&self, lease: Arc<Lease>) {
        self.lock().lease = Some(lease);
    }

    /// Takes a partition away from the reader that asks next. The answer ends when the partition is let go.
    pub fn revoke(&self, topic: &str, partition: i32) -> oneshot::Receiver<()> {
        let (done, let_go) = oneshot::channel();
        let partitions = vec![TopicPartition { topic: topic.into(), partition }];
        self.lock().revokes.push_back(SourceEvent::Revoked { partitions, lost: false, done });
        self.shared.changed.notify_waiters();
        let_go
    }

    fn create(&self, spec: &TopicSpec) -> CreateOutcome {
        let mut state = self.lock();
        if let Some(topic) = state.topics.get(&spec.name) {
            return CreateOutcome::Exists { partitions: topic.spec.partitions };
        }
        let partitions = (0..spec.partitions).map(|_| Partition::default()).collect();
        state.topics.insert(spec.name.clone(), Topic { spec: spec.clone(), partitions });
        CreateOutcome::Created
    }

    fn push(&self, name: &str, new: NewRecord) -> Result<Position> {
        let position = self.lock().push(name, new)?;
        self.shared.changed.notify_waiters();
        Ok(position)
    }

    fn info(&self, name: &str) -> Option<TopicInfo> {
        let state = self.lock();
        let topic = state.topics.get(name)?;
        let span = |p: &Partition| PartitionSpan { start: p.start, end: p.next };
        let partitions = (0..).zip(topic.partitions.iter().map(span)).collect();
        Some(TopicInfo { name: name.to_owned(), partitions })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("invariant: nobody panics while holding the lock")
    }
}

impl State {
    /// Whether the restore at hand is one that is not answered.
    fn is_restore_silent(&mut self) -> bool {
        let is_silent = self.silent_restores > 0;
        self.silent_restores = self.silent_restores.saturating_sub(1);
        is_silent
    }

    fn judge(&self, name: &str, new: &NewRecord) -> Result<()> {
        let spec = &self.topics.get(name).ok_or_else(|| unknown(name))?.spec;
        if new.value.as_ref().map_or(0, Bytes::len) > spec.record_bytes_max {
            return Err(Error::reject("memory", "the record is too large"));
        }
        if spec.compact && new.key.is_none() {
            return Err(Error::reject("memory", "a compacted topic takes records with a key only"));
        }
        Ok(())
    }

    fn push(&mut self, name: &str, new: NewRecord) -> Result<Position> {
        self.judge(name, &new)?;
        let topic = self.topics.get_mut(name).ok_or_else(|| unknown(name))?;
        let partition = new.partition.unwrap_or_else(|| {
            let number = new.key.as_deref().map_or(0, |key| partition_for_key(key, topic.spec.partitions));
            i32::try_from(number).unwrap_or(0)
        });
        let log = &mut topic.partitions[usize::try_from(partition).unwrap_or(0)];
        let offset = log.next;
        if topic.spec.compact {
            log.records.retain(|record| record.key != new.key);
        }
        log.next += 1;
        log.records.push_back(Record {
            topic: name.into(),
            partition,
            offset,
            timestamp_ms: 1_700_000_000_000 + offset,
            key: new.key,
            value: new.value,
            headers: new.headers.into(),
        });
        Ok(Position { partition, offset })
    }
}

fn unknown(topic: &str) -> Error {
    Error::missing_topic("memory", topic)
}

#[async_trait]
impl Producer for MemoryBroker {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<Position>> {
        records.into_iter().map(|record| self.push(topic, record)).collect()
    }
}

#[async_trait]
impl Admin for MemoryBroker {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<CreateOutcome> {
        Ok(self.create(spec))
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        let names: Vec<String> = self.lock().topics.keys().cloned().collect();
        Ok(names.iter().filter_map(|name| self.info(name)).collect())
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicInfo>> {
        Ok(self.info(name))
    }

    async fn progress(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let state = self.lock();
        let of_topic = |(g, p): &(String, TopicPartition)| g == group && &*p.topic == topic;
        Ok(state
            .progress
            .iter()
            .filter(|(key, _)| of_topic(key))
            .map(|(key, next)| (key.1.partition, *next))
            .collect())
    }

    async fn offsets_at(&self, topic: &str, at_ms: i64) -> Result<BTreeMap<i32, i64>> {
        let state = self.lock();
        let topic = state.topics.get(topic).ok_or_else(|| unknown(topic))?;
        let first = |p: &Partition| p.records.iter().find(|r| r.timestamp_ms >= at_ms).map(|r| r.offset);
        Ok((0..).zip(topic.partitions.iter().map(|p| first(p).unwrap_or(p.next))).collect())
    }

    async fn set_progress(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        for (partition, next) in offsets {
            self.set_committed(group, topic, *partition, *next);
            let partition = TopicPartition { topic: topic.into(), partition: *partition };
            self.lock().states.remove(&(group.to_owned(), partition));
        }
        Ok(())
    }

    async fn forget_progress(&self, group: &str, topic: &str) -> Result<()> {
        let mut state = self.lock();
        let other = |(of, partition): &Owner| of != group || &*partition.topic != topic;
        state.progress.retain(|owner, _| other(owner));
        state.states.retain(|owner, _| other(owner));
        Ok(())
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Source>> {
        let info = self.info(&subscription.topic).ok_or_else(|| unknown(&subscription.topic))?;
        let group = subscription.group.clone();
        let mut positions = BTreeMap::new();
        let mut gaps = Vec::new();
        for (number, span) in info.partitions {
            if subscription.partitions.as_ref().is_some_and(|wanted| !wanted.contains(&number)) {
                continue;
            }
            let partition = TopicPartition { topic: subscription.topic.as_str().into(), partition: number };
            let committed = group
                .as_ref()
                .and_then(|group| self.lock().progress.get(&(group.clone(), partition.clone())).copied());
            let next = committed.unwrap_or(match subscription.start {
                Start::Beginning => span.start,
                Start::End => span.end,
                Start::Offset(offset) => offset.max(span.start),
            });
            if next < span.start {
                gaps.push(SourceEvent::Gap { partition: partition.clone(), from: next, to: span.start });
            }
            positions.insert(partition, next.max(span.start));
        }
        let lease = self.lock().lease.take().unwrap_or_else(|| Arc::new(Lease::unbounded()));
        let assigned = positions
            .iter()
            .map(|(partition, next)| Assignment {
                partition: partition.clone(),
                next_offset: *next,
                lease: lease.clone(),
            })
            .collect();
        let mut queued = VecDeque::from([SourceEvent::Assigned(assigned)]);
        queued.extend(gaps);
        Ok(Box::new(MemorySource {
            broker: self.clone(),
            group,
            positions,
            queued,
            batch_records_max: subscription.batch_records_max.max(1),
            caught_up: HashMap::new(),
            lease,
        }))
    }

    async fn producer(&self) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(self.clone()))
    }

    fn admin(&self) -> Arc<dyn Admin> {
        Arc::new(self.clone())
    }

    fn has_transactions(&self) -> bool {
        true
    }
}

struct MemorySource {
    broker: MemoryBroker,
    group: Option<String>,
    positions: BTreeMap<TopicPartition, i64>,
    queued: VecDeque<SourceEvent>,
    batch_records_max: usize,
    caught_up: HashMap<TopicPartition, i64>,
    lease: Arc<Lease>,
}

impl MemorySource {
    fn read(&mut self) -> Option<SourceEvent> {
        if let Some(event) = self.queued.pop_front() {
            return Some(event);
        }
        let mut state = self.broker.lock();
        if let Some(event) = state.revokes.pop_front() {
            if let SourceEvent::Revoked { partitions, .. } = &event {
                self.positions.retain(|partition, _| !partitions.contains(partition));
            }
            return Some(event);
        }
        for (partition, position) in &mut self.positions {
            if state.paused.contains(&(self.group.clone(), partition.clone())) {
                continue;
            }
            let log = &state.topics[&*partition.topic].partitions
                [usize::try_from(partition.partition).unwrap_or(0)];
            let from = log.records.partition_point(|record| record.offset < *position);
            let records: Vec<Record> =
                log.records.iter().skip(from).take(self.batch_records_max).cloned().collect();
            if let Some(last) = records.last() {
                *position = last.offset + 1;
                let batch = Batch { topic: partition.topic.clone(), partition: partition.partition, records };
                return Some(SourceEvent::Batch(batch));
            }
            *position = log.next;
            if self.caught_up.insert(partition.clone(), *position) != Some(*position) {
                return Some(SourceEvent::CaughtUp { partition: partition.clone(), next_offset: *position });
            }
        }
        None
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn next(&mut self) -> Result<Option<SourceEvent>> {
        loop {
            let shared = self.broker.shared.clone();
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, so that an append in between is not missed.
            changed.as_mut().enable();
            if let Some(event) = self.read() {
                return Ok(Some(event));
            }
            changed.await;
        }
    }

    fn control(&self) -> Arc<dyn Control> {
        Arc::new(MemoryControl {
            broker: self.broker.clone(),
            group: self.group.clone(),
            lease: self.lease.clone(),
        })
    }
}

impl Drop for MemorySource {
    /// Leaves the group: nothing is this member's any more.
    fn drop(&mut self) {
        self.lease.revoke();
    }
}

struct MemoryControl {
    broker: MemoryBroker,
    group: Option<String>,
    lease: Arc<Lease>,
}

#[async_trait]
impl Control for MemoryControl {
    async fn commit(&self, offsets: &[(TopicPartition, i64)]) -> Result<()> {
        if let Some(group) = self.group.as_ref().filter(|_| !self.lease.is_revoked()) {
            let mut state = self.broker.lock();
            for (partition, next) in offsets {
                state.progress.insert((group.clone(), partition.clone()), *next);
            }
        }
        Ok(())
    }

    fn transactor(&self, assignment: &Assignment) -> Option<Arc<dyn Transactor>> {
        let group = self.group.as_deref()?;
        Some(Arc::new(MemoryTransactor::new(&self.broker, group, &assignment.partition, &assignment.lease)))
    }

    fn pause(&self, partitions: &[TopicPartition]) {
        let paused = partitions.iter().map(|partition| (self.group.clone(), partition.clone()));
        self.broker.lock().paused.extend(paused);
    }

    fn resume(&self, partitions: &[TopicPartition]) {
        let mut state = self.broker.lock();
        for partition in partitions {
            state.paused.remove(&(self.group.clone(), partition.clone()));
        }
        drop(state);
        self.broker.shared.changed.notify_waiters();
    }
}

/// What an armed sink does with a call that holds a certain text.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers Retry this many times.
    Retry(u32),
    /// Answers Reject, always.
    Reject,
    /// Answers Fatal.
    Fatal,
    /// Never answers, this many times.
    Hang(u32),
}

/// A sink that keeps what it is sent, in the order of its effects.
#[derive(Default)]
pub struct MemorySink {
    written: Mutex<Vec<String>>,
    faults: Mutex<Vec<(String, Fault)>>,
    ops_max: usize,
    changed: Notify,
}

impl MemorySink {
    /// A sink whose calls hold up to `ops_max` messages.
    pub fn new(ops_max: usize) -> Arc<Self> {
        Arc::new(MemorySink { ops_max, ..MemorySink::default() })
    }

    /// Arms a fault for calls that contain `text`.
    pub fn arm(&self, text: &str, fault: Fault) {
        self.faults.lock().expect("invariant: no panic under the lock").push((text.to_owned(), fault));
    }

    /// What was written so far.
    pub fn written(&self) -> Vec<String> {
        self.written.lock().expect("invariant: no panic under the lock").clone()
    }

    /// Waits until `count` messages were written.
    pub async fn wait_for(&self, count: usize) -> Vec<String> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let written = self.written();
            if written.len() >= count {
                return written;
            }
            changed.await;
        }
    }

    fn fault(&self, text: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().expect("invariant: no panic under the lock");
        let index = faults.iter().position(|(marker, _)| text.contains(marker.as_str()))?;
        let fault = faults[index].1.clone();
        match &mut faults[index].1 {
            Fault::Retry(left) | Fault::Hang(left) => {
                *left -= 1;
                if *left == 0 {
                    faults.remove(index);
                }
            }
            Fault::Reject | Fault::Fatal => {}
        }
        Some(fault)
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    fn encode(&self, messages: &[Message]) -> Encoded {
        let mut encoded = Encoded::default();
        let ops: Vec<millrace_core::Op> = (0u32..)
            .zip(messages)
            .filter_map(|(message, m)| {
                if m.value.is_empty() {
                    encoded.rejected.push((message, Error::reject("memory", "the value is empty")));
                    return None;
                }
                Some(millrace_core::Op { message, parts: vec![m.value.clone()] })
            })
            .collect();
        encoded.calls =
            ops.chunks(self.ops_max.max(1)).map(|ops| Call { kind: "write", ops: ops.to_vec() }).collect();
        encoded
    }

    async fn send(&self, calls: &[Call]) -> Vec<Answer> {
        let mut answers = Vec::new();
        for call in calls {
            let texts: Vec<String> =
                call.ops.iter().map(|op| String::from_utf8_lossy(&op.parts[0]).into_owned()).collect();
            let error = match self.fault(&texts.join("\n")) {
                None => {
                    self.written.lock().expect("invariant: no panic under the lock").extend(texts);
                    self.changed.notify_waiters();
                    answers.push(Answer::Done);
                    continue;
                }
                Some(Fault::Retry(_)) => Error::retry("memory", "away"),
                Some(Fault::Reject) => Error::reject("memory", "refused"),
                Some(Fault::Fatal) => Error::fatal("memory", "broken"),
                Some(Fault::Hang(_)) => std::future::pending().await,
            };
            answers.push(Answer::Failed(error));
        }
        answers
    }
}
