//! The thread of a source: polls librdkafka, answers its group, and fills the mailbox.
//!
//! One loop does everything in turn and never blocks for longer than a question to the cluster takes, so that the
//! group is answered and leases are renewed even while the pipeline is slow.

mod flow;
mod rebalance;

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use millrace_core::{Class, Error, Headers, Record, Result, SourceEvent, Start, TopicPartition};
use rdkafka::{
    Message,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::BorrowedMessage,
};
use tokio::time::{Duration, Instant};

use crate::{
    client::Clients,
    cluster::partition_count,
    context::ReaderContext,
    error::{self, class_of_report, is_unknown_topic, of_call},
    headers,
    mailbox::Mailbox,
    pulse::Pulse,
    slots::{Desk, Slots},
};

use flow::Flow;
use rebalance::Handover;

/// How long one question to the cluster may keep the thread from polling.
const QUESTION: Duration = Duration::from_secs(2);
/// How long to rest before a question is asked again.
const REST: Duration = Duration::from_millis(250);
/// How often a topic must be found missing before it is believed: a new one is not known everywhere at once.
const ABSENT_MAX: u32 = 3;
/// Records taken before the loop looks at anything else.
const TURN_RECORDS_MAX: usize = 2_000;
/// Errors that pass are told no more often than this.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(1);

static NO_HEADERS: LazyLock<Headers> = LazyLock::new(|| Arc::new([]));

/// What a source reads.
pub struct Plan {
    /// The topic.
    pub topic: Arc<str>,
    /// Whether there is a group, whose progress counts.
    pub group: bool,
    /// Whether the group shares the partitions out. If not, all are read, or those chosen.
    pub shared: bool,
    /// The chosen partitions.
    pub partitions: Option<Vec<i32>>,
    /// Where to start without progress.
    pub start: Start,
    /// The most records in a batch.
    pub batch_records_max: usize,
}

/// The thread's state.
pub struct Reader {
    clients: Arc<Clients>,
    plan: Plan,
    consumer: Arc<BaseConsumer<ReaderContext>>,
    mailbox: Arc<Mailbox>,
    desk: Arc<Desk>,
    slots: Slots,
    pulse: Pulse,
    flow: Flow,
    /// Assigned, but not yet known where to start.
    joining: BTreeSet<i32>,
    /// Taken away, but not yet handed over.
    handovers: Vec<Handover>,
    /// Some partition has lost its place in the log.
    misplaced: bool,
    /// How often progress was found beyond the end of the log.
    beyond_end: u32,
    /// Questions rest until then.
    rest_until: Instant,
    troubled_at: Option<Instant>,
}

impl Reader {
    /// A reader that has not begun.
    pub fn new(
        clients: Arc<Clients>,
        plan: Plan,
        consumer: Arc<BaseConsumer<ReaderContext>>,
        mailbox: Arc<Mailbox>,
        desk: Arc<Desk>,
    ) -> Self {
        let now = Instant::now();
        let pulse = Pulse::new(clients.options.session_timeout, clients.options.heartbeat, now);
        Reader {
            clients,
            plan,
            consumer,
            mailbox,
            desk,
            slots: Slots::default(),
            pulse,
            flow: Flow::default(),
            joining: BTreeSet::new(),
            handovers: Vec::new(),
            misplaced: false,
            beyond_end: 0,
            rest_until: now,
            troubled_at: None,
        }
    }

    /// Reads until the source is gone or there is no sense in going on. Dropping the reader leaves the group.
    pub fn run(mut self) {
        let outcome = self.work();
        for (partition, slot) in self.slots.iter_mut() {
            slot.lease.revoke();
            self.desk.disown(&[partition]);
        }
        self.mailbox.end(outcome.err());
    }

    fn work(&mut self) -> Result<()> {
        self.begin()?;
        while !self.mailbox.is_closed() {
            self.answer_group()?;
            self.finish_handovers();
            self.find_places_again()?;
            self.join()?;
            if self.flow_is_open() {
                self.fetch()?;
            }
        }
        Ok(())
    }

