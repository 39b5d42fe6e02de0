//! Holding back: single partitions because the pipeline asked, or all because the mailbox is full.

use std::collections::BTreeSet;

use rdkafka::{TopicPartitionList, consumer::Consumer};
use tokio::time::{Duration, Instant};

use super::Reader;

/// How long a full mailbox is waited out before the partitions are paused. A pause throws away what librdkafka
/// has fetched ahead; without one it could not be polled without taking more.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long to wait for room before looking at the group again.
const WAIT: Duration = Duration::from_millis(100);

/// What is held back.
#[derive(Default)]
pub struct Flow {
    stopped: bool,
    full_since: Option<Instant>,
    held: BTreeSet<i32>,
    version: u64,
}

impl Flow {
    /// Whether anything is.
    pub fn holds_back(&self) -> bool {
        self.stopped || !self.held.is_empty()
    }
}

impl Reader {
    /// Applies what has changed. False when there is no room for more and it is too early to pause: the thread
    /// has waited for a while and polls nothing now.
    pub(super) fn flow_is_open(&mut self) -> bool {
        let full = self.mailbox.is_full();
        if self.flow.stopped {
            if self.mailbox.has_room() {
                self.flow.stopped = false;
                self.flow.full_since = None;
                self.apply_pauses();
            }
        } else if full {
            let now = Instant::now();
            let since = *self.flow.full_since.get_or_insert(now);
            if now.duration_since(since) < PATIENCE {
                self.mailbox.wait_for_room(WAIT);
                return false;
            }
            self.flow.stopped = true;
            self.apply_pauses();
        } else {
            self.flow.full_since = None;
        }
        if let Some(held) = self.desk.held_since(&mut self.flow.version) {
            self.flow.held = held;
            self.apply_pauses();
        }
        true
    }

    /// Tells librdkafka of each partition whose state is not as it should be. It forgets nothing by itself: a
    /// partition that comes back after a rebalance is still paused there, so new ones are always told.
    fn apply_pauses(&mut self) {
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        for (partition, slot) in self.slots.iter_mut().filter(|(_, slot)| !slot.leaving) {
            let wanted = self.flow.stopped || self.flow.held.contains(&partition);
            if slot.paused != Some(wanted) {
                slot.paused = Some(wanted);
                let list = if wanted { &mut pause } else { &mut resume };
                list.add_partition(&self.plan.topic, partition);
            }
        }
        for (list, paused) in [(pause, true), (resume, false)] {
            if list.count() == 0 {
                continue;
            }
            let answer = if paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
            if let Err(error) = answer {
                tracing::warn!(topic = &*self.plan.topic, %error, paused, "partitions could not be paused or resumed");
            }
        }
    }
}
