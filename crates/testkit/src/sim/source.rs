//! The source of a process: reads what its membership gives it, partition by partition in any order.

use std::sync::Arc;

use async_trait::async_trait;
use millrace_core::{
    Assignment, Batch, Control, Error, Lease, Result, Source, SourceEvent, Start, Subscription, TopicInfo,
    TopicPartition, Transactor,
};
use tokio::time::{Duration, Instant, sleep_until};

use super::{
    group::Commit,
    log::Log,
    member::{Member, Slot},
    process::Process,
    transactor::SimTransactor,
    world::Plant,
};

pub(super) struct SimSource {
    member: Arc<Member>,
    batch_records_max: usize,
    /// When the next batch has been fetched.
    ready: Instant,
}

/// What a look around found.
enum Found {
    Event(SourceEvent),
    Nothing,
    /// Records that are still being fetched.
    Soon,
}

impl SimSource {
    pub(super) fn open(log: &Log, process: &Process, subscription: &Subscription, info: &TopicInfo) -> Self {
        let member = Member::new(log, process, subscription);
        if member.shared {
            tokio::spawn(member.clone().live());
        } else {
            assign_chosen(&member, subscription, info);
        }
        let batch_records_max = subscription.batch_records_max.max(1);
        SimSource { member, batch_records_max, ready: Instant::now() }
    }

    fn look(&mut self) -> Found {
        let world = self.member.log.world().clone();
        let mut guard = self.member.lock();
        let member = &mut *guard;
        if let Some(event) = member.events.pop_front() {
            return Found::Event(event);
        }
        let log = self.member.log.lock();
        let Some(topic) = log.topics.get(&*self.member.topic) else { return Found::Nothing };
        let mut readable = Vec::new();
        for (number, slot) in member.slots.iter_mut().filter(|(_, slot)| !slot.leaving && !slot.paused) {
            let partition = &topic.partitions[usize::try_from(*number).unwrap_or(0)];
            if slot.position < partition.start {
                let (from, to) = (slot.position, partition.start);
                slot.position = to;
                return Found::Event(SourceEvent::Gap { partition: self.member.named(*number), from, to });
            }
            if !partition.from(slot.position).is_empty() {
                readable.push((*number, slot, partition));
                continue;
            }
            slot.position = partition.end;
            if slot.told_end != Some(slot.position) {
                slot.told_end = Some(slot.position);
                let partition = self.member.named(*number);
                return Found::Event(SourceEvent::CaughtUp { partition, next_offset: slot.position });
            }
        }
        if readable.is_empty() {
            return Found::Nothing;
        }
        let now = Instant::now();
        if now < self.ready {
            return Found::Soon;
        }
        self.ready = now + Duration::from_millis(world.below(world.faults().fetch_ms_max + 1));
        let (number, slot, partition) = readable.swap_remove(world.index(readable.len()));
        let count = 1 + world.index(self.batch_records_max);
        let records: Vec<_> = partition.from(slot.position).iter().take(count).cloned().collect();
        slot.position = records.last().map_or(slot.position, |record| record.offset + 1);
        let (epoch, next) = (slot.epoch, slot.position);
        drop(log);
        drop(guard);
        if world.has(Plant::CommitsBeforeAcknowledgement) {
            tokio::spawn(commit(self.member.clone(), vec![(number, epoch, next)]));
        }
        let topic = self.member.topic.clone();
        world.note(|| format!("{}: reads {topic}/{number} up to {next}", self.member.process.name()));
        Found::Event(SourceEvent::Batch(Batch { topic, partition: number, records }))
    }
}

