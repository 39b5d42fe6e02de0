//! The transactions of one partition's worker: a transactional producer whose id is the group's and the
//! partition's, so that whoever takes the partition over settles what its former owner has left.
//!
//! Outputs are held back until there are many or the batch is done: a transaction is open for the time of its
//! commit, and not for as long as a slow store takes. Where it is not known what became of a commit, the client is
//! made anew, which decides it, and the group's progress tells how.

mod client;
mod open;
mod state;

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use millrace_core::{CommitOutcome, Error, Lease, NewRecord, Result, States, TopicPartition, Transactor};
use rdkafka::consumer::BaseConsumer;
use tokio::{sync::Mutex, task::spawn_blocking};

use crate::{
    client::{BATCH_OVERHEAD_BYTES, Clients},
    context::ReaderContext,
    producer::{KafkaProducer, cannot_append, size_bytes},
};

use open::Open;

/// Outputs held back at most, in bytes, besides those of one call.
const HELD_BYTES_MAX: usize = 4 << 20;
/// What a record needs in its batch besides its bytes and those of its headers.
const RECORD_OVERHEAD_BYTES: u64 = 96;
/// What a header needs.
const HEADER_OVERHEAD_BYTES: u64 = 10;

/// For whom transactions are.
pub struct Owner {
    /// The cluster's clients.
    pub clients: Arc<Clients>,
    /// Knows what topics allow.
    pub producer: Arc<KafkaProducer>,
    /// The member of the group. Not kept alive: it is the source that is a member.
    pub consumer: Weak<BaseConsumer<ReaderContext>>,
    /// The group's name as the cluster knows it.
    pub group: String,
    /// What is read.
    pub partition: TopicPartition,
    /// The right to write for it, of this assignment.
    pub lease: Arc<Lease>,
}

impl Owner {
    /// The transactional id. A topic's name has no slash.
    pub fn id(&self) -> String {
        format!("{}/{}", self.group, self.partition)
    }

    /// An error that passes.
    pub fn retry(&self, why: &str) -> Error {
        Error::retry(&self.clients.who, format!("{why} of {} of group '{}'", self.partition, self.group))
    }
}

/// See the module's documentation.
pub struct KafkaTransactor {
    owner: Arc<Owner>,
    open: Arc<Mutex<Open>>,
}

impl KafkaTransactor {
    /// Connects to nothing yet.
    pub fn new(owner: Owner) -> Self {
        let owner = Arc::new(owner);
        KafkaTransactor { open: Arc::new(Mutex::new(Open::new(owner.clone()))), owner }
    }

    /// Works where it may block. The work goes on when nobody waits for it any more, and what comes next waits.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Open) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut open = self.open.clone().lock_owned().await;
        let ended = spawn_blocking(move || work(&mut open)).await;
        ended.unwrap_or_else(|error| Err(self.owner.retry("the transaction").with_source(error)))
    }

    fn judge(&self, topic: &str, record: &NewRecord, limit: u64) -> Result<()> {
        let headers = record.headers.len() as u64 * HEADER_OVERHEAD_BYTES;
        let bytes = size_bytes(record);
        if bytes + headers + RECORD_OVERHEAD_BYTES <= limit {
            return Ok(());
        }
        let why = format!("{}: a record of {bytes} bytes is larger than allowed", cannot_append(topic));
        Err(Error::reject(&self.owner.clients.who, why))
    }
}

#[async_trait]
impl Transactor for KafkaTransactor {
    async fn restore(&self) -> Result<States> {
        self.blocking(Open::restore).await
    }

    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<()>> {
        let limit = match self.owner.producer.limit(topic).await {
            Ok(limit) => limit,
            Err(error) => return records.iter().map(|_| Err(error.again())).collect(),
        };
        if self.open.lock().await.held_bytes() >= HELD_BYTES_MAX
            && let Err(error) = self.blocking(Open::hand_over).await
        {
            return records.iter().map(|_| Err(error.again())).collect();
        }
        // From here on nothing waits: a call that is dropped has added nothing.
        let mut open = self.open.lock().await;
        let allowed = self.owner.clients.options.record_bytes_max + BATCH_OVERHEAD_BYTES;
        let allowed = limit.map_or(allowed, |limit| limit.min(allowed));
        let topic_name: Arc<str> = topic.into();
        open.fit(limit);
        let add = |record: NewRecord| {
            self.judge(topic, &record, allowed)?;
            if open.is_refused(topic, &record) {
                let why = format!("{}: the broker refuses it", cannot_append(topic));
                return Err(Error::reject(&self.owner.clients.who, why));
            }
            open.hold(topic_name.clone(), record);
            Ok(())
        };
        records.into_iter().map(add).collect()
    }

    async fn commit(&self, next_offset: i64, changed: &States) -> Result<CommitOutcome> {
        if !changed.is_empty() {
            self.owner.producer.prepare_states().await?;
        }
        let changed = changed.clone();
        self.blocking(move |open| open.commit(next_offset, &changed)).await
    }
}

impl Drop for KafkaTransactor {
    /// Aborts what is open, where it may block. What is missed here the next owner does, or the cluster in time.
    fn drop(&mut self) {
        let open = self.open.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn_blocking(move || open.blocking_lock().abort()));
        }
    }
}

/// Bytes of a key and a value, as they count for what is held.
fn held(record: &NewRecord) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    length(&record.key) + length(&record.value) + 128
}
