//! A reader's membership: what it owns, kept in step with the coordinator by heartbeats.
//!
//! Each answer names all that is the member's, so a lost one does no harm. A lease counts from when its heartbeat
//! was sent, and is shorter than the session by a heartbeat: while it is valid, the partition is nobody else's.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use millrace_core::{Assignment, Lease, SourceEvent, Start, Subscription, TopicPartition};
use tokio::{
    sync::{Notify, oneshot},
    time::{Duration, Instant},
};

use super::{
    group::{SESSION, Share},
    log::Log,
    process::Process,
};

const HEARTBEAT_MS: u64 = 300;

/// How long a lease holds from when its heartbeat was sent.
const LEASE: Duration = SESSION.saturating_sub(Duration::from_millis(HEARTBEAT_MS));

/// Shared by a source, its handle and its heart.
pub(super) struct Member {
    pub(super) log: Log,
    pub(super) process: Process,
    pub(super) topic: Arc<str>,
    pub(super) group: Option<String>,
    /// Whether partitions are shared out by a coordinator.
    pub(super) shared: bool,
    start: Start,
    pub(super) changed: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) number: Option<u64>,
    pub(super) commits: u64,
    pub(super) closed: bool,
    pub(super) events: VecDeque<SourceEvent>,
    pub(super) slots: BTreeMap<i32, Slot>,
}

/// An owned partition.
pub(super) struct Slot {
    pub(super) epoch: u64,
    pub(super) lease: Arc<Lease>,
    pub(super) position: i64,
    pub(super) told_end: Option<i64>,
    pub(super) paused: bool,
    /// Being handed over, or lost: nothing more is read from it.
    pub(super) leaving: bool,
}

impl Slot {
    pub(super) fn new(epoch: u64, lease: Arc<Lease>, position: i64) -> Self {
        Slot { epoch, lease, position, told_end: None, paused: false, leaving: false }
    }
}