fn assign_chosen(member: &Arc<Member>, subscription: &Subscription, info: &TopicInfo) {
    let progress = subscription.group.as_ref().map(|group| member.log.progress(group, &subscription.topic));
    let mut assignments = Vec::new();
    let mut state = member.lock();
    for (number, span) in &info.partitions {
        if subscription.partitions.as_ref().is_some_and(|chosen| !chosen.contains(number)) {
            continue;
        }
        let committed = progress.as_ref().and_then(|progress| progress.get(number).copied());
        let next_offset = committed.unwrap_or(match subscription.start {
            Start::Beginning => span.start,
            Start::End => span.end,
            Start::Offset(offset) => offset.max(span.start),
        });
        let lease = Arc::new(Lease::unbounded());
        state.slots.insert(*number, Slot::new(0, lease.clone(), next_offset));
        assignments.push(Assignment { partition: member.named(*number), next_offset, lease });
    }
    state.events.push_back(SourceEvent::Assigned(assignments));
}

#[async_trait]
impl Source for SimSource {
    async fn next(&mut self) -> Result<Option<SourceEvent>> {
        let member = self.member.clone();
        let world = member.log.world();
        loop {
            member.process.running().await;
            if world.chance(world.faults().source_errors) {
                return Err(Error::retry("log", "reconnecting"));
            }
            let (own, log) = (member.changed.notified(), member.log.changed().notified());
            tokio::pin!(own, log);
            // Registered before looking, so that nothing in between is missed.
            own.as_mut().enable();
            log.as_mut().enable();
            let wake = match self.look() {
                Found::Event(event) => return Ok(Some(event)),
                Found::Soon => Some(self.ready),
                Found::Nothing => None,
            };
            let fetched = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = own => {}
                () = log => {}
                () = fetched => {}
            }
        }
    }

    fn control(&self) -> Arc<dyn Control> {
        Arc::new(SimControl { member: self.member.clone() })
    }
}

impl Drop for SimSource {
    fn drop(&mut self) {
        self.member.close();
    }
}

struct SimControl {
    member: Arc<Member>,
}

impl SimControl {
    fn hold(&self, partitions: &[TopicPartition], hold: bool) {
        let mut state = self.member.lock();
        for partition in partitions.iter().filter(|one| one.topic == self.member.topic) {
            if let Some(slot) = state.slots.get_mut(&partition.partition) {
                slot.paused = hold;
            }
        }
        drop(state);
        self.member.changed.notify_waiters();
    }
}

#[async_trait]
impl Control for SimControl {
    async fn commit(&self, offsets: &[(TopicPartition, i64)]) -> Result<()> {
        let owned = {
            let state = self.member.lock();
            let of_slot = |(one, next): &(TopicPartition, i64)| {
                let slot = state.slots.get(&one.partition).filter(|_| one.topic == self.member.topic)?;
                Some((one.partition, slot.epoch, *next))
            };
            offsets.iter().filter_map(of_slot).collect()
        };
        commit(self.member.clone(), owned).await
    }

    fn pause(&self, partitions: &[TopicPartition]) {
        self.hold(partitions, true);
    }

    fn resume(&self, partitions: &[TopicPartition]) {
        self.hold(partitions, false);
    }

    fn transactor(&self, assignment: &Assignment) -> Option<Arc<dyn Transactor>> {
        let Assignment { partition, lease, .. } = assignment;
        let transactor = || SimTransactor::new(&self.member, partition.partition, lease);
        self.member.shared.then(|| Arc::new(transactor()) as Arc<dyn Transactor>)
    }
}

async fn commit(member: Arc<Member>, offsets: Vec<(i32, u64, i64)>) -> Result<()> {
    let Some(group) = member.group.clone().filter(|_| !offsets.is_empty()) else { return Ok(()) };
    let (number, owner) = {
        let mut state = member.lock();
        state.commits += 1;
        (state.commits, state.number)
    };
    let (log, topic, shared) = (member.log.clone(), member.topic.clone(), member.shared);
    let store = Box::pin(async move {
        let mut state = log.lock();
        let group = state.groups.entry(group).or_default();
        match owner.filter(|_| shared) {
            Some(member) => group.commit(log.world(), Commit { member, number, offsets }),
            None => {
                let plain: Vec<(i32, i64)> = offsets.into_iter().map(|(one, _, next)| (one, next)).collect();
                group.commit_alone(&topic, &plain);
            }
        }
    });
    member.log.world().ask(&member.process, member.log.system(), "commit", store).await
}
