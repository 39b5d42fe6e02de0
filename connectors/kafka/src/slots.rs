//! The partitions a source owns: what the polling thread keeps of each, and what other tasks may know of it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use millrace_core::{Batch, Lease, Record};

/// A batch holds no more than this, or one larger record.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// One owned partition.
pub struct Slot {
    /// The right to write for it.
    pub lease: Arc<Lease>,
    /// The offset after the last record taken.
    pub next_offset: i64,
    /// What librdkafka was told: to pause it or not, or nothing yet.
    pub paused: Option<bool>,
    /// Being handed over: nothing more is taken from it.
    pub leaving: bool,
    records: Vec<Record>,
    bytes: usize,
}

impl Slot {
    /// A partition that was assigned.
    pub fn new(lease: Arc<Lease>, next_offset: i64) -> Self {
        Slot { lease, next_offset, paused: None, leaving: false, records: Vec::new(), bytes: 0 }
    }

    /// Whether the batch so far has no room for the record.
    pub fn is_full_for(&self, record: &Record) -> bool {
        !self.records.is_empty() && self.bytes + record.size_bytes() > BATCH_BYTES_MAX
    }

    /// Takes a record; answers whether the batch is as large as it may be.
    pub fn add(&mut self, record: Record, records_max: usize) -> bool {
        self.next_offset = record.offset + 1;
        self.bytes += record.size_bytes();
        self.records.push(record);
        self.records.len() >= records_max || self.bytes >= BATCH_BYTES_MAX
    }

    /// The batch so far, if there is one.
    pub fn batch(&mut self, topic: &Arc<str>, partition: i32) -> Option<Batch> {
        if self.records.is_empty() {
            return None;
        }
        self.bytes = 0;
        let capacity = self.records.len();
        let records = std::mem::replace(&mut self.records, Vec::with_capacity(capacity));
        Some(Batch { topic: topic.clone(), partition, records })
    }

    /// Drops the batch so far.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.records = Vec::new();
        self.bytes = 0;
    }
}

/// All owned partitions of one topic, by number: found for each record, so without hashing.
#[derive(Default)]
pub struct Slots(Vec<Option<Slot>>);

impl Slots {
    /// An owned partition.
    pub fn get_mut(&mut self, partition: i32) -> Option<&mut Slot> {
        self.0.get_mut(usize::try_from(partition).ok()?)?.as_mut()
    }

    /// Adds a partition.
    pub fn insert(&mut self, partition: i32, slot: Slot) {
        let index = usize::try_from(partition).expect("invariant: partitions are numbered from 0");
        if index >= self.0.len() {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(slot);
    }

    /// Removes a partition.
    pub fn remove(&mut self, partition: i32) -> Option<Slot> {
        self.0.get_mut(usize::try_from(partition).ok()?)?.take()
    }

    /// All of them with their numbers.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (i32, &mut Slot)> {
        (0..).zip(&mut self.0).filter_map(|(number, slot)| Some((number, slot.as_mut()?)))
    }
}

/// What the handle of a source shares with its thread.
#[derive(Default)]
pub struct Desk {
    state: Mutex<DeskState>,
}

#[derive(Default)]
struct DeskState {
    owned: BTreeSet<i32>,
    held: BTreeSet<i32>,
    version: u64,
}

impl Desk {
    /// Partitions may be committed for from now on. They flow, whoever paused them when they were here before.
    pub fn own(&self, partitions: impl IntoIterator<Item = i32>) {
        let mut state = self.lock();
        for partition in partitions {
            state.owned.insert(partition);
            state.held.remove(&partition);
        }
        state.version += 1;
    }

    /// They may not any more.
    pub fn disown(&self, partitions: &[i32]) {
        let mut state = self.lock();
        for partition in partitions {
            state.owned.remove(partition);
            state.held.remove(partition);
        }
    }

    /// Whether a partition may be committed for.
    pub fn owns(&self, partition: i32) -> bool {
        self.lock().owned.contains(&partition)
    }

    /// Holds partitions back, those that are owned.
    pub fn hold(&self, partitions: impl IntoIterator<Item = i32>) {
        let mut state = self.lock();
        for partition in partitions {
            if state.owned.contains(&partition) {
                state.held.insert(partition);
            }
        }
        state.version += 1;
    }

    /// Lets them flow again.
    pub fn release(&self, partitions: impl IntoIterator<Item = i32>) {
        let mut state = self.lock();
        for partition in partitions {
            state.held.remove(&partition);
        }
        state.version += 1;
    }

    /// Makes the thread look at the pauses again.
    pub fn touch(&self) {
        self.lock().version += 1;
    }

    /// The partitions held back, when that has changed since `version`; brings `version` up to date.
    pub fn held_since(&self, version: &mut u64) -> Option<BTreeSet<i32>> {
        let state = self.lock();
        (state.version != *version).then(|| {
            *version = state.version;
            state.held.clone()
        })
    }

    fn lock(&self) -> MutexGuard<'_, DeskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;

    fn record(offset: i64, bytes: usize) -> Record {
        Record {
            topic: "t".into(),
            partition: 3,
            offset,
            timestamp_ms: 0,
            key: None,
            value: Some(Bytes::from(vec![0; bytes])),
            headers: Arc::new([]),
        }
    }

    #[test]
    fn batches_end_by_count_and_by_size() {
        let topic: Arc<str> = "t".into();
        let mut slots = Slots::default();
        slots.insert(3, Slot::new(Arc::new(Lease::unbounded()), 5));
        let slot = slots.get_mut(3).unwrap();
        assert!(slot.batch(&topic, 3).is_none());
        assert!(!slot.add(record(5, 10), 2));
        assert!(slot.add(record(9, 10), 2), "two records");
        let batch = slot.batch(&topic, 3).unwrap();
        assert_eq!((batch.partition, batch.records.len(), batch.next_offset()), (3, 2, slot.next_offset));
        assert!(!slot.is_full_for(&record(10, BATCH_BYTES_MAX)), "a large record goes alone");
        assert!(slot.add(record(10, BATCH_BYTES_MAX), 100), "one large record");
        assert!(slot.is_full_for(&record(11, 0)), "nothing goes with it");
        slot.leave();
        assert!(slot.batch(&topic, 3).is_none());
        assert!(slots.get_mut(2).is_none() && slots.get_mut(4).is_none() && slots.get_mut(-1).is_none());
        assert_eq!(slots.iter_mut().map(|(number, _)| number).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn a_pause_ends_with_the_ownership() {
        let desk = Desk::default();
        let mut version = 0;
        desk.hold([1]);
        assert_eq!(desk.held_since(&mut version), Some(BTreeSet::new()), "not owned, not held");
        assert_eq!(desk.held_since(&mut version), None);
        desk.own([1, 2]);
        desk.hold([1, 2]);
        assert_eq!(desk.held_since(&mut version), Some(BTreeSet::from([1, 2])));
        desk.release([2]);
        assert_eq!(desk.held_since(&mut version), Some(BTreeSet::from([1])));
        desk.disown(&[1]);
        desk.own([1]);
        assert!(desk.owns(1) && !desk.owns(7));
        assert_eq!(desk.held_since(&mut version), Some(BTreeSet::new()));
    }
}
