//! The board: a compacted topic read whole and then followed. Whoever has it open sees each key's newest entry.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use millrace_core::{
    Broker, Class, Error, NewRecord, PartitionSpan, Producer, Record, Result, Source, SourceEvent, Start,
    Stretch, Subscription, TopicSpec, read_up_to,
};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Duration, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{applied::APPLIED, entry::Entry};

/// How long reading the whole topic may take.
const READ_WITHIN: Duration = Duration::from_secs(20);

/// How long a follower rests after an error that may pass.
const REST: Duration = Duration::from_millis(500);

/// The largest entry with its key, in bytes.
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// An open board. Dropping it ends the following.
pub struct Board {
    topic: String,
    held: Arc<Held>,
    producer: Arc<dyn Producer>,
    _follower: DropGuard,
}

/// What is on a board, as far as it was read.
struct Held {
    cells: Mutex<BTreeMap<String, Cell>>,
    changed: watch::Sender<u64>,
    /// By partition: everything below was read.
    reached: watch::Sender<BTreeMap<i32, i64>>,
}

/// The newest record of a key: removed keys are remembered, because our own writes and what is read may arrive
/// in either order.
struct Cell {
    offset: i64,
    entry: Option<Entry>,
}

impl Board {
    /// Opens the board, making its topic where there is none: returns when all that it held is read, and
    /// follows it from there in a task of its own. Cancel-safe.
    ///
    /// # Errors
    /// Retry when the broker is away; Fatal when the topic may not be made, read or written.
    pub async fn open(broker: &dyn Broker, topic: &str) -> Result<Self> {
        broker.admin().create_topic(&spec(topic)).await?;
        let held = Arc::new(Held::default());
        let source = read(broker, topic, &held).await?;
        let producer = broker.producer().await?;
        let ended = CancellationToken::new();
        if let Some(source) = source {
            tokio::spawn(ended.clone().run_until_cancelled_owned(follow(source, held.clone())));
        }
        Ok(Board { topic: topic.to_owned(), held, producer, _follower: ended.drop_guard() })
    }

    /// All entries now, without making the topic or following it: nothing where there is none. Cancel-safe.
    ///
    /// # Errors
    /// As [`Board::open`].
    pub async fn look(broker: &dyn Broker, topic: &str) -> Result<BTreeMap<String, Entry>> {
        let held = Held::default();
        if broker.admin().topic(topic).await?.is_some() {
            read(broker, topic, &held).await?;
        }
        Ok(held.entries())
    }

    /// The entries of the applied log now, in its order, without making the topic or following it. Cancel-safe.
    ///
    /// # Errors
    /// As [`Board::open`].
    pub async fn look_in_order(broker: &dyn Broker, topic: &str) -> Result<Vec<(String, i64, Entry)>> {
        let held = Held::default();
        if broker.admin().topic(topic).await?.is_some() {
            read(broker, topic, &held).await?;
        }
        Ok(held.in_order())
    }

    /// Returns when everything is on this board that was written, by whomever, before the call. Cancel-safe.
    ///
    /// # Errors
    /// Retry when the broker is away, or what was written is not read in time.
    pub async fn synced(&self, broker: &dyn Broker) -> Result<()> {
        let Some(info) = broker.admin().topic(&self.topic).await? else { return Ok(()) };
        let mut reached = self.held.reached.subscribe();
        let read = reached.wait_for(|reached| {
            let is_read = |(number, span): (&i32, &PartitionSpan)| {
                span.end == span.start || reached.get(number).is_some_and(|next| *next >= span.end)
            };
            info.partitions.iter().all(is_read)
        });
        match timeout(READ_WITHIN, read).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(unread(&self.topic)),
        }
    }

    /// The entries of the applied log as far as they were read, in its order.
    pub fn in_order(&self) -> Vec<(String, i64, Entry)> {
        self.held.in_order()
    }

    /// Every entry, by key.
    pub fn entries(&self) -> BTreeMap<String, Entry> {
        self.held.entries()
    }

    /// The entry under a key.
    pub fn get(&self, key: &str) -> Option<Entry> {
        self.held.cells().get(key)?.entry.clone()
    }

    /// Tells when something has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.held.changed.subscribe()
    }

    /// Writes entries, or removes those that are none. What was written is on this board when it returns, unless
    /// somebody has replaced it already. Not cancel-safe: a dropped call may have written some.
    ///
    /// # Errors
    /// The first there is; the others may have been written. Fatal, before anything is written, where an entry
    /// of a newer format would be replaced.
    pub async fn put(&self, entries: &[(String, Option<Value>)]) -> Result<()> {
        for entry in entries.iter().filter_map(|(key, _)| self.get(key)) {
            entry.replaceable()?;
        }
        let values: Vec<_> = entries.iter().map(|(_, value)| value.as_ref().map(Entry::encode)).collect();
        let record = |((key, _), value): (&(String, _), &Option<Bytes>)| NewRecord {
            key: Some(key.clone().into()),
            value: value.clone(),
            // One partition, so that offsets are an order of all of them.
            partition: key.starts_with(APPLIED).then_some(0),
            ..NewRecord::default()
        };
        let answers =
            self.producer.send(&self.topic, entries.iter().zip(&values).map(record).collect()).await;
        let mut end = Ok(());
        for (((key, _), value), answer) in entries.iter().zip(values).zip(answers) {
            match answer {
                Ok(position) => {
                    self.held.apply(key.clone(), position.offset, value.map(Entry::new));
                }
                Err(error) => end = end.and(Err(error)),
            }
        }
        self.held.tell();
        end
    }
}