    /// Waits for the topic to be there, then joins.
    fn begin(&mut self) -> Result<()> {
        let mut absent = 0;
        while !self.mailbox.is_closed() {
            match partition_count(&self.consumer, &self.plan.topic, QUESTION) {
                Ok(Some(count)) => return self.subscribe(count),
                Ok(None) => {
                    absent += 1;
                    if absent >= ABSENT_MAX {
                        return Err(Error::missing_topic(&self.clients.who, &self.plan.topic));
                    }
                }
                Err(error) => self.question_failed(&error)?,
            }
            self.rest()?;
        }
        Ok(())
    }

    /// Rests, and takes in what librdkafka reports meanwhile.
    fn rest(&mut self) -> Result<()> {
        let consumer = self.consumer.clone();
        let rested = Instant::now() + REST;
        while Instant::now() < rested && !self.mailbox.is_closed() {
            if let Some(Err(error)) = consumer.poll(rested.saturating_duration_since(Instant::now())) {
                self.handle(&error)?;
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, count: u32) -> Result<()> {
        if self.plan.shared {
            return self.consumer.subscribe(&[&self.plan.topic]).map_err(|error| self.call_error(&error));
        }
        let all = 0..i32::try_from(count).unwrap_or(i32::MAX);
        let chosen = self.plan.partitions.clone().unwrap_or_else(|| all.clone().collect());
        if let Some(absent) = chosen.iter().find(|partition| !all.contains(partition)) {
            let why = format!("topic '{}' has no partition {absent}; it has {count}", self.plan.topic);
            return Err(Error::fatal(&self.clients.who, why));
        }
        self.joining.extend(chosen);
        Ok(())
    }

    /// Takes what is there, waiting a little when there is nothing.
    fn fetch(&mut self) -> Result<()> {
        let consumer = self.consumer.clone();
        let mut wait = self.poll_wait();
        // What is taken now lies in the mailbox only at the end.
        let mut room_bytes = self.mailbox.room_bytes();
        for _ in 0..TURN_RECORDS_MAX {
            let polled = consumer.poll(wait);
            if !wait.is_zero() {
                self.renew_leases();
                wait = Duration::ZERO;
            }
            match polled {
                Some(Ok(message)) => {
                    room_bytes = room_bytes
                        .saturating_sub(message.key().map_or(0, <[u8]>::len) + message.payload_len());
                    self.take(&message);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => self.end_of(partition),
                Some(Err(error)) => self.handle(&error)?,
                None => break,
            }
            if consumer.context().is_noticed() || room_bytes == 0 {
                break;
            }
        }
        self.flush();
        Ok(())
    }

    fn poll_wait(&self) -> Duration {
        let soon = !self.handovers.is_empty() || !self.joining.is_empty();
        Duration::from_millis(match (soon, self.flow.holds_back()) {
            (true, _) => 5,
            (false, true) => 20,
            (false, false) => 100,
        })
    }

    fn renew_leases(&mut self) {
        let span = self.pulse.beat(Instant::now());
        if let (Some(span), true) = (span, self.plan.shared) {
            for (_, slot) in self.slots.iter_mut() {
                slot.lease.renew(span);
            }
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let (partition, offset) = (message.partition(), message.offset());
        let Some(slot) = self.slots.get_mut(partition) else { return };
        // After a pause librdkafka may begin with records we have.
        if slot.leaving || offset < slot.next_offset {
            return;
        }
        let record = Record {
            topic: self.plan.topic.clone(),
            partition,
            offset,
            timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
            key: message.key().map(Bytes::copy_from_slice),
            value: message.payload().map(Bytes::copy_from_slice),
            headers: headers::read(message, &NO_HEADERS),
        };
        if slot.is_full_for(&record)
            && let Some(batch) = slot.batch(&self.plan.topic, partition)
        {
            self.mailbox.push(SourceEvent::Batch(batch));
        }
        if slot.add(record, self.plan.batch_records_max)
            && let Some(batch) = slot.batch(&self.plan.topic, partition)
        {
            self.mailbox.push(SourceEvent::Batch(batch));
        }
    }

    fn flush(&mut self) {
        for (partition, slot) in self.slots.iter_mut() {
            if let Some(batch) = slot.batch(&self.plan.topic, partition) {
                self.mailbox.push(SourceEvent::Batch(batch));
            }
        }
    }

    fn end_of(&mut self, partition: i32) {
        let end_offset = self.consumer.context().end_offset();
        let at = self.partition(partition);
        let Some(slot) = self.slots.get_mut(partition).filter(|slot| !slot.leaving) else { return };
        // The end may lie behind records that are never shown: control records, and those of aborted
        // transactions.
        slot.next_offset = slot.next_offset.max(end_offset);
        let next_offset = slot.next_offset;
        if let Some(batch) = slot.batch(&self.plan.topic, partition) {
            self.mailbox.push(SourceEvent::Batch(batch));
        }
        self.mailbox.push(SourceEvent::CaughtUp { partition: at, next_offset });
    }

    /// What polling reported instead of a record.
    fn handle(&mut self, error: &KafkaError) -> Result<()> {
        let Some(code) = error.rdkafka_error_code() else { return Err(self.call_error(error)) };
        let reason = match self.consumer.context().reports.take_last() {
            Some((told, reason)) if told == code && code != Code::AllBrokersDown => reason,
            _ => self.consumer.context().reports.cause().unwrap_or_else(|| error.to_string()),
        };
        match code {
            Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => {
                tracing::warn!(
                    topic = &*self.plan.topic,
                    reason,
                    "a partition has lost its place in the log"
                );
                self.misplaced = true;
                Ok(())
            }
            code if is_unknown_topic(code) => self.is_topic_there(),
            // One of several brokers, or a connection that was idle.
            Code::BrokerTransportFailure if class_of_report(code, &reason) == Class::Retry => {
                tracing::debug!(topic = &*self.plan.topic, reason, "a connection failed");
                Ok(())
            }
            _ => {
                let told = error::error(&self.clients.who, &self.what(), code, &reason);
                let fatal =
                    matches!(error, KafkaError::MessageConsumptionFatal(_)) || told.class() == Class::Fatal;
                // No record can be rejected that was not read.
                let class = if fatal { Class::Fatal } else { Class::Retry };
                let told = Error::new(class, told.who(), told.why()).with_source(reason);
                if fatal {
                    return Err(told);
                }
                self.tell(told);
                Ok(())
            }
        }
    }

    fn is_topic_there(&mut self) -> Result<()> {
        match partition_count(&self.consumer, &self.plan.topic, QUESTION) {
            Ok(None) => Err(Error::missing_topic(&self.clients.who, &self.plan.topic)),
            Ok(Some(_)) => Ok(()),
            Err(error) => self.question_failed(&error),
        }
    }

    /// A question to the cluster failed: fatal if it will always.
    fn question_failed(&mut self, error: &KafkaError) -> Result<()> {
        self.rest_until = Instant::now() + REST;
        let told = self.call_error(error);
        if told.class() == Class::Fatal {
            return Err(told);
        }
        self.tell(told);
        Ok(())
    }

    /// Tells of an error that passes, unless one was told just now.
    fn tell(&mut self, error: Error) {
        let now = Instant::now();
        if self.troubled_at.is_some_and(|at| now.duration_since(at) < TROUBLE_INTERVAL) {
            tracing::debug!(error = error.chain(), "still in trouble");
            return;
        }
        self.troubled_at = Some(now);
        self.mailbox.trouble(error);
    }

    fn call_error(&self, error: &KafkaError) -> Error {
        of_call(&self.clients.who, &self.what(), error)
    }

    fn what(&self) -> String {
        format!("cannot read topic '{}'", self.plan.topic)
    }

    fn partition(&self, partition: i32) -> TopicPartition {
        TopicPartition { topic: self.plan.topic.clone(), partition }
    }
}

impl Drop for Reader {
    /// Also where the thread panicked: nobody waits for it in vain, and neither does the group.
    fn drop(&mut self) {
        self.mailbox.end(None);
        self.leave();
    }
}
