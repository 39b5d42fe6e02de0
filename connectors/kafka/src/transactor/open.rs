//! A transaction from its first record to its end. All calls block the thread.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use millrace_core::{Class, CommitOutcome, Error, NewRecord, Position, Result, States};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer,
    error::{KafkaError, RDKafkaErrorCode as Code},
};

use super::{
    Owner,
    client::{Client, Refused},
    held, state,
};
use crate::{
    client::BATCH_BYTES_MAX,
    error::{class_of, of_call},
    producer::{batch_bytes_within, cannot_append},
};

const HAS_CLIENT: &str = "invariant: a transaction that has begun has a client";

/// Where the states lie, by step.
type Pointers = BTreeMap<Arc<str>, Position>;

/// What one worker has open.
pub struct Open {
    owner: Arc<Owner>,
    client: Option<Client>,
    /// How large batches may be: as the most modest topic allows.
    batch_bytes: u64,
    /// The broker has refused a record of the last transaction: now each goes in a batch of its own, so that the one
    /// at fault is found.
    careful: bool,
    /// What the transaction holds, in its order, where it is careful.
    places: Vec<u64>,
    /// Records that the broker refused alone.
    refused: HashSet<u64>,
    /// Sent, and not yet handed to the client.
    held: Vec<(Arc<str>, NewRecord)>,
    held_bytes: usize,
    /// Whether the client's transaction has begun.
    begun: bool,
    /// Why it can only be aborted.
    broken: Option<Error>,
    /// A commit of which it is not known what became of it, with the states that belong to it.
    undecided: Option<(i64, Pointers)>,
    pointers: Pointers,
}

/// Why a transaction cannot be committed.
enum Unprepared {
    /// A record was not appended.
    Refused(Refused),
    /// Anything else.
    Failed(Error),
}

impl From<Refused> for Unprepared {
    fn from(refused: Refused) -> Self {
        Unprepared::Refused(refused)
    }
}

impl From<Error> for Unprepared {
    fn from(error: Error) -> Self {
        Unprepared::Failed(error)
    }
}

impl Open {
    pub fn new(owner: Arc<Owner>) -> Self {
        Open {
            owner,
            client: None,
            batch_bytes: BATCH_BYTES_MAX,
            careful: false,
            places: Vec::new(),
            refused: HashSet::new(),
            held: Vec::new(),
            held_bytes: 0,
            begun: false,
            broken: None,
            undecided: None,
            pointers: Pointers::new(),
        }
    }

    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Batches must fit a topic with this limit.
    pub fn fit(&mut self, limit: Option<u64>) {
        let within = limit.map_or(BATCH_BYTES_MAX, batch_bytes_within);
        self.batch_bytes = self.batch_bytes.min(within);
    }

    /// Whether the broker has refused this record before.
    pub fn is_refused(&self, topic: &str, record: &NewRecord) -> bool {
        !self.refused.is_empty() && self.refused.contains(&fingerprint(topic, record))
    }

    pub fn hold(&mut self, topic: Arc<str>, record: NewRecord) {
        self.held_bytes += held(&record);
        self.held.push((topic, record));
    }

    /// Settles what a former owner has left, and reads the states of the group's progress.
    pub fn restore(&mut self) -> Result<States> {
        self.client()?;
        let (_, metadata) = state::committed(&self.owner)?;
        self.pointers = state::pointers(&self.owner, &metadata)?;
        state::read(&self.owner, &self.pointers)
    }

    /// Hands what is held to the client. What fails makes the transaction one that can only be aborted, which its
    /// commit will tell.
    pub fn hand_over(&mut self) -> Result<()> {
        if self.broken.is_none() {
            self.begin()?;
        }
        if self.broken.is_none()
            && let Err(refused) = self.append_held()
        {
            self.broken = Some(self.refusal(&refused));
        }
        self.drop_held();
        Ok(())
    }

