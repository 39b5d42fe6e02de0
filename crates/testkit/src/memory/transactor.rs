//! Transactions of the broker in memory: all under one lock, so atomic without further ado.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use millrace_core::{CommitOutcome, Error, Lease, NewRecord, Result, States, TopicPartition, Transactor};

use super::{MemoryBroker, Owner};

/// What an armed broker does with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFault {
    /// Aborts it.
    Abort,
    /// Carries it out and says that it does not know.
    DoneAndSilent,
    /// Does nothing and says that it does not know.
    Away,
}

/// See the module's documentation.
pub(super) struct MemoryTransactor {
    broker: MemoryBroker,
    owner: Owner,
    lease: Arc<Lease>,
    /// The newest one of an owner is the only one that commits.
    epoch: u64,
    open: Mutex<Vec<(String, NewRecord)>>,
}

impl MemoryTransactor {
    pub(super) fn new(
        broker: &MemoryBroker,
        group: &str,
        partition: &TopicPartition,
        lease: &Arc<Lease>,
    ) -> Self {
        let owner = (group.to_owned(), partition.clone());
        let mut state = broker.lock();
        let epoch = state.epochs.entry(owner.clone()).or_default();
        *epoch += 1;
        let epoch = *epoch;
        drop(state);
        MemoryTransactor {
            broker: broker.clone(),
            owner,
            lease: lease.clone(),
            epoch,
            open: Mutex::default(),
        }
    }

    fn is_former(&self) -> bool {
        self.lease.is_revoked() || self.broker.lock().epochs.get(&self.owner) != Some(&self.epoch)
    }

    fn carry_out(&self, next_offset: i64, changed: &States) -> Result<()> {
        let records = self.take();
        let mut state = self.broker.lock();
        for (topic, record) in records {
            state.push(&topic, record)?;
        }
        state.progress.insert(self.owner.clone(), next_offset);
        let states = state.states.entry(self.owner.clone()).or_default();
        states.extend(changed.iter().map(|(step, bytes)| (step.clone(), bytes.clone())));
        drop(state);
        self.broker.shared.changed.notify_waiters();
        Ok(())
    }

    fn take(&self) -> Vec<(String, NewRecord)> {
        std::mem::take(&mut *self.open.lock().expect("invariant: no panic under the lock"))
    }
}

#[async_trait]
impl Transactor for MemoryTransactor {
    async fn restore(&self) -> Result<States> {
        let is_silent = self.broker.lock().is_restore_silent();
        if is_silent {
            std::future::pending::<()>().await;
        }
        Ok(self.broker.lock().states.get(&self.owner).cloned().unwrap_or_default())
    }

    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<()>> {
        let mut open = self.open.lock().expect("invariant: no panic under the lock");
        let add = |record: NewRecord| {
            self.broker.lock().judge(topic, &record)?;
            open.push((topic.to_owned(), record));
            Ok(())
        };
        records.into_iter().map(add).collect()
    }

    async fn commit(&self, next_offset: i64, changed: &States) -> Result<CommitOutcome> {
        if self.is_former() {
            self.take();
            return Ok(CommitOutcome::Aborted(Error::retry("memory", "another one owns the partition")));
        }
        // Asked again after an answer that did not say so: it was done.
        let group_at = self.broker.lock().progress.get(&self.owner).copied();
        if self.broker.lock().silent.remove(&self.owner) && group_at == Some(next_offset) {
            return Ok(CommitOutcome::Committed);
        }
        let fault = self.broker.lock().commit_faults.pop_front();
        let away = || Err(Error::retry("memory", "did not answer"));
        match fault {
            Some(CommitFault::Abort) => {
                self.take();
                Ok(CommitOutcome::Aborted(Error::retry("memory", "aborted")))
            }
            Some(CommitFault::Away) => away(),
            Some(CommitFault::DoneAndSilent) => {
                self.carry_out(next_offset, changed)?;
                self.broker.lock().silent.insert(self.owner.clone());
                away()
            }
            None => {
                self.carry_out(next_offset, changed)?;
                Ok(CommitOutcome::Committed)
            }
        }
    }
}