impl Member {
    pub(super) fn new(log: &Log, process: &Process, subscription: &Subscription) -> Arc<Self> {
        Arc::new(Member {
            log: log.clone(),
            process: process.clone(),
            topic: subscription.topic.as_str().into(),
            group: subscription.group.clone(),
            shared: subscription.group.is_some() && subscription.partitions.is_none(),
            start: subscription.start,
            changed: Notify::new(),
            state: Mutex::default(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("invariant: nobody panics while holding a member's lock")
    }

    pub(super) fn named(&self, partition: i32) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition }
    }

    /// Keeps the membership until the source is closed or its process dies.
    pub(super) async fn live(self: Arc<Self>) {
        let world = self.log.world().clone();
        while !self.lock().closed && !self.process.is_dead() {
            self.process.running().await;
            let sent = Instant::now();
            let number = self.lock().number;
            let (log, topic, group) = (self.log.clone(), self.topic.clone(), self.group.clone());
            let beat = Box::pin(async move {
                let mut state = log.lock();
                let partitions = state.topics.get(&*topic).map_or(0, |topic| topic.partitions.len());
                state.groups.entry(group.unwrap_or_default()).or_default().beat(&topic, partitions, number)
            });
            if let Ok((number, shares)) =
                world.ask_in_time(&self.process, self.log.system(), "beat", beat).await
            {
                self.reconcile(number, &shares, sent);
            }
            world.wait(HEARTBEAT_MS).await;
        }
    }

    /// Makes what is owned here what the coordinator says.
    fn reconcile(self: &Arc<Self>, number: u64, shares: &[Share], sent: Instant) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.closed {
            return;
        }
        let is_same = state.number == Some(number);
        state.number = Some(number);
        let valid = LEASE.saturating_sub(sent.elapsed());
        let (mut assigned, mut leaving, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for (partition, slot) in &mut state.slots {
            let share =
                shares.iter().find(|share| share.partition == *partition && share.epoch == slot.epoch);
            match share.filter(|_| is_same) {
                Some(share) => {
                    slot.lease.renew(valid);
                    if share.leaving && !slot.leaving {
                        slot.leaving = true;
                        leaving.push((*partition, slot.epoch));
                    }
                }
                None => {
                    slot.lease.revoke();
                    if !slot.leaving {
                        slot.leaving = true;
                        lost.push((*partition, slot.epoch));
                    }
                }
            }
        }
        for share in shares {
            // A partition that comes back waits until its last stay here has ended.
            if state.slots.contains_key(&share.partition) {
                continue;
            }
            if share.leaving {
                tokio::spawn(self.clone().release(vec![(share.partition, share.epoch)]));
                continue;
            }
            let (next_offset, gap) = self.start_of(share);
            let lease = Arc::new(Lease::new(valid));
            state.slots.insert(share.partition, Slot::new(share.epoch, lease.clone(), next_offset));
            let partition = self.named(share.partition);
            assigned.push((Assignment { partition, next_offset, lease }, gap));
        }
        for (list, lost) in [(leaving, false), (lost, true)] {
            if !list.is_empty() {
                state.events.push_back(self.hand_over(list, lost));
            }
        }
        let (assigned, gaps): (Vec<_>, Vec<_>) = assigned.into_iter().unzip();
        if !assigned.is_empty() {
            self.log.world().note(|| {
                let of = |one: &Assignment| format!(" {} from {}", one.partition, one.next_offset);
                let list: String = assigned.iter().map(of).collect();
                format!("{}: assigned{list}", self.process.name())
            });
            state.events.push_back(SourceEvent::Assigned(assigned));
            state.events.extend(gaps.into_iter().flatten());
        }
        self.changed.notify_waiters();
    }

    /// Where reading begins, and the gap if what was committed last is gone.
    fn start_of(&self, share: &Share) -> (i64, Option<SourceEvent>) {
        let state = self.log.lock();
        let index = usize::try_from(share.partition).unwrap_or(usize::MAX);
        let partition = state.topics.get(&*self.topic).and_then(|topic| topic.partitions.get(index));
        let (start, end) = partition.map_or((0, 0), |partition| (partition.start, partition.end));
        let begin = share.committed.unwrap_or(match self.start {
            Start::Beginning => start,
            Start::End => end,
            Start::Offset(offset) => offset.max(start),
        });
        let gap = (begin < start).then(|| SourceEvent::Gap {
            partition: self.named(share.partition),
            from: begin,
            to: start,
        });
        (begin.max(start), gap)
    }

    /// The event that takes partitions away; what follows happens when the reader has dropped its end.
    fn hand_over(self: &Arc<Self>, list: Vec<(i32, u64)>, lost: bool) -> SourceEvent {
        let (done, let_go) = oneshot::channel();
        let partitions: Vec<TopicPartition> = list.iter().map(|(number, _)| self.named(*number)).collect();
        self.log.world().note(|| {
            let list: Vec<String> = partitions.iter().map(ToString::to_string).collect();
            let how = if lost { "lost" } else { "has to let go" };
            format!("{}: {how} {}", self.process.name(), list.join(" "))
        });
        let member = self.clone();
        tokio::spawn(async move {
            // Sent or dropped: both mean that the work has ended.
            let _ = let_go.await;
            for (partition, _) in &list {
                if let Some(slot) = member.lock().slots.remove(partition) {
                    slot.lease.revoke();
                }
            }
            if !lost {
                member.release(list).await;
            }
        });
        SourceEvent::Revoked { partitions, lost, done }
    }

    async fn release(self: Arc<Self>, list: Vec<(i32, u64)>) {
        let world = self.log.world().clone();
        loop {
            let (log, group, list) = (self.log.clone(), self.group.clone(), list.clone());
            let release = Box::pin(async move {
                if let Some(group) = log.lock().groups.get_mut(&group.unwrap_or_default()) {
                    list.into_iter().for_each(|(partition, epoch)| group.release(partition, epoch));
                }
            });
            let answer = world.ask_in_time(&self.process, self.log.system(), "release", release).await;
            if answer.is_ok() || self.lock().closed {
                return;
            }
            world.wait(HEARTBEAT_MS).await;
        }
    }

    /// Leaves the group, as far as it can be told.
    pub(super) fn close(self: &Arc<Self>) {
        let number = {
            let mut state = self.lock();
            state.closed = true;
            state.slots.values().for_each(|slot| slot.lease.revoke());
            state.number
        };
        let (Some(number), false) = (number, self.process.is_dead()) else { return };
        let member = self.clone();
        tokio::spawn(async move {
            let (log, group) = (member.log.clone(), member.group.clone().unwrap_or_default());
            let leave = Box::pin(async move {
                if let Some(group) = log.lock().groups.get_mut(&group) {
                    group.leave(number);
                }
            });
            let system = member.log.system();
            // One that is not heard is put out when its session ends.
            let _ = member.log.world().ask_in_time(&member.process, system, "leave", leave).await;
        });
    }
}