    pub fn commit(&mut self, next_offset: i64, changed: &States) -> Result<CommitOutcome> {
        if self.undecided.is_some() {
            return self.decide();
        }
        self.hand_over()?;
        let prepared = match self.broken.take() {
            Some(error) => Err(error),
            None => self.prepare(next_offset, changed).map_err(|unprepared| match unprepared {
                Unprepared::Refused(refused) => self.refusal(&refused),
                Unprepared::Failed(error) => again_later(error),
            }),
        };
        let pointers = match prepared {
            Ok(pointers) => pointers,
            Err(error) => {
                self.abort();
                return if error.class() == Class::Fatal {
                    Err(error)
                } else {
                    Ok(CommitOutcome::Aborted(error))
                };
            }
        };
        self.begun = false;
        match self.client.as_ref().expect(HAS_CLIENT).commit() {
            Ok(()) => Ok(self.committed(pointers)),
            Err(error) => {
                tracing::debug!(id = self.owner.id(), %error, "it is not known whether a transaction is committed");
                self.client = None;
                self.undecided = Some((next_offset, pointers));
                self.decide()
            }
        }
    }

    /// Aborts what is open, and parts with the client. A call of it that was given up may still be under way, and is
    /// tried again by librdkafka itself: it would arrive inside the next transaction of the same epoch. A new client
    /// begins another one, in which it is refused.
    pub fn abort(&mut self) {
        self.drop_held();
        if self.begun
            && let Some(client) = &self.client
            && let Err(error) = client.abort()
        {
            tracing::debug!(id = self.owner.id(), %error, "a transaction is left to the next client");
        }
        self.begun = false;
        self.client = None;
    }

    fn append_held(&mut self) -> Result<(), Refused> {
        let client = self.client.as_ref().expect(HAS_CLIENT);
        for (topic, record) in &self.held {
            client.append(topic, record, self.places.len(), false)?;
            self.places.push(if self.careful { fingerprint(topic, record) } else { 0 });
        }
        Ok(())
    }

    /// All but the commit itself: nothing of it is visible, whatever happens.
    fn prepare(&self, next_offset: i64, changed: &States) -> Result<Pointers, Unprepared> {
        let client = self.client.as_ref().expect(HAS_CLIENT);
        let topic = self.owner.clients.state_topic();
        for (place, (step, bytes)) in (self.places.len()..).zip(changed) {
            let record = state::record(&self.owner, step, bytes.clone(), next_offset);
            client.append(&topic, &record, place, true)?;
        }
        let mut pointers = self.pointers.clone();
        // Acknowledged first only where the place of a state must be known.
        if !changed.is_empty() {
            pointers.extend(changed.keys().cloned().zip(client.flush()?));
        }
        let Some(consumer) = self.owner.consumer.upgrade() else { return Err(self.not_ours().into()) };
        let Some(member) = consumer.group_metadata() else { return Err(self.not_ours().into()) };
        // Looked at after the member: if the partition was ours then, it was in the member's generation, and the
        // cluster refuses that one as soon as the partition can be another's.
        if self.owner.lease.is_revoked() {
            return Err(self.not_ours().into());
        }
        let offsets = self.offsets(next_offset, &pointers);
        let sent = offsets.and_then(|offsets| client.send_offsets(&offsets, &member));
        let what = "cannot add the group's progress to a transaction";
        sent.map_err(|error| of_call(&self.owner.clients.who, what, &error))?;
        // The commit waits for the records as well, but does not say which of them failed.
        client.flush()?;
        Ok(pointers)
    }

