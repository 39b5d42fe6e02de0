//! Appending: idempotent, acknowledged by all in-sync replicas, in order.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use millrace_core::{Class, Error, NewRecord, Position, Producer, Result};
use rdkafka::{
    config::FromClientConfigAndContext,
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ThreadedProducer},
};
use tokio::{
    sync::OnceCell,
    time::{Duration, Instant},
};

use crate::{
    admin::KafkaAdmin,
    client::{BATCH_BYTES_MAX, BATCH_OVERHEAD_BYTES, Clients},
    delivery::{AppenderContext, Delivery, Ticket},
    error::{self, class_of, is_unknown_topic},
};

/// How long a full queue is rested.
const FULL_QUEUE_REST: Duration = Duration::from_millis(5);
/// Topics remembered; a service has dozens.
const TOPICS_MAX: usize = 10_000;

type Appender = ThreadedProducer<AppenderContext>;

/// The producer of one broker.
///
/// A broker refuses a batch, not a record, when it is larger than the topic allows. So batches are never larger
/// than their topic's limit, unless they hold one record; a refusal is then that record's own. librdkafka has
/// one batch size per client: topics that allow less than [`BATCH_BYTES_MAX`] share clients with smaller ones.
pub struct KafkaProducer {
    clients: Arc<Clients>,
    admin: KafkaAdmin,
    state: Mutex<State>,
    states_ready: OnceCell<()>,
}

#[derive(Default)]
struct State {
    appenders: HashMap<u64, Arc<Appender>>,
    /// What the topics allow, if we may know it.
    limits: HashMap<String, Option<u64>>,
}

impl KafkaProducer {
    /// A producer that connects at its first record.
    pub fn new(clients: Arc<Clients>) -> Self {
        let admin = KafkaAdmin::new(clients.clone());
        KafkaProducer { admin, clients, state: Mutex::default(), states_ready: OnceCell::new() }
    }

    /// The bytes that a topic allows a batch to have; none where we may not know. Finds out that a topic is not
    /// there, too: librdkafka would look for it for half a minute, and a broker might create it.
    ///
    /// # Errors
    /// Fatal when the topic does not exist; Retry when the broker is away.
    pub async fn limit(&self, topic: &str) -> Result<Option<u64>> {
        if let Some(known) = self.lock().limits.get(topic) {
            return Ok(*known);
        }
        let limit = self.admin.batch_bytes_max(topic).await?;
        let mut state = self.lock();
        if state.limits.len() >= TOPICS_MAX {
            state.limits.clear();
        }
        state.limits.insert(topic.to_owned(), limit);
        Ok(limit)
    }

    /// The topic may allow something else now.
    pub fn forget(&self, topic: &str) {
        self.lock().limits.remove(topic);
    }

    /// Makes the topic of states, unless it is there.
    ///
    /// # Errors
    /// As [`millrace_core::Admin::create_topic`].
    pub async fn prepare_states(&self) -> Result<()> {
        self.states_ready.get_or_try_init(|| self.admin.create_state_topic()).await.map(drop)
    }

    async fn batch_bytes(&self, topic: &str) -> Result<u64> {
        Ok(self.limit(topic).await?.map_or(BATCH_BYTES_MAX, batch_bytes_within))
    }

    fn appender(&self, batch_bytes: u64) -> Result<Arc<Appender>> {
        let mut state = self.lock();
        if let Some(appender) = state.appenders.get(&batch_bytes) {
            return Ok(appender.clone());
        }
        let config = self.clients.producer(batch_bytes);
        let appender = Appender::from_config_and_context(&config, AppenderContext::default())
            .map_err(|error| error::of_call(&self.clients.who, "cannot make a producer", &error))?;
        let appender = Arc::new(appender);
        state.appenders.insert(batch_bytes, appender.clone());
        Ok(appender)
    }

    /// Makes room for a new client when this one has lost its place in a sequence and refuses all work.
    fn replace_if_broken(&self, batch_bytes: u64, appender: Arc<Appender>) {
        let Some((code, reason)) = appender.client().fatal_error() else { return };
        tracing::warn!(broker = self.clients.who, %code, reason, "the producer is made anew");
        let mut state = self.lock();
        if state.appenders.get(&batch_bytes).is_some_and(|current| Arc::ptr_eq(current, &appender)) {
            state.appenders.remove(&batch_bytes);
        }
        drop(state);
        // It waits for its thread.
        drop(tokio::task::spawn_blocking(move || drop(appender)));
    }

