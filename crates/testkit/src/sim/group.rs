//! A group as its coordinator sees it: members with sessions, partitions with owners, and progress.
//!
//! Partitions move one by one: the owner is told to let go and has a session's time for it, then it is put out of
//! the group. Each assignment has an epoch of its own, and only its owner in that epoch may commit.

use std::collections::BTreeMap;

use millrace_core::States;
use tokio::time::{Duration, Instant};

use super::world::{Plant, World};

/// A member that was not heard of for this long is gone. Scaled down, as all times of the simulation are.
pub(super) const SESSION: Duration = Duration::from_millis(2_000);

#[derive(Default)]
pub(super) struct Group {
    topic: String,
    partitions: i32,
    members: BTreeMap<u64, Member>,
    owners: BTreeMap<i32, Owner>,
    progress: BTreeMap<i32, i64>,
    /// What steps carry, with the progress they belong to.
    states: BTreeMap<i32, States>,
    /// Per partition the last transaction that was decided: epoch, number and verdict.
    decided: BTreeMap<i32, (u64, u64, Verdict)>,
    /// Numbers members and assignments.
    last: u64,
}

struct Member {
    heard: Instant,
    commit: u64,
}

#[derive(Clone, Copy)]
struct Owner {
    member: u64,
    epoch: u64,
    leaving_since: Option<Instant>,
}

/// A partition as its owner is told of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) partition: i32,
    pub(super) epoch: u64,
    pub(super) leaving: bool,
    pub(super) committed: Option<i64>,
}

/// A commit as it arrives: by whom, the how manieth, and the next offsets with the epochs they were done in.
pub(super) struct Commit {
    pub(super) member: u64,
    pub(super) number: u64,
    pub(super) offsets: Vec<(i32, u64, i64)>,
}

/// A worker's transaction as it arrives, without its records.
pub(super) struct Transaction {
    pub(super) member: u64,
    pub(super) partition: i32,
    pub(super) epoch: u64,
    /// Counts the transactions of this assignment.
    pub(super) number: u64,
    pub(super) next_offset: i64,
    pub(super) states: States,
    /// Whether the log aborts it if it is new.
    pub(super) aborts: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Committed,
    Aborted,
    /// Of a former owner.
    Fenced,
}

impl Group {
    /// Decides a transaction, and whether it was decided just now. One that comes again has its verdict already.
    pub(super) fn decide(&mut self, world: &World, transaction: Transaction) -> (Verdict, bool) {
        let Transaction { member, partition, epoch, number, .. } = transaction;
        match self.decided.get(&partition) {
            Some((of, last, verdict)) if *of == epoch && *last == number => return (*verdict, false),
            // Long since: its worker has gone on and does not hear this.
            Some((of, last, _)) if *of == epoch && *last > number => return (Verdict::Aborted, false),
            _ => {}
        }
        let owner = self.owners.get(&partition);
        let owned = owner.is_some_and(|owner| owner.epoch == epoch && owner.member == member);
        if !owned && !world.has(Plant::CommitsAfterRevoke) {
            return (Verdict::Fenced, true);
        }
        let verdict = if transaction.aborts { Verdict::Aborted } else { Verdict::Committed };
        self.decided.insert(partition, (epoch, number, verdict));
        if verdict == Verdict::Committed {
            self.advance(world, partition, transaction.next_offset);
            self.store(partition, transaction.states);
        }
        (verdict, true)
    }

    pub(super) fn store(&mut self, partition: i32, states: States) {
        self.states.entry(partition).or_default().extend(states);
    }

    pub(super) fn states(&self, partition: i32) -> States {
        self.states.get(&partition).cloned().unwrap_or_default()
    }

    /// A member says that it is there, and hears what is its. One that is not known joins under a new number.
    pub(super) fn beat(&mut self, topic: &str, partitions: usize, member: Option<u64>) -> (u64, Vec<Share>) {
        self.topic = topic.to_owned();
        self.partitions = i32::try_from(partitions).unwrap_or(0);
        let now = Instant::now();
        self.expire(now);
        let known = member.filter(|number| self.members.contains_key(number));
        let number = known.unwrap_or_else(|| self.next());
        self.members.entry(number).or_insert(Member { heard: now, commit: 0 }).heard = now;
        self.balance(now);
        let of_member = |(_, owner): &(&i32, &Owner)| owner.member == number;
        let share = |(partition, owner): (&i32, &Owner)| Share {
            partition: *partition,
            epoch: owner.epoch,
            leaving: owner.leaving_since.is_some(),
            committed: self.progress.get(partition).copied(),
        };
        (number, self.owners.iter().filter(of_member).map(share).collect())
    }

