//! Dead letters: the original record, with where and why it failed in `millrace-*` headers.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use millrace_core::{Admin, Class, Error, Header, NewRecord, Origin, Producer, Result, TopicSpec};
use tokio::sync::OnceCell;

use crate::pipeline::ModuleAbout;

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
    /// When it failed first, ms since 1970.
    pub first_failed_ms: i64,
    /// When it failed last, ms since 1970.
    pub last_failed_ms: i64,
}

/// Writes the dead letters of one pipeline. The topic is created with the first one.
pub struct DeadLetterQueue {
    pipeline: Arc<str>,
    topic: TopicSpec,
    admin: Arc<dyn Admin>,
    producer: Arc<dyn Producer>,
    created: OnceCell<()>,
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
        DeadLetterQueue { pipeline, topic, admin, producer, created: OnceCell::new() }
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic.name
    }

    /// Appends all, or says why not; to be called again with the ones that failed.
    ///
    /// # Errors
    /// Retry when the broker is away; Fatal when it refuses. Letters that were appended before an error are
    /// appended again by the next try: dead letters are at least once.
    pub async fn send(&self, letters: &[DeadLetter]) -> Result<()> {
        self.created
            .get_or_try_init(|| async { self.admin.create_topic(&self.topic).await.map(drop) })
            .await?;
        let records = letters.iter().map(|letter| self.record(letter, false)).collect();
        let answers = self.producer.send(&self.topic.name, records).await;
        let mut truncated = Vec::new();
        for (letter, answer) in letters.iter().zip(answers) {
            match answer {
                Ok(_) => {}
                Err(error) if error.class() == Class::Reject => truncated.push(self.record(letter, true)),
                Err(error) => return Err(error),
            }
        }
        for answer in self.producer.send(&self.topic.name, truncated).await {
            answer?;
        }
        Ok(())
    }

    fn record(&self, letter: &DeadLetter, truncate: bool) -> NewRecord {
        let record = &letter.origin.record;
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
                    first_failed_ms: now_ms,
                    last_failed_ms: now_ms,
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
