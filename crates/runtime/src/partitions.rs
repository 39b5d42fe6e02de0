//! The queue between a source and a partition's worker, counted in bytes.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};

use millrace_core::Batch;
use tokio::sync::Notify;

/// What a worker is given.
#[derive(Debug)]
pub(crate) enum Work {
    Batch(Batch),
    /// All records below this offset have been queued; there may be none after the last one done.
    Mark(i64),
}

impl Work {
    fn size_bytes(&self) -> usize {
        match self {
            Work::Batch(batch) => batch.size_bytes(),
            Work::Mark(_) => 0,
        }
    }
}

/// A queue whose bound is kept by the driver: above the byte limit it holds the source's partition back, so
/// that only what the source had fetched already can still arrive.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    work: VecDeque<Work>,
    queued_bytes: usize,
    in_work_bytes: usize,
}

impl State {
    fn pop(&mut self) -> Option<Work> {
        let work = self.work.pop_front()?;
        let bytes = work.size_bytes();
        self.queued_bytes -= bytes;
        self.in_work_bytes += bytes;
        Some(work)
    }
}

impl Queue {
    pub(crate) fn push(&self, work: Work) {
        {
            let mut state = self.lock();
            state.queued_bytes += work.size_bytes();
            match (state.work.back_mut(), work) {
                (Some(Work::Mark(offset)), Work::Mark(newer)) => *offset = newer,
                (_, work) => state.work.push_back(work),
            }
        }
        self.arrived.notify_one();
    }

    /// Pushes a batch in pieces that a worker may take: a source knows nothing of the pipeline's bound. A record larger
    /// than `bytes_max` goes alone.
    pub(crate) fn push_batch(&self, batch: Batch, bytes_max: usize) {
        if batch.size_bytes() <= bytes_max {
            return self.push(Work::Batch(batch));
        }
        let Batch { topic, partition, records } = batch;
        let piece = |records| Work::Batch(Batch { topic: topic.clone(), partition, records });
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for record in records {
            let size_bytes = record.size_bytes();
            if !taken.is_empty() && bytes + size_bytes > bytes_max {
                self.push(piece(std::mem::take(&mut taken)));
                bytes = 0;
            }
            bytes += size_bytes;
            taken.push(record);
        }
        self.push(piece(taken));
    }

    /// The next work, waiting for it. Cancel-safe.
    pub(crate) async fn pop(&self) -> Work {
        loop {
            if let Some(work) = self.try_pop() {
                return work;
            }
            self.arrived.notified().await;
        }
    }

    fn try_pop(&self) -> Option<Work> {
        self.lock().pop()
    }

    /// The next batch, if it has at most `bytes_max` bytes. A mark before it is left out: it lies below the batch,
    /// so whoever has done the batch has come further. Were it a border, a source that catches up after every record
    /// would keep batches at one record, however many wait.
    pub(crate) fn try_pop_batch(&self, bytes_max: usize) -> Option<Batch> {
        let mut state = self.lock();
        // Never two: a newer mark takes the place of the last.
        let marks = usize::from(matches!(state.work.front(), Some(Work::Mark(_))));
        let fits = matches!(state.work.get(marks), Some(Work::Batch(b)) if b.size_bytes() <= bytes_max);
        if !fits {
            return None;
        }
        state.work.drain(..marks);
        match state.pop() {
            Some(Work::Batch(batch)) => Some(batch),
            _ => None,
        }
    }

    /// What was popped is done.
    pub(crate) fn done(&self) {
        self.lock().in_work_bytes = 0;
    }

    /// Bytes waiting.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.lock().queued_bytes
    }

    /// Bytes waiting and in work.
    pub(crate) fn held_bytes(&self) -> usize {
        let state = self.lock();
        state.queued_bytes + state.in_work_bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("invariant: nobody panics while holding a queue's lock")
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::Record;
    use millrace_testkit::message::message;

    use super::*;

    fn record(offset: i64, bytes: usize) -> Record {
        message(offset, "e", &"x".repeat(bytes)).origin.record.clone()
    }

    fn batch(records: Vec<Record>) -> Batch {
        let (topic, partition) = (records[0].topic.clone(), records[0].partition);
        Batch { topic, partition, records }
    }

    fn single(offset: i64) -> Work {
        Work::Batch(batch(vec![record(offset, 5)]))
    }

    fn popped(queue: &Queue, bytes_max: usize) -> Option<i64> {
        queue.try_pop_batch(bytes_max).map(|batch| batch.next_offset())
    }

    #[test]
    fn a_mark_between_batches_does_not_part_them() {
        let queue = Queue::default();
        for offset in 0..3 {
            queue.push(single(offset));
            queue.push(Work::Mark(offset + 1));
        }
        assert!(matches!(queue.try_pop(), Some(Work::Batch(_))));
        assert_eq!((popped(&queue, 1_000), popped(&queue, 1_000)), (Some(2), Some(3)));
        assert_eq!(queue.queued_bytes(), 0);
        assert_eq!(popped(&queue, 1_000), None);
        assert!(matches!(queue.try_pop(), Some(Work::Mark(3))), "no batch says what the last mark does");
        assert!(queue.try_pop().is_none());
    }

    #[test]
    fn a_mark_stays_where_the_batch_behind_it_is_not_taken() {
        let queue = Queue::default();
        queue.push(Work::Mark(4));
        queue.push(Work::Mark(7));
        assert_eq!(popped(&queue, 1_000), None);
        queue.push(single(7));
        let held = queue.held_bytes();
        assert_eq!(popped(&queue, held - 1), None);
        assert!(matches!(queue.try_pop(), Some(Work::Mark(7))), "progress that waits for no batch");
        assert_eq!(popped(&queue, held), Some(8));
        queue.done();
        assert_eq!(queue.held_bytes(), 0);
    }

    #[test]
    fn a_batch_is_pushed_in_pieces_and_a_large_record_alone() {
        let records = vec![record(1, 10), record(2, 10), record(3, 5_000), record(4, 10)];
        let queue = Queue::default();
        queue.push_batch(batch(records), 1_000);
        let offsets = std::iter::from_fn(|| match queue.try_pop()? {
            Work::Batch(batch) => Some(batch.records.iter().map(|record| record.offset).collect::<Vec<_>>()),
            Work::Mark(_) => None,
        });
        assert_eq!(offsets.collect::<Vec<_>>(), [vec![1, 2], vec![3], vec![4]]);
        assert_eq!(queue.queued_bytes(), 0);
    }
}