    /// The owner has let go.
    pub(super) fn release(&mut self, partition: i32, epoch: u64) {
        if self.owners.get(&partition).is_some_and(|owner| owner.epoch == epoch) {
            self.owners.remove(&partition);
        }
        self.balance(Instant::now());
    }

    /// A member goes, with all it has.
    pub(super) fn leave(&mut self, member: u64) {
        self.members.remove(&member);
        self.owners.retain(|_, owner| owner.member != member);
        self.balance(Instant::now());
    }

    /// Takes what the member may commit, and nothing else.
    pub(super) fn commit(&mut self, world: &World, commit: Commit) {
        let unfenced = world.has(Plant::CommitsAfterRevoke);
        match self.members.get_mut(&commit.member) {
            // A request that was overtaken by a newer one of its member has nothing new.
            Some(member) if member.commit > commit.number && !unfenced => return,
            Some(member) => member.commit = commit.number,
            None if unfenced => {}
            None => return,
        }
        for (partition, epoch, next) in commit.offsets {
            let owned = self.owners.get(&partition);
            let owned = owned.is_some_and(|owner| owner.epoch == epoch && owner.member == commit.member);
            if !owned && !unfenced {
                world.note(|| format!("log: commit of {}/{partition} at {next} is fenced", self.topic));
                continue;
            }
            self.advance(world, partition, next);
        }
    }

    fn advance(&mut self, world: &World, partition: i32, next: i64) {
        if let Some(before) = self.progress.insert(partition, next).filter(|before| next < *before) {
            let topic = &self.topic;
            world.violation(format!("progress of {topic}/{partition} went back from {before} to {next}"));
        }
    }

    /// Commits without being a member, as a reader of chosen partitions does.
    pub(super) fn commit_alone(&mut self, topic: &str, offsets: &[(i32, i64)]) {
        self.topic = topic.to_owned();
        self.progress.extend(offsets.iter().copied());
    }

    /// Whether somebody reads as this group. Members that are silent for too long are not there any more.
    pub(super) fn is_read(&mut self) -> bool {
        self.expire(Instant::now());
        !self.members.is_empty()
    }

    /// Sets progress from outside, and the steps begin anew there; none: forgets all of it.
    pub(super) fn reset(&mut self, topic: &str, offsets: Option<BTreeMap<i32, i64>>) {
        match offsets {
            None => {
                self.progress.clear();
                self.states.clear();
            }
            Some(offsets) => {
                self.states.retain(|partition, _| !offsets.contains_key(partition));
                self.topic = topic.to_owned();
                self.progress.extend(offsets);
            }
        }
    }

    pub(super) fn progress(&self, topic: &str) -> BTreeMap<i32, i64> {
        if self.topic == topic { self.progress.clone() } else { BTreeMap::new() }
    }

    pub(super) fn take_back(&mut self, partition: i32) {
        if let Some(owner) = self.owners.get_mut(&partition) {
            owner.leaving_since.get_or_insert_with(Instant::now);
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn expire(&mut self, now: Instant) {
        let late = |since: Instant| now.duration_since(since) >= SESSION;
        let silent = self.members.iter().filter(|(_, member)| late(member.heard)).map(|(number, _)| *number);
        let stuck = self.owners.values().filter(|owner| owner.leaving_since.is_some_and(late));
        let gone: Vec<u64> = silent.chain(stuck.map(|owner| owner.member)).collect();
        for member in gone {
            self.members.remove(&member);
            self.owners.retain(|_, owner| owner.member != member);
        }
    }

    /// Gives out what is free, to whoever has least; then takes one back from who has too much.
    fn balance(&mut self, now: Instant) {
        if self.members.is_empty() {
            return;
        }
        for partition in 0..self.partitions {
            if !self.owners.contains_key(&partition) {
                let (_, member) = self.least();
                let epoch = self.next();
                self.owners.insert(partition, Owner { member, epoch, leaving_since: None });
            }
        }
        let (least, _) = self.least();
        let moving = self.owners.values().any(|owner| owner.leaving_since.is_some());
        let rich = self.members.keys().map(|member| (self.load(*member), *member)).max();
        if let Some((_, member)) = rich.filter(|(most, _)| *most > least + 1 && !moving) {
            let owned = self.owners.values_mut().find(|owner| owner.member == member);
            owned.into_iter().for_each(|owner| owner.leaving_since = Some(now));
        }
    }

    fn least(&self) -> (usize, u64) {
        let loads = self.members.keys().map(|member| (self.load(*member), *member));
        loads.min().expect("invariant: asked only while there are members")
    }

    fn load(&self, member: u64) -> usize {
        self.owners.values().filter(|owner| owner.member == member && owner.leaving_since.is_none()).count()
    }
}
