//! Dead letters: the original record, with where and why it failed in `millrace-*` headers.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use millrace_core::{
    Admin, Class, Error, Header, NewRecord, Origin, Producer, Result, TopicSpec, Transactor,
};
use tokio::sync::OnceCell;

use crate::{appender::Appender, letter_cap::LetterCap, pipeline::ModuleAbout};

/// The format number in `millrace-format`.
pub const FORMAT: &str = "1";

/// Room for the metadata beside a record of the greatest size.
const METADATA_BYTES_MAX: usize = 64 * 1024;

/// Where in a pipeline a record failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// It is no event.
    Decode,
    /// A SmartModule refused it.
    Step(Arc<str>),
    /// A lookup could not be made for it.
    Lookup(Arc<str>),
    /// A sink refused it.
    Sink(Arc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Decode => f.write_str("decode"),
            Place::Step(id) => write!(f, "step:{id}"),
            Place::Lookup(id) => write!(f, "lookup:{id}"),
            Place::Sink(id) => write!(f, "sink:{id}"),
        }
    }
}

/// One record that could not be processed. A record that fails in several places is one dead letter.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The record.
    pub origin: Arc<Origin>,
    /// Where it failed first.
    pub place: Place,
    /// The error's class; Reject but for records that a person gave up.
    pub class: Class,
    /// The chain of reasons.
    pub reason: String,
    /// Further places and reasons.
    pub more: Vec<(Place, String)>,
    /// The module at fault.
    pub module: Option<ModuleAbout>,
    /// How often it was tried.
    pub attempts: u32,
    /// How often it was replayed and failed again.
    pub replays: u32,
    /// When it failed first, ms since 1970.
    pub first_failed_ms: i64,
    /// When it failed last, ms since 1970.
    pub last_failed_ms: i64,
    /// It is too large for its topic as it is, and goes without key, value and headers.
    pub truncated: bool,
}

/// Writes the dead letters of one pipeline. The topic is created with the first one.
pub struct DeadLetterQueue {
    pipeline: Arc<str>,
    lane: Option<Arc<str>>,
    topic: TopicSpec,
    admin: Arc<dyn Admin>,
    appender: Appender,
    created: Arc<OnceCell<()>>,
    cap: Arc<Mutex<LetterCap>>,
}

impl DeadLetterQueue {
    /// The queue of `pipeline`. `topic` is what to create; its record size is raised by the metadata's.
    pub fn new(
        pipeline: Arc<str>,
        mut topic: TopicSpec,
        admin: Arc<dyn Admin>,
        producer: Arc<dyn Producer>,
    ) -> Self {
        topic.record_bytes_max += METADATA_BYTES_MAX;
        let (appender, created, cap) = (Appender::Log(producer), Arc::default(), Arc::default());
        DeadLetterQueue { pipeline, topic, admin, lane: None, appender, created, cap }
    }

    /// As the queue of the lane that feeds this sink alone.
    #[must_use]
    pub fn of_lane(self, sink: Arc<str>) -> Self {
        DeadLetterQueue { lane: Some(sink), ..self }
    }

    /// The same queue, appending within a worker's transaction.
    pub(crate) fn within(&self, transactor: &Arc<dyn Transactor>) -> Self {
        DeadLetterQueue {
            pipeline: self.pipeline.clone(),
            lane: self.lane.clone(),
            topic: self.topic.clone(),
            admin: self.admin.clone(),
            appender: Appender::Transaction(transactor.clone()),
            created: self.created.clone(),
            cap: self.cap.clone(),
        }
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic.name
    }