    fn offsets(&self, next_offset: i64, pointers: &Pointers) -> Result<TopicPartitionList, KafkaError> {
        let (topic, partition) = (&self.owner.partition.topic, self.owner.partition.partition);
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(next_offset))?;
        if let Some(mut element) = offsets.find_partition(topic, partition) {
            element.set_metadata(state::metadata(pointers));
        }
        Ok(offsets)
    }

    /// Finds out what became of the last commit: a new client of the same id leaves nothing open, and the progress
    /// is part of what was committed.
    fn decide(&mut self) -> Result<CommitOutcome> {
        self.client()?;
        let (progress, _) = state::committed(&self.owner)?;
        match self.undecided.take() {
            Some((next_offset, pointers)) if progress.is_some_and(|progress| progress >= next_offset) => {
                Ok(self.committed(pointers))
            }
            _ => Ok(CommitOutcome::Aborted(self.owner.retry("the cluster aborted a transaction"))),
        }
    }

    fn committed(&mut self, pointers: Pointers) -> CommitOutcome {
        self.pointers = pointers;
        self.careful = false;
        self.refused.clear();
        CommitOutcome::Committed
    }

    fn begin(&mut self) -> Result<()> {
        if self.client.as_ref().is_some_and(|client| client.batch_bytes != self.wanted_batch_bytes()) {
            if self.begun {
                self.broken = Some(self.owner.retry("a topic needs smaller batches than the transaction"));
                return Ok(());
            }
            self.client = None;
        }
        if self.begun {
            return Ok(());
        }
        let begun = self.client()?.begin();
        if let Err(error) = begun {
            // It may be of no more use: another one has its id, or its place is lost.
            self.client = None;
            return Err(again_later(of_call(&self.owner.clients.who, "cannot begin a transaction", &error)));
        }
        self.begun = true;
        self.places.clear();
        Ok(())
    }

    fn wanted_batch_bytes(&self) -> u64 {
        if self.careful { 1 } else { self.batch_bytes }
    }

    /// The client; a new one settles what is open under its id, so none is made by a former owner.
    fn client(&mut self) -> Result<&Client> {
        if self.client.is_none() {
            if self.owner.lease.is_revoked() {
                return Err(self.not_ours());
            }
            let opened = Client::open(&self.owner.clients, &self.owner.id(), self.wanted_batch_bytes());
            let what = "cannot make a transactional producer";
            self.client = Some(opened.map_err(|error| of_call(&self.owner.clients.who, what, &error))?);
        }
        Ok(self.client.as_ref().expect("invariant: it was just made"))
    }

    fn drop_held(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }

    /// What a record that was not appended means: the topic may take less than we knew, or this record may be one
    /// that it never takes, or a person must act. In a transaction nothing is rejected late: it is aborted, and
    /// judged again.
    fn refusal(&mut self, refused: &Refused) -> Error {
        let topic = refused.record.as_ref().map(|(topic, _)| topic.as_str());
        let what = topic.map_or("cannot append in a transaction".to_owned(), cannot_append);
        let code = refused.error.rdkafka_error_code();
        if let (Some((topic, place)), Some(Class::Reject)) = (&refused.record, code.map(class_of)) {
            self.owner.producer.forget(topic);
            if let Some(fingerprint) = self.places.get(*place).filter(|_| self.careful) {
                self.refused.insert(*fingerprint);
            }
            self.careful = true;
        }
        let told = again_later(of_call(&self.owner.clients.who, &what, &refused.error));
        match self.client.as_ref().and_then(Client::cause) {
            Some(cause) if code == Some(Code::MessageTimedOut) => told.with_source(cause),
            _ => told,
        }
    }

    fn not_ours(&self) -> Error {
        self.owner.retry("the transaction is a former owner's")
    }
}

/// Tells a record from others of its batch.
fn fingerprint(topic: &str, record: &NewRecord) -> u64 {
    let mut hasher = DefaultHasher::new();
    (topic, record.source_offset, &record.key, &record.value).hash(&mut hasher);
    hasher.finish()
}

/// An error that does not reject.
fn again_later(error: Error) -> Error {
    match error.class() {
        Class::Reject => Error::retry(error.who(), error.why()),
        Class::Retry | Class::Fatal => error,
    }
}

#[cfg(test)]
mod tests;
