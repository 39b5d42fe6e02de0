//! A transactional client of librdkafka: what it is told and what it answers. All calls block the thread.

use std::sync::{Mutex, PoisonError};

use millrace_core::{NewRecord, Position};
use rdkafka::{
    ClientContext, Message, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::ConsumerGroupMetadata,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};
use tokio::time::{Duration, Instant};

use crate::{client::Clients, context::Listener};

/// How long a full queue is rested.
const FULL_QUEUE_REST: Duration = Duration::from_millis(5);

/// What became of the records of a transaction.
#[derive(Default)]
struct Answers {
    failure: Option<(Code, String)>,
    /// Where records with a number were appended, by the number.
    positions: Vec<(usize, Position)>,
}

#[derive(Default)]
struct TransactionContext {
    listener: Listener,
    answers: Mutex<Answers>,
}

impl TransactionContext {
    fn note(&self, note: impl FnOnce(&mut Answers)) {
        note(&mut self.answers.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ClientContext for TransactionContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.listener.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }
}

impl ProducerContext for TransactionContext {
    /// 0, or the number of a record whose position is wanted.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        self.note(|answers| match result {
            Ok(message) if number > 0 => {
                let position = Position { partition: message.partition(), offset: message.offset() };
                answers.positions.push((number, position));
            }
            Ok(_) => {}
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
                answers.failure.get_or_insert((code, message.topic().to_owned()));
            }
        });
    }
}

/// One client; it has settled whatever an earlier one of its id has left.
pub struct Client {
    producer: ThreadedProducer<TransactionContext>,
    /// How large its batches may be.
    pub batch_bytes: u64,
    patience: Duration,
}

impl Client {
    /// Makes a client and settles what is open under its id.
    pub fn open(clients: &Clients, id: &str, batch_bytes: u64) -> KafkaResult<Self> {
        let config = clients.transactional_producer(id, batch_bytes);
        let producer = ThreadedProducer::from_config_and_context(&config, TransactionContext::default())?;
        let client = Client { producer, batch_bytes, patience: clients.options.transaction_timeout };
        client.producer.init_transactions(clients.options.request_timeout)?;
        Ok(client)
    }

    pub fn begin(&self) -> KafkaResult<()> {
        self.producer.client().context().note(|answers| *answers = Answers::default());
        self.producer.begin_transaction()
    }

    /// Hands a record to librdkafka. The position of one with a number is kept.
    pub fn append(&self, topic: &str, record: &NewRecord, number: usize) -> KafkaResult<()> {
        let deadline = Instant::now() + self.patience;
        let mut message: BaseRecord<'_, [u8], [u8], usize> = BaseRecord::with_opaque_to(topic, number);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.partition = record.partition;
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            message.headers = Some(record.headers.iter().fold(headers, |all, one| {
                all.insert(Header { key: &one.name, value: one.value.as_deref() })
            }));
        }
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) if Instant::now() < deadline => {
                    message = back;
                    self.rest();
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a thread for blocking work waits for room in a queue of C"
    )]
    fn rest(&self) {
        std::thread::sleep(FULL_QUEUE_REST);
    }

    /// Waits until all records are acknowledged; answers the positions asked for, by number. The failure of a
    /// record is told with its topic.
    pub fn flush(&self) -> Result<Vec<Position>, (KafkaError, Option<String>)> {
        let flushed = self.producer.flush(self.patience);
        let mut answers = Answers::default();
        self.producer.client().context().note(|all| answers = std::mem::take(all));
        if let Some((code, topic)) = answers.failure {
            return Err((KafkaError::MessageProduction(code), Some(topic)));
        }
        flushed.map_err(|error| (error, None))?;
        answers.positions.sort_by_key(|(number, _)| *number);
        Ok(answers.positions.into_iter().map(|(_, position)| position).collect())
    }

    pub fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        member: &ConsumerGroupMetadata,
    ) -> KafkaResult<()> {
        self.producer.send_offsets_to_transaction(offsets, member, self.patience)
    }

    pub fn commit(&self) -> KafkaResult<()> {
        self.producer.commit_transaction(self.patience)
    }

    pub fn abort(&self) -> KafkaResult<()> {
        self.producer.abort_transaction(self.patience)
    }

    /// The last thing that was reported of connections.
    pub fn cause(&self) -> Option<String> {
        self.producer.client().context().listener.reports.cause()
    }
}