    fn explain(&self, topic: &str, code: Code, record_bytes: u64, batch_bytes: u64) -> Error {
        let who = &self.clients.who;
        let what = cannot_append(topic);
        if is_unknown_topic(code) {
            self.forget(topic);
            return Error::missing_topic(who, topic);
        }
        if code == Code::MessageSizeTooLarge && record_bytes < batch_bytes {
            // Its company was too large: the topic allows less than we knew. Alone it can be judged.
            self.lock().limits.insert(topic.to_owned(), Some(0));
            return Error::retry(who, what).with_source("the batch was larger than the topic allows");
        }
        if code == Code::MessageSizeTooLarge {
            return Error::reject(
                who,
                format!("{what}: a record of {record_bytes} bytes is larger than allowed"),
            );
        }
        error::error(who, &what, code, "")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<Position>> {
        let ready = match self.batch_bytes(topic).await {
            Ok(batch_bytes) => self.appender(batch_bytes).map(|appender| (batch_bytes, appender)),
            Err(error) => Err(error),
        };
        let (batch_bytes, appender) = match ready {
            Ok(ready) => ready,
            Err(error) => return records.iter().map(|_| Err(error.again())).collect(),
        };
        let reports = appender.client().context().reports();
        // What was reported earlier may have been put right since; if not, it is reported again.
        drop(reports.take_fatal(&self.clients.who, ""));
        let deadline = Instant::now() + self.clients.options.delivery_timeout;
        let sizes: Vec<u64> = records.iter().map(size_bytes).collect();
        let delivery = Delivery::new(records.len());
        enqueue(&appender, topic, records, &delivery, deadline).await;
        let answers = delivery.answers().await;
        let refused = reports.take_fatal(&self.clients.who, &cannot_append(topic));
        let explained = answers.into_iter().zip(sizes).map(|(answer, size)| {
            answer.map_err(|code| match &refused {
                Some(refused) if class_of(code) == Class::Retry => refused.again(),
                _ => self.explain(topic, code, size, batch_bytes),
            })
        });
        let results: Vec<_> = explained.collect();
        if results.iter().any(Result::is_err) {
            self.replace_if_broken(batch_bytes, appender);
        }
        results
    }
}

/// What an error of an append begins with.
pub fn cannot_append(topic: &str) -> String {
    format!("cannot append to topic '{topic}'")
}

/// Hands all records to librdkafka, in order. Where one does not go in, those after it are not tried, so that
/// they do not overtake it.
async fn enqueue(
    appender: &Appender,
    topic: &str,
    records: Vec<NewRecord>,
    delivery: &Arc<Delivery>,
    deadline: Instant,
) {
    let mut refusal: Option<Code> = None;
    for (index, record) in records.into_iter().enumerate() {
        let mut ticket = delivery.ticket(index);
        loop {
            if let Some(code) = refusal {
                ticket.answer(Err(code));
                break;
            }
            let Err((code, back)) = hand_over(appender, topic, &record, ticket) else { break };
            ticket = back;
            if code == Code::QueueFull && Instant::now() < deadline {
                tokio::time::sleep(FULL_QUEUE_REST).await;
            } else if class_of(code) == Class::Reject {
                ticket.answer(Err(code));
                break;
            } else {
                refusal = Some(code);
            }
        }
    }
}

/// Copies a record into librdkafka's queue, or gives its ticket back.
fn hand_over(
    appender: &Appender,
    topic: &str,
    record: &NewRecord,
    ticket: Box<Ticket>,
) -> std::result::Result<(), (Code, Box<Ticket>)> {
    let mut message: BaseRecord<'_, [u8], [u8], Box<Ticket>> = BaseRecord::with_opaque_to(topic, ticket);
    message.key = record.key.as_deref();
    message.payload = record.value.as_deref();
    message.partition = record.partition;
    if !record.headers.is_empty() {
        let headers =
            record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |all, one| {
                all.insert(Header { key: &one.name, value: one.value.as_deref() })
            });
        message.headers = Some(headers);
    }
    appender.send(message).map_err(|(error, message)| {
        let code = match &error {
            KafkaError::MessageProduction(code) => *code,
            other => other.rdkafka_error_code().unwrap_or(Code::Fail),
        };
        (code, message.delivery_opaque)
    })
}

/// Bytes of key, value and headers.
pub fn size_bytes(record: &NewRecord) -> u64 {
    let headers: usize = record
        .headers
        .iter()
        .map(|header| header.name.len() + header.value.as_ref().map_or(0, Bytes::len))
        .sum();
    (headers + record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len)) as u64
}

/// The batch size for a topic's limit: a power of two, so that there are few clients; 1 is a record at a time.
pub fn batch_bytes_within(limit: u64) -> u64 {
    let room = limit.saturating_sub(BATCH_OVERHEAD_BYTES).min(BATCH_BYTES_MAX);
    room.checked_ilog2().map_or(1, |log| 1 << log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_fit_their_topic_and_sizes_are_few() {
        assert_eq!(batch_bytes_within(u64::MAX), BATCH_BYTES_MAX);
        assert_eq!(batch_bytes_within((1 << 20) + BATCH_OVERHEAD_BYTES), BATCH_BYTES_MAX);
        assert_eq!(batch_bytes_within((16 << 10) + BATCH_OVERHEAD_BYTES), 16 << 10);
        assert_eq!(batch_bytes_within(20_000), 16_384);
        assert_eq!(batch_bytes_within(100), 1);
        assert_eq!(batch_bytes_within(0), 1);
    }
}
