//! What the polling thread has for the source, in order and bounded in bytes.
//!
//! A channel would not do: a revoke overtakes the batches of the partitions it takes away, which nobody needs
//! any more, and the thread must look at how much lies here before it polls for more.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use millrace_core::{Error, SourceEvent, TopicPartition};
use tokio::{sync::Notify, time::Duration};

/// What an event without records weighs.
const EVENT_BYTES: usize = 256;

/// Between one thread that fills it and one source that empties it.
pub struct Mailbox {
    state: Mutex<State>,
    filled: Notify,
    changed: Condvar,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    events: VecDeque<(SourceEvent, usize)>,
    bytes: usize,
    trouble: Option<Error>,
    ended: bool,
    closed: bool,
}

impl Mailbox {
    /// An empty one that counts as full from `bytes_max` on.
    pub fn new(bytes_max: usize) -> Self {
        Mailbox {
            state: Mutex::default(),
            filled: Notify::new(),
            changed: Condvar::new(),
            bytes_max: bytes_max.max(1),
        }
    }

    /// Appends an event.
    pub fn push(&self, event: SourceEvent) {
        let bytes = match &event {
            SourceEvent::Batch(batch) => batch.size_bytes() + EVENT_BYTES,
            _ => EVENT_BYTES,
        };
        self.fill(|state| {
            state.events.push_back((event, bytes));
            state.bytes += bytes;
        });
    }

    /// Tells of an error that passes, once: a newer one takes its place.
    pub fn trouble(&self, error: Error) {
        self.fill(|state| state.trouble = Some(error));
    }

    /// Puts a revoke in front and takes out what lies here of its partitions. Partitions whose assignment was
    /// not yet seen are only taken out; the answer is whether the revoke has anything left to tell.
    pub fn revoke(&self, mut revoked: SourceEvent) -> bool {
        let SourceEvent::Revoked { partitions, .. } = &mut revoked else { return false };
        let mut state = self.lock();
        let mut unseen = Vec::new();
        state.events.retain_mut(|(event, _)| match event {
            SourceEvent::Assigned(assignments) => {
                let gone = assignments.extract_if(.., |one| partitions.contains(&one.partition));
                unseen.extend(gone.map(|one| one.partition));
                !assignments.is_empty()
            }
            SourceEvent::Batch(batch) => !has(partitions, &batch.topic, batch.partition),
            SourceEvent::CaughtUp { partition, .. } | SourceEvent::Gap { partition, .. } => {
                !partitions.contains(partition)
            }
            SourceEvent::Revoked { .. } => true,
        });
        partitions.retain(|partition| !unseen.contains(partition));
        let told = !partitions.is_empty();
        if told {
            state.events.push_front((revoked, EVENT_BYTES));
        }
        state.bytes = state.events.iter().map(|(_, bytes)| bytes).sum();
        drop(state);
        self.filled.notify_one();
        told
    }

    /// Whether there is as much as there should be.
    pub fn is_full(&self) -> bool {
        self.lock().bytes >= self.bytes_max
    }

    /// How many bytes more there may be.
    pub fn room_bytes(&self) -> usize {
        self.bytes_max.saturating_sub(self.lock().bytes)
    }

    /// Whether at most half of it is taken.
    pub fn has_room(&self) -> bool {
        self.lock().bytes <= self.bytes_max / 2
    }

    /// Whether the source is gone.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Blocks the thread until there is room, the source is gone, or the time is over.
    pub fn wait_for_room(&self, at_most: Duration) {
        let full = |state: &mut State| !state.closed && state.bytes >= self.bytes_max;
        drop(self.changed.wait_timeout_while(self.lock(), at_most, full));
    }

    /// The thread has ended; after what lies here comes the error, if any, and then nothing.
    pub fn end(&self, error: Option<Error>) {
        self.fill(|state| {
            state.ended = true;
            state.trouble = error.or(state.trouble.take());
        });
    }

