//! A transactional client of librdkafka: what it is told and what it answers. All calls block the thread.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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

/// A record that was not appended.
pub struct Refused {
    pub error: KafkaError,
    /// Its topic, and its place among the records of the transaction; none where a call failed and no record.
    pub record: Option<(String, usize)>,
}

impl From<KafkaError> for Refused {
    fn from(error: KafkaError) -> Self {
        Refused { error, record: None }
    }
}

/// What became of the records of a transaction.
#[derive(Default)]
struct Answers {
    /// Records handed to librdkafka and not answered.
    under_way: usize,
    failure: Option<Refused>,
    /// Where those records were appended that somebody wants to know of, by their place.
    positions: Vec<(usize, Position)>,
}

/// A record's place in the transaction, and whether it matters where it is appended: what travels with it.
fn opaque(place: usize, located: bool) -> usize {
    place << 1 | usize::from(located)
}

#[derive(Default)]
struct TransactionContext {
    listener: Listener,
    answers: Mutex<Answers>,
    /// Told when none is under way any more.
    all_answered: Condvar,
}

impl TransactionContext {
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no record is under way, or the time is over. The producer's own flush looks only every tenth of a
    /// second, since it polls for answers itself, beside the thread that gets them.
    fn wait(&self, patience: Duration) -> MutexGuard<'_, Answers> {
        let under_way = |answers: &mut Answers| answers.under_way > 0;
        let waited = self.all_answered.wait_timeout_while(self.answers(), patience, under_way);
        waited.unwrap_or_else(PoisonError::into_inner).0
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
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let place = opaque >> 1;
        let mut answers = self.answers();
        answers.under_way -= 1;
        match result {
            Ok(message) if opaque & 1 == 1 => {
                let position = Position { partition: message.partition(), offset: message.offset() };
                answers.positions.push((place, position));
            }
            Ok(_) => {}
            Err((error, message)) => {
                let record = Some((message.topic().to_owned(), place));
                answers.failure.get_or_insert(Refused { error: error.clone(), record });
            }
        }
        if answers.under_way == 0 {
            self.all_answered.notify_all();
        }
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
        let mut answers = self.context().answers();
        answers.failure = None;
        answers.positions.clear();
        drop(answers);
        self.producer.begin_transaction()
    }

    /// Hands a record to librdkafka. Where a located one is appended is answered by [`Client::flush`].
    pub fn append(
        &self,
        topic: &str,
        record: &NewRecord,
        place: usize,
        located: bool,
    ) -> Result<(), Refused> {
        let deadline = Instant::now() + self.patience;
        let mut message: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(topic, opaque(place, located));
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.partition = record.partition;
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            message.headers = Some(record.headers.iter().fold(headers, |all, one| {
                all.insert(Header { key: &one.name, value: one.value.as_deref() })
            }));
        }
        // Before it is handed over: the answer may come before the call returns.
        self.context().answers().under_way += 1;
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) if Instant::now() < deadline => {
                    message = back;
                    self.rest();
                }
                Err((error, _)) => {
                    self.context().answers().under_way -= 1;
                    return Err(Refused { error, record: Some((topic.to_owned(), place)) });
                }
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

    /// Waits until all records are acknowledged; answers where the located ones are, in their order.
    pub fn flush(&self) -> Result<Vec<Position>, Refused> {
        let mut answers = self.context().wait(self.patience);
        if let Some(refused) = answers.failure.take() {
            return Err(refused);
        }
        if answers.under_way > 0 {
            return Err(KafkaError::Flush(Code::OperationTimedOut).into());
        }
        let mut positions = std::mem::take(&mut answers.positions);
        positions.sort_by_key(|(place, _)| *place);
        Ok(positions.into_iter().map(|(_, position)| position).collect())
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
        self.context().listener.reports.cause()
    }

    fn context(&self) -> &TransactionContext {
        self.producer.client().context()
    }
}
