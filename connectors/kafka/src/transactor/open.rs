//! A transaction from its first record to its end. All calls block the thread.

use std::{collections::BTreeMap, sync::Arc};

use millrace_core::{Class, CommitOutcome, Error, NewRecord, Position, Result, States};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer,
    error::{KafkaError, RDKafkaErrorCode as Code},
};

use super::{Owner, client::Client, held, state};
use crate::{
    client::BATCH_BYTES_MAX,
    error::{class_of, of_call},
    producer::{batch_bytes_within, cannot_append},
};

/// Where the states lie, by step.
type Pointers = BTreeMap<Arc<str>, Position>;

/// What one worker has open.
pub struct Open {
    owner: Arc<Owner>,
    client: Option<Client>,
    /// How large batches may be: as the most modest topic allows.
    batch_bytes: u64,
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

impl Open {
    pub fn new(owner: Arc<Owner>) -> Self {
        Open {
            owner,
            client: None,
            batch_bytes: BATCH_BYTES_MAX,
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
        if self.broken.is_some() {
            self.drop_held();
            return Ok(());
        }
        self.begin()?;
        let client = self.client.as_ref().expect("invariant: a transaction that has begun has a client");
        for (topic, record) in &self.held {
            if let Err(error) = client.append(topic, record, 0) {
                self.broken = Some(self.append_error(&error, Some(topic)));
                break;
            }
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
            None => self.prepare(next_offset, changed),
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
        let client = self.client.as_ref().expect("invariant: a transaction that has begun has a client");
        self.begun = false;
        match client.commit() {
            Ok(()) => {
                self.pointers = pointers;
                Ok(CommitOutcome::Committed)
            }
            Err(error) => {
                tracing::debug!(id = self.owner.id(), %error, "it is not known whether a transaction is committed");
                self.client = None;
                self.undecided = Some((next_offset, pointers));
                self.decide()
            }
        }
    }

    /// Aborts what is open, for good.
    pub fn close(&mut self) {
        self.drop_held();
        if self.begun
            && let Some(client) = &self.client
        {
            drop(client.abort());
        }
        self.client = None;
    }

    /// All but the commit itself: nothing of it is visible, whatever happens.
    fn prepare(&mut self, next_offset: i64, changed: &States) -> Result<Pointers> {
        let client = self.client.as_ref().expect("invariant: a transaction that has begun has a client");
        let topic = self.owner.clients.state_topic();
        for (number, (step, bytes)) in (1..).zip(changed) {
            let record = state::record(&self.owner, step, bytes.clone(), next_offset);
            client
                .append(&topic, &record, number)
                .map_err(|error| self.append_error(&error, Some(&topic)))?;
        }
        let mut pointers = self.pointers.clone();
        // Acknowledged first only where the place of a state must be known.
        if !changed.is_empty() {
            let positions =
                client.flush().map_err(|(error, topic)| self.append_error(&error, topic.as_deref()))?;
            pointers.extend(changed.keys().cloned().zip(positions));
        }
        let what = "cannot add the group's progress to a transaction";
        let Some(consumer) = self.owner.consumer.upgrade() else { return Err(self.not_ours()) };
        let Some(member) = consumer.group_metadata() else { return Err(self.not_ours()) };
        // Looked at after the member: if the partition was ours then, it was in the member's generation, and the
        // cluster refuses that one as soon as the partition can be another's.
        if self.owner.lease.is_revoked() {
            return Err(self.not_ours());
        }
        let mut offsets = TopicPartitionList::new();
        let (name, number) = (&self.owner.partition.topic, self.owner.partition.partition);
        let call_error = |error: &KafkaError| of_call(&self.owner.clients.who, what, error);
        offsets
            .add_partition_offset(name, number, Offset::Offset(next_offset))
            .map_err(|error| call_error(&error))?;
        if let Some(mut element) = offsets.find_partition(name, number) {
            element.set_metadata(state::metadata(&pointers));
        }
        client.send_offsets(&offsets, &member).map_err(|error| call_error(&error))?;
        // The commit waits for the records as well, but does not say which of them failed.
        client.flush().map_err(|(error, topic)| self.append_error(&error, topic.as_deref()))?;
        Ok(pointers)
    }

    /// Finds out what became of the last commit: a new client of the same id leaves nothing open, and the progress
    /// is part of what was committed.
    fn decide(&mut self) -> Result<CommitOutcome> {
        self.client()?;
        let (progress, _) = state::committed(&self.owner)?;
        let Some((next_offset, pointers)) = self.undecided.take() else {
            return Ok(CommitOutcome::Aborted(self.owner.retry("there was no transaction")));
        };
        if progress.is_some_and(|progress| progress >= next_offset) {
            self.pointers = pointers;
            return Ok(CommitOutcome::Committed);
        }
        Ok(CommitOutcome::Aborted(self.owner.retry("the cluster aborted a transaction")))
    }

    fn begin(&mut self) -> Result<()> {
        if self.client.as_ref().is_some_and(|client| client.batch_bytes != self.batch_bytes) {
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
        Ok(())
    }

    /// The client; a new one settles what is open under its id, so none is made by a former owner.
    fn client(&mut self) -> Result<&Client> {
        if self.client.is_none() {
            if self.owner.lease.is_revoked() {
                return Err(self.not_ours());
            }
            let opened = Client::open(&self.owner.clients, &self.owner.id(), self.batch_bytes);
            let what = "cannot make a transactional producer";
            self.client = Some(opened.map_err(|error| of_call(&self.owner.clients.who, what, &error))?);
        }
        Ok(self.client.as_ref().expect("invariant: it was just made"))
    }

    fn abort(&mut self) {
        if self.begun
            && let Some(client) = &self.client
            && let Err(error) = client.abort()
        {
            tracing::debug!(id = self.owner.id(), %error, "a transaction is left to the next client");
            self.client = None;
        }
        self.begun = false;
        self.drop_held();
    }

    fn drop_held(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }

    /// What a record that was not appended means: the topic may allow less than we knew, or a person must act.
    fn append_error(&self, error: &KafkaError, topic: Option<&str>) -> Error {
        let what = topic.map_or("cannot append in a transaction".to_owned(), cannot_append);
        if let Some(topic) = topic
            && error.rdkafka_error_code().map(class_of) == Some(Class::Reject)
        {
            self.owner.producer.forget(topic);
        }
        let cause = self.client.as_ref().and_then(Client::cause);
        let told = again_later(of_call(&self.owner.clients.who, &what, error));
        match cause {
            Some(cause) if error.rdkafka_error_code() == Some(Code::MessageTimedOut) => {
                told.with_source(cause)
            }
            _ => told,
        }
    }

    fn not_ours(&self) -> Error {
        self.owner.retry("the transaction is a former owner's")
    }
}

/// In a transaction nothing is rejected late: it is aborted, and judged again.
fn again_later(error: Error) -> Error {
    match error.class() {
        Class::Reject => Error::retry(error.who(), error.why()),
        Class::Retry | Class::Fatal => error,
    }
}