impl Default for Held {
    fn default() -> Self {
        Held {
            cells: Mutex::default(),
            changed: watch::Sender::new(0),
            reached: watch::Sender::new(BTreeMap::new()),
        }
    }
}

impl Held {
    fn entries(&self) -> BTreeMap<String, Entry> {
        let cells = self.cells();
        cells.iter().filter_map(|(key, cell)| Some((key.clone(), cell.entry.clone()?))).collect()
    }

    fn in_order(&self) -> Vec<(String, i64, Entry)> {
        let cells = self.cells();
        let of_log = cells.iter().filter(|(key, _)| key.starts_with(APPLIED));
        let mut entries: Vec<_> =
            of_log.filter_map(|(key, cell)| Some((key.clone(), cell.offset, cell.entry.clone()?))).collect();
        entries.sort_by_key(|(_, offset, _)| *offset);
        entries
    }

    /// Takes in the record of a key unless a newer one is there. A key lies in one partition always, so its
    /// offsets tell which one is newer.
    fn apply(&self, key: String, offset: i64, entry: Option<Entry>) {
        let mut cells = self.cells();
        if cells.get(&key).is_none_or(|cell| cell.offset <= offset) {
            cells.insert(key, Cell { offset, entry });
        }
    }

    fn take_in(&self, records: Vec<Record>) {
        for record in records {
            let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).map(str::to_owned);
            // A record without such a key is none of ours.
            let Some(key) = key else { continue };
            self.apply(key, record.offset, record.value.map(Entry::new));
        }
        self.tell();
    }

    fn note_reached(&self, partition: i32, next_offset: i64) {
        self.reached.send_modify(|reached| {
            reached.insert(partition, next_offset);
        });
    }

    fn tell(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn cells(&self) -> MutexGuard<'_, BTreeMap<String, Cell>> {
        self.cells.lock().expect("invariant: nobody panics while holding a board's lock")
    }
}

fn spec(topic: &str) -> TopicSpec {
    TopicSpec {
        name: topic.to_owned(),
        partitions: 1,
        retention_ms: None,
        retention_bytes: None,
        record_bytes_max: ENTRY_BYTES_MAX,
        replication: None,
        compact: true,
    }
}

/// Reads up to where the topic ends now and gives the source to go on with.
async fn read(broker: &dyn Broker, topic: &str, held: &Held) -> Result<Option<Box<dyn Source>>> {
    let info = broker.admin().topic(topic).await?;
    let info = info.ok_or_else(|| Error::fatal(format!("topic {topic}"), "does not exist"))?;
    let subscription = Subscription {
        topic: topic.to_owned(),
        group: None,
        partitions: None,
        start: Start::Beginning,
        prefetch_bytes_max: 8 << 20,
        batch_records_max: 1_000,
    };
    let mut source = broker.subscribe(subscription).await?;
    let mut ends: BTreeMap<i32, i64> =
        info.partitions.iter().map(|(number, span)| (*number, span.end)).collect();
    ends.retain(|number, end| *end > info.partitions[number].start);
    let take = |stretch: Stretch| {
        held.take_in(stretch.records);
        held.note_reached(stretch.partition, stretch.next_offset);
        ControlFlow::Continue(())
    };
    let more = read_up_to(&mut *source, ends, (&format!("topic {topic}"), READ_WITHIN), take).await?;
    Ok(more.then_some(source))
}

fn unread(topic: &str) -> Error {
    Error::retry(format!("topic {topic}"), format!("not read within {} s", READ_WITHIN.as_secs()))
}

/// Takes in what comes, for as long as there is something to read from.
async fn follow(mut source: Box<dyn Source>, held: Arc<Held>) {
    loop {
        match source.next().await {
            Ok(Some(SourceEvent::Batch(batch))) => {
                let (partition, next_offset) = (batch.partition, batch.next_offset());
                held.take_in(batch.records);
                held.note_reached(partition, next_offset);
            }
            Ok(Some(SourceEvent::CaughtUp { partition, next_offset })) => {
                held.note_reached(partition.partition, next_offset);
            }
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) if error.class() == Class::Retry => {
                tracing::debug!(error = %error.chain(), "the control topic is out of reach");
                sleep(REST).await;
            }
            Err(error) => {
                tracing::warn!(error = %error.chain(), "the control topic cannot be followed any more: 'pause' and 'resume' reach this process when it is started again");
                return;
            }
        }
    }
}