    /// How many were written lately, by all workers of the pipeline.
    pub(crate) fn cap(&self) -> MutexGuard<'_, LetterCap> {
        self.cap.lock().expect("invariant: nobody panics while holding the cap's lock")
    }

    /// Appends the letters and takes out those that are appended; to be called again while some are left.
    ///
    /// # Errors
    /// Retry when the broker is away; Fatal when it refuses. Without a transaction, letters are at least once: a
    /// call that is dropped, or an answer that is lost, has them appended again.
    pub async fn send(&self, letters: &mut Vec<DeadLetter>) -> Result<()> {
        self.created
            .get_or_try_init(|| async { self.admin.create_topic(&self.topic).await.map(drop) })
            .await?;
        while !letters.is_empty() {
            let records = letters.iter().map(|letter| self.record(letter)).collect();
            let mut answers = self.appender.append(&self.topic.name, records).await.into_iter();
            let mut failure = None;
            letters.retain_mut(|letter| match answers.next() {
                None | Some(Ok(())) => false,
                Some(Err(error)) if error.class() == Class::Reject && !letter.truncated => {
                    letter.truncated = true;
                    true
                }
                Some(Err(error)) => {
                    failure.get_or_insert(error);
                    true
                }
            });
            failure.map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    fn record(&self, letter: &DeadLetter) -> NewRecord {
        let (record, truncate) = (&letter.origin.record, letter.truncated);
        let mut fields = BTreeMap::from([
            ("millrace-format", FORMAT.to_owned()),
            ("millrace-origin-topic", record.topic.to_string()),
            ("millrace-origin-partition", record.partition.to_string()),
            ("millrace-origin-offset", record.offset.to_string()),
            ("millrace-origin-timestamp", record.timestamp_ms.to_string()),
            ("millrace-pipeline", self.pipeline.to_string()),
            ("millrace-place", letter.place.to_string()),
            ("millrace-class", letter.class.name().to_owned()),
            ("millrace-reason", letter.reason.clone()),
            ("millrace-attempts", letter.attempts.to_string()),
            ("millrace-first-failed-at", letter.first_failed_ms.to_string()),
            ("millrace-last-failed-at", letter.last_failed_ms.to_string()),
        ]);
        if let Some(sink) = &self.lane {
            fields.insert("millrace-lane", sink.to_string());
        }
        if letter.replays > 0 {
            fields.insert("millrace-replays", letter.replays.to_string());
        }
        if let Some(about) = &letter.module {
            fields.insert("millrace-module", about.module.to_string());
            fields.insert("millrace-module-sha256", about.digest.to_string());
        }
        if !letter.more.is_empty() {
            let more: Vec<_> = letter
                .more
                .iter()
                .take(8)
                .map(|(place, reason)| serde_json::json!({ "place": place.to_string(), "reason": reason }))
                .collect();
            fields.insert("millrace-more", serde_json::Value::from(more).to_string());
        }
        if truncate {
            let bytes = record.value.as_ref().map_or(0, Bytes::len);
            fields.insert("millrace-value-truncated", bytes.to_string());
        }
        let own =
            fields.into_iter().map(|(name, value)| Header { name: name.into(), value: Some(value.into()) });
        let kept = record.headers.iter().filter(|header| !truncate && !header.name.starts_with("millrace-"));
        NewRecord {
            key: if truncate { None } else { record.key.clone() },
            value: if truncate { Some(Bytes::new()) } else { record.value.clone() },
            headers: kept.cloned().chain(own).collect(),
            partition: None,
            source_offset: Some(record.offset),
        }
    }
}

/// The failures of a batch, one per record, in order of offset.
#[derive(Default)]
pub(crate) struct Failures {
    by_offset: BTreeMap<i64, DeadLetter>,
}

impl Failures {
    pub(crate) fn add(
        &mut self,
        origin: Arc<Origin>,
        place: Place,
        error: &Error,
        module: Option<&ModuleAbout>,
        now_ms: i64,
    ) {
        use std::collections::btree_map::Entry;
        match self.by_offset.entry(origin.record.offset) {
            Entry::Vacant(entry) => {
                entry.insert(DeadLetter {
                    origin,
                    place,
                    class: error.class(),
                    reason: error.chain(),
                    more: Vec::new(),
                    module: module.cloned(),
                    attempts: 1,
                    replays: 0,
                    first_failed_ms: now_ms,
                    last_failed_ms: now_ms,
                    truncated: false,
                });
            }
            Entry::Occupied(mut entry) => {
                let letter = entry.get_mut();
                letter.last_failed_ms = now_ms;
                let known = letter.place == place || letter.more.iter().any(|(p, _)| *p == place);
                if !known {
                    letter.more.push((place, error.chain()));
                }
            }
        }
    }

    pub(crate) fn take(&mut self) -> Vec<DeadLetter> {
        std::mem::take(&mut self.by_offset).into_values().collect()
    }
}