    /// The source is gone.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.events.clear();
        state.bytes = 0;
        drop(state);
        self.changed.notify_all();
    }

    /// The next event; none when the thread has ended. Cancel-safe: an event is taken in the last poll alone.
    pub async fn next(&self) -> Result<Option<SourceEvent>, Error> {
        loop {
            if let Some(answer) = self.take() {
                return answer;
            }
            self.filled.notified().await;
        }
    }

    fn take(&self) -> Option<Result<Option<SourceEvent>, Error>> {
        let mut state = self.lock();
        if let Some((event, bytes)) = state.events.pop_front() {
            let was_full = state.bytes >= self.bytes_max;
            state.bytes -= bytes;
            if was_full && state.bytes < self.bytes_max {
                self.changed.notify_all();
            }
            return Some(Ok(Some(event)));
        }
        if let Some(error) = state.trouble.take() {
            return Some(Err(error));
        }
        state.ended.then_some(Ok(None))
    }

    fn fill(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        change(&mut state);
        drop(state);
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has(partitions: &[TopicPartition], topic: &str, partition: i32) -> bool {
    partitions.iter().any(|one| one.partition == partition && &*one.topic == topic)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use millrace_core::{Assignment, Batch, Lease, Record};
    use tokio::sync::oneshot;

    use super::*;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition { topic: "t".into(), partition: number }
    }

    fn assigned(numbers: &[i32]) -> SourceEvent {
        let one = |number: &i32| Assignment {
            partition: partition(*number),
            next_offset: 0,
            lease: Arc::new(Lease::unbounded()),
        };
        SourceEvent::Assigned(numbers.iter().map(one).collect())
    }

    fn batch(number: i32) -> SourceEvent {
        let record = Record {
            topic: "t".into(),
            partition: number,
            offset: 0,
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: Arc::new([]),
        };
        SourceEvent::Batch(Batch { topic: "t".into(), partition: number, records: vec![record] })
    }

    fn revoked(numbers: &[i32]) -> (SourceEvent, oneshot::Receiver<()>) {
        let (done, wait) = oneshot::channel();
        let partitions = numbers.iter().map(|number| partition(*number)).collect();
        (SourceEvent::Revoked { partitions, lost: false, done }, wait)
    }

    #[tokio::test]
    async fn a_revoke_overtakes_what_it_takes_away() {
        let mailbox = Mailbox::new(1 << 20);
        mailbox.push(assigned(&[0, 1]));
        assert!(matches!(mailbox.next().await, Ok(Some(SourceEvent::Assigned(_)))));
        mailbox.push(batch(0));
        mailbox.push(batch(1));
        mailbox.push(assigned(&[2]));
        let (event, mut wait) = revoked(&[0, 2]);
        assert!(mailbox.revoke(event));
        let Ok(Some(SourceEvent::Revoked { partitions, done, .. })) = mailbox.next().await else {
            unreachable!("the revoke comes first")
        };
        assert_eq!(partitions, [partition(0)], "partition 2 was never seen");
        drop(done);
        assert_eq!(wait.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(matches!(mailbox.next().await, Ok(Some(SourceEvent::Batch(one))) if one.partition == 1));
        assert!(mailbox.has_room());
        mailbox.end(None);
        assert!(matches!(mailbox.next().await, Ok(None)));
    }

    #[tokio::test]
    async fn a_revoke_of_what_was_never_seen_is_not_told() {
        let mailbox = Mailbox::new(1 << 20);
        mailbox.push(assigned(&[0]));
        mailbox.push(batch(0));
        let (event, mut wait) = revoked(&[0]);
        assert!(!mailbox.revoke(event));
        assert_eq!(wait.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        mailbox.end(None);
        assert!(matches!(mailbox.next().await, Ok(None)));
    }

    #[tokio::test]
    async fn errors_come_after_events_and_the_last_one_ends() {
        let mailbox = Mailbox::new(1);
        mailbox.trouble(Error::retry("a", "first"));
        mailbox.trouble(Error::retry("a", "second"));
        mailbox.push(batch(0));
        assert!(mailbox.is_full());
        assert!(matches!(mailbox.next().await, Ok(Some(_))));
        assert_eq!(mailbox.next().await.unwrap_err().why(), "second");
        mailbox.end(Some(Error::fatal("a", "over")));
        assert_eq!(mailbox.next().await.unwrap_err().why(), "over");
        assert!(matches!(mailbox.next().await, Ok(None)));
    }

    #[tokio::test]
    async fn closing_lets_go_of_everything() {
        let mailbox = Mailbox::new(1);
        let (event, mut wait) = revoked(&[0]);
        mailbox.revoke(event);
        mailbox.close();
        assert!(mailbox.is_closed() && !mailbox.is_full());
        assert_eq!(wait.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        mailbox.wait_for_room(Duration::from_secs(60));
    }
}
