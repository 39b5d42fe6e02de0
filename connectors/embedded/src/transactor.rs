//! The transactions of one partition's worker: outputs are held back until the commit, which appends them in one
//! transaction of the log, and then stores progress and states in one of the views' file.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use millrace_core::{CommitOutcome, Error, NewRecord, Result, States, Transactor};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    append,
    broker::Inner,
    layout::{TopicRow, topic_by_name},
    outputs::{Outputs, Owner},
    progress::{Commit, states},
    seats::Ticket,
};

/// Outputs in memory at most, in bytes, besides those of one call; more are held back in the file.
const HELD_BYTES_MAX: usize = 4 << 20;

/// See the module's documentation.
pub(crate) struct LogTransactor {
    pub(crate) inner: Arc<Inner>,
    pub(crate) owner: Owner,
    /// The log that offsets are of.
    pub(crate) log: i64,
    pub(crate) ticket: Ticket,
    pub(crate) open: Arc<Mutex<Open>>,
}

/// What is sent and not committed.
#[derive(Default)]
pub(crate) struct Open {
    outputs: Outputs,
    bytes: usize,
    /// Whether the file holds some.
    in_file: bool,
    topics: BTreeSet<Arc<str>>,
    /// The outputs are in their topics; progress is not stored yet.
    applied: bool,
    /// Topics as they are declared, which never changes.
    declared: HashMap<Arc<str>, TopicRow>,
}

impl Open {
    fn clear(&mut self) {
        *self = Open { declared: std::mem::take(&mut self.declared), ..Open::default() };
    }
}

impl LogTransactor {
    fn former(&self) -> Error {
        Error::retry(&self.owner.group, format!("{} is read by a later member", self.owner.source))
    }

    async fn declared(&self, open: &mut Open, topic: &Arc<str>) -> Result<TopicRow> {
        if let Some(known) = open.declared.get(topic) {
            return Ok(known.clone());
        }
        let name = topic.clone();
        let found = self.inner.read_log(move |log| Ok(topic_by_name(log, &name)?)).await?.flatten();
        let found = found.ok_or_else(|| Error::missing_topic("embedded log", topic))?;
        open.declared.insert(topic.clone(), found.clone());
        Ok(found)
    }

    /// Moves what is in memory to the file. Goes on when nobody waits for it any more, and what comes next waits.
    async fn move_to_file(&self, mut open: OwnedMutexGuard<Open>) -> Result<()> {
        let writer = self.inner.writer().await?;
        let owner = self.owner.clone();
        let moved = tokio::spawn(async move {
            writer.hold(owner, open.outputs.clone()).await?;
            open.outputs.clear();
            open.bytes = 0;
            open.in_file = true;
            Ok(())
        });
        moved
            .await
            .unwrap_or_else(|error| Err(Error::retry("embedded log", "interrupted").with_source(error)))
    }
}

#[async_trait]
impl Transactor for LogTransactor {
    async fn restore(&self) -> Result<States> {
        self.inner.writer().await?.forget(self.owner.clone(), true).await?;
        let owner = self.owner.clone();
        let states = self.inner.read_states(move |views| Ok(states(views, &owner)?)).await?;
        Ok(states.unwrap_or_default())
    }

    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<()>> {
        let topic: Arc<str> = topic.into();
        let mut open = self.open.clone().lock_owned().await;
        let declared = match self.declared(&mut open, &topic).await {
            Ok(declared) => declared,
            Err(error) => return records.iter().map(|_| Err(error.again())).collect(),
        };
        if open.bytes >= HELD_BYTES_MAX {
            if let Err(error) = self.move_to_file(open).await {
                return records.iter().map(|_| Err(error.again())).collect();
            }
            open = self.open.clone().lock_owned().await;
        }
        // From here on nothing waits: a call that is dropped has added nothing.
        open.topics.insert(topic.clone());
        let add = |record: NewRecord| {
            open.bytes += append::accept(&topic, &declared, &record)?;
            open.outputs.push((topic.clone(), record));
            Ok(())
        };
        records.into_iter().map(add).collect()
    }

    async fn commit(&self, next_offset: i64, changed: &States) -> Result<CommitOutcome> {
        let mut open = self.open.clone().lock_owned().await;
        if self.ticket.is_superseded() {
            open.clear();
            return Ok(CommitOutcome::Aborted(self.former()));
        }
        if !open.topics.is_empty() && !open.applied {
            let writer = self.inner.writer().await?;
            let topics = open.topics.iter().cloned().collect();
            writer.apply(self.owner.clone(), topics, open.outputs.clone(), next_offset).await?;
            open.applied = true;
        }
        let commit = Commit {
            group: self.owner.group.clone(),
            topic: self.owner.source.topic.to_string(),
            log: self.log,
            offsets: vec![(self.owner.source.partition, next_offset)],
            states: changed.clone(),
        };
        self.inner.keeper().await?.store(commit).await?;
        open.clear();
        Ok(CommitOutcome::Committed)
    }
}

impl Drop for LogTransactor {
    /// What the file holds is forgotten now, or at the latest when the partition is taken up again.
    fn drop(&mut self) {
        let (inner, owner, open) = (self.inner.clone(), self.owner.clone(), self.open.clone());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        drop(runtime.spawn(async move {
            if open.lock().await.in_file
                && let Ok(writer) = inner.writer().await
            {
                drop(writer.forget(owner, false).await);
            }
        }));
    }
}
