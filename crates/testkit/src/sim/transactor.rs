//! Transactions of the simulated log: a worker's outputs wait at its client, and one request makes them visible with
//! states and progress. The coordinator knows which of a worker's transactions it has decided, so that a request
//! that comes twice, or late, is carried out once.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use millrace_core::{CommitOutcome, Error, Lease, NewRecord, Result, States, Transactor};

use super::{
    group::{Transaction, Verdict},
    log::Log,
    member::Member,
    world::Plant,
};

pub(super) struct SimTransactor {
    member: Arc<Member>,
    partition: i32,
    /// Of the assignment; 0, which is nobody's, if that is over already.
    epoch: u64,
    open: Mutex<Open>,
}

/// The transaction at hand.
#[derive(Default)]
struct Open {
    number: u64,
    records: Vec<(String, NewRecord)>,
}

impl SimTransactor {
    pub(super) fn new(member: &Arc<Member>, partition: i32, lease: &Arc<Lease>) -> Self {
        let state = member.lock();
        let slot = state.slots.get(&partition).filter(|slot| Arc::ptr_eq(&slot.lease, lease));
        let epoch = slot.map_or(0, |slot| slot.epoch);
        drop(state);
        SimTransactor { member: member.clone(), partition, epoch, open: Mutex::default() }
    }

    /// Bounded in time: the runtime never cuts a commit off.
    async fn ask<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Log, &str) -> T + Send + 'static,
    ) -> Result<T> {
        let (log, group) = (self.member.log.clone(), self.member.group.clone().unwrap_or_default());
        let work = Box::pin(async move { work(&log, &group) });
        let member = &self.member;
        member.log.world().ask_in_time(&member.process, member.log.system(), what, work).await
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().expect("invariant: nobody panics while holding a transaction")
    }
}

#[async_trait]
impl Transactor for SimTransactor {
    async fn restore(&self) -> Result<States> {
        let partition = self.partition;
        let states = move |log: &Log, group: &str| {
            log.lock().groups.get(group).map(|group| group.states(partition)).unwrap_or_default()
        };
        self.ask("restore", states).await
    }

    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<()>> {
        let name = topic.to_owned();
        let copy = records.clone();
        let judge = move |log: &Log, _: &str| copy.iter().map(|record| log.judge(&name, record)).collect();
        let answers: Vec<Result<()>> = match self.ask("send", judge).await {
            Ok(answers) => answers,
            Err(error) => {
                return records.iter().map(|_| Err(Error::retry(error.who(), error.why()))).collect();
            }
        };
        let taken = records.into_iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
        self.open().records.extend(taken.map(|(record, _)| (topic.to_owned(), record)));
        answers
    }

    async fn commit(&self, next_offset: i64, changed: &States) -> Result<CommitOutcome> {
        let world = self.member.log.world();
        let (number, records) = {
            let open = self.open();
            (open.number, open.records.clone())
        };
        let mut changed = changed.clone();
        if world.has(Plant::StatesApart) {
            let (partition, states) = (self.partition, std::mem::take(&mut changed));
            let store = move |log: &Log, group: &str| {
                log.lock().groups.entry(group.to_owned()).or_default().store(partition, states);
            };
            self.ask("states", store).await?;
        }
        let transaction = Transaction {
            member: self.member.lock().number.unwrap_or_default(),
            partition: self.partition,
            epoch: self.epoch,
            number,
            next_offset,
            states: changed,
            aborts: world.chance(world.faults().refused),
        };
        let what = format!("commit {}/{} at {next_offset}", self.member.topic, self.partition);
        let decide = move |log: &Log, group: &str| log.transact(group, transaction, records);
        let verdict = self.ask(&what, decide).await?;
        world.note(|| format!("{}: {what}, {verdict:?}", self.member.process.name()));
        let mut open = self.open();
        *open = Open { number: open.number + 1, records: Vec::new() };
        Ok(match verdict {
            Verdict::Committed => CommitOutcome::Committed,
            Verdict::Aborted => CommitOutcome::Aborted(Error::retry("log", "aborted")),
            Verdict::Fenced => CommitOutcome::Aborted(Error::retry("log", "another one owns the partition")),
        })
    }
}
