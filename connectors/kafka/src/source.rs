//! A source and its handle: the asynchronous side of the polling thread.

use std::{
    sync::{Arc, Weak},
    thread::JoinHandle,
};

use async_trait::async_trait;
use millrace_core::{
    Assignment, Control, Error, Result, Source, SourceEvent, Subscription, TopicPartition, Transactor,
};
use rdkafka::{
    Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaResult,
};
use tokio::{
    sync::Mutex,
    task::spawn_blocking,
    time::{Duration, Instant, sleep, timeout_at},
};

use crate::{
    client::Clients,
    context::ReaderContext,
    error::{is_moved_on, of_call},
    mailbox::Mailbox,
    producer::KafkaProducer,
    slots::Desk,
    thread::{Plan, Reader},
    transactor::{KafkaTransactor, Owner},
};

/// How long a commit rests while the group is being shared out anew.
const REBALANCE_REST: Duration = Duration::from_millis(100);

/// Reads one topic.
pub struct KafkaSource {
    mailbox: Arc<Mailbox>,
    control: Arc<KafkaControl>,
    thread: Option<JoinHandle<()>>,
}

impl KafkaSource {
    /// Starts the thread.
    ///
    /// # Errors
    /// Fatal when librdkafka refuses the configuration; Retry when there are no threads left.
    pub fn open(
        clients: &Arc<Clients>,
        producer: &Arc<KafkaProducer>,
        subscription: Subscription,
    ) -> Result<Self> {
        let config = clients.consumer(subscription.group.as_deref(), subscription.prefetch_bytes_max);
        let what = format!("cannot read topic '{}'", subscription.topic);
        let consumer = BaseConsumer::from_config_and_context(&config, ReaderContext::default())
            .map_err(|error| of_call(&clients.who, &what, &error))?;
        let consumer = Arc::new(consumer);
        let mailbox = Arc::new(Mailbox::new(subscription.prefetch_bytes_max / 2));
        let desk = Arc::new(Desk::default());
        let control = Arc::new(KafkaControl {
            clients: clients.clone(),
            producer: producer.clone(),
            topic: subscription.topic.clone(),
            group: subscription.group.clone(),
            shared: subscription.group.is_some() && subscription.partitions.is_none(),
            consumer: Arc::downgrade(&consumer),
            desk: desk.clone(),
            turn: Arc::new(Mutex::new(())),
        });
        let plan = Plan {
            topic: subscription.topic.into(),
            group: control.group.is_some(),
            shared: control.shared,
            partitions: subscription.partitions,
            start: subscription.start,
            batch_records_max: subscription.batch_records_max.max(1),
        };
        let reader = Reader::new(clients.clone(), plan, consumer, mailbox.clone(), desk);
        let thread = std::thread::Builder::new()
            .name("kafka-source".into())
            .spawn(move || reader.run())
            .map_err(|error| Error::retry(&clients.who, what).with_source(error))?;
        Ok(KafkaSource { mailbox, control, thread: Some(thread) })
    }
}

#[async_trait]
impl Source for KafkaSource {
    async fn next(&mut self) -> Result<Option<SourceEvent>> {
        self.mailbox.next().await
    }

    fn control(&self) -> Arc<dyn Control> {
        self.control.clone()
    }
}

impl Drop for KafkaSource {
    /// The thread leaves the group by itself. A runtime that ends waits for blocking work, so that the process
    /// does not end in the middle of it and keep its partitions from others for a session.
    fn drop(&mut self) {
        self.mailbox.close();
        let Some(thread) = self.thread.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(thread.join())));
        } else {
            drop(thread.join());
        }
    }
}

/// Commits and holds back. Does not keep the client alive: it is the source that is a member of the group.
struct KafkaControl {
    clients: Arc<Clients>,
    producer: Arc<KafkaProducer>,
    topic: String,
    group: Option<String>,
    shared: bool,
    consumer: Weak<BaseConsumer<ReaderContext>>,
    desk: Arc<Desk>,
    /// One commit at a time, so that an older one never overtakes a newer.
    turn: Arc<Mutex<()>>,
}

impl KafkaControl {
    /// Commits on the pool for blocking work. The turn is kept to the end, also when nobody waits any more.
    async fn commit_once(
        &self,
        consumer: Arc<BaseConsumer<ReaderContext>>,
        offsets: Vec<(i32, i64)>,
    ) -> KafkaResult<()> {
        let turn = self.turn.clone().lock_owned().await;
        let topic = self.topic.clone();
        let call = spawn_blocking(move || {
            let mut list = TopicPartitionList::with_capacity(offsets.len());
            for (partition, offset) in offsets {
                list.add_partition_offset(&topic, partition, Offset::Offset(offset))?;
            }
            let answer = consumer.commit(&list, CommitMode::Sync);
            drop((consumer, turn));
            answer
        });
        call.await.unwrap_or(Err(rdkafka::error::KafkaError::Canceled))
    }

    fn timed_out(&self) -> Error {
        Error::retry(&self.clients.who, format!("a commit for topic '{}' took too long", self.topic))
    }

    fn mine<'a>(&self, partitions: &'a [TopicPartition]) -> impl Iterator<Item = i32> + use<'a> {
        let topic = self.topic.clone();
        partitions.iter().filter(move |one| *one.topic == *topic).map(|one| one.partition)
    }
}

#[async_trait]
impl Control for KafkaControl {
    async fn commit(&self, offsets: &[(TopicPartition, i64)]) -> Result<()> {
        if self.group.is_none() {
            return Ok(());
        }
        let deadline = Instant::now() + self.clients.options.request_timeout;
        loop {
            let mine: Vec<(i32, i64)> = offsets
                .iter()
                .filter(|(one, _)| *one.topic == *self.topic && self.desk.owns(one.partition))
                .map(|(one, offset)| (one.partition, *offset))
                .collect();
            let Some(consumer) = self.consumer.upgrade().filter(|_| !mine.is_empty()) else { return Ok(()) };
            let error = match timeout_at(deadline, self.commit_once(consumer, mine)).await {
                Err(_) => return Err(self.timed_out()),
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
            };
            let what = format!("cannot commit for topic '{}'", self.topic);
            if !error.rdkafka_error_code().is_some_and(is_moved_on) {
                return Err(of_call(&self.clients.who, &what, &error));
            }
            if !self.shared {
                let why = format!("{what}: its group has running members, which alone may commit");
                return Err(Error::fatal(&self.clients.who, why).with_source(error));
            }
            // The group is between two generations. Partitions that stay ours are committed in the next;
            // those that do not are no longer ours then.
            if Instant::now() + REBALANCE_REST >= deadline {
                return Err(self.timed_out().with_source(error));
            }
            sleep(REBALANCE_REST).await;
        }
    }

    fn transactor(&self, assignment: &Assignment) -> Option<Arc<dyn Transactor>> {
        let group = self.group.as_deref().filter(|_| self.shared)?;
        Some(Arc::new(KafkaTransactor::new(Owner {
            clients: self.clients.clone(),
            producer: self.producer.clone(),
            consumer: self.consumer.clone(),
            group: self.clients.group_name(group),
            partition: assignment.partition.clone(),
            lease: assignment.lease.clone(),
        })))
    }

    fn pause(&self, partitions: &[TopicPartition]) {
        self.desk.hold(self.mine(partitions));
    }

    fn resume(&self, partitions: &[TopicPartition]) {
        self.desk.release(self.mine(partitions));
    }
}
