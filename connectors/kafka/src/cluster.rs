//! Looking at the cluster: which topics there are and what their partitions hold. All calls block the thread.

use std::collections::BTreeMap;

use millrace_core::{Class, PartitionSpan, Result};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    metadata::MetadataTopic,
};
use tokio::time::{Duration, Instant};

use crate::{
    admin::is_read,
    client::Clients,
    context::Listener,
    error::{class_of, is_unknown_topic, of_call},
};

/// How long one attempt takes before we look whether the login was refused.
const ATTEMPT: Duration = Duration::from_secs(1);
/// How long an attempt that failed at once is rested.
const REST: Duration = Duration::from_millis(50);

/// A partition of any topic.
pub type Place = (String, i32);

/// A client for one administrative call. Clients that nobody polls pile up their log lines, so none is kept.
pub struct Observer {
    consumer: BaseConsumer<Listener>,
    who: String,
    deadline: Instant,
}

impl Observer {
    /// A client whose questions together may take one request's time.
    ///
    /// # Errors
    /// Fatal when librdkafka refuses the configuration.
    pub fn open(clients: &Clients, config: &ClientConfig) -> Result<Self> {
        let consumer = BaseConsumer::from_config_and_context(config, Listener::default())
            .map_err(|error| of_call(&clients.who, "cannot make a client", &error))?;
        let deadline = Instant::now() + clients.options.request_timeout;
        Ok(Observer { consumer, who: clients.who.clone(), deadline })
    }

    /// Asks until there is an answer, the time is over, or it is known that there will be none.
    ///
    /// # Errors
    /// Retry when the time is over, Fatal when the cluster refuses.
    pub fn ask<T>(
        &self,
        what: &str,
        mut question: impl FnMut(&BaseConsumer<Listener>, Duration) -> KafkaResult<T>,
    ) -> Result<T> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let error = match question(&self.consumer, left.min(ATTEMPT).max(REST)) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            self.serve_reports();
            let reports = &self.consumer.context().reports;
            if let Some(fatal) = reports.take_fatal(&self.who, what) {
                return Err(fatal);
            }
            let passes = error.rdkafka_error_code().is_some_and(|code| class_of(code) == Class::Retry);
            if !passes || left.is_zero() {
                let told = of_call(&self.who, what, &error);
                return Err(match reports.cause() {
                    Some(cause) if passes => told.with_source(cause),
                    _ => told,
                });
            }
        }
    }

    /// Takes in what librdkafka reported meanwhile. When all brokers are away it reports without end.
    fn serve_reports(&self) {
        let rested = Instant::now() + REST;
        while Instant::now() < rested {
            drop(self.consumer.poll(rested.saturating_duration_since(Instant::now())));
        }
    }

    /// How many partitions a topic has; none when it is not there.
    ///
    /// # Errors
    /// As [`Observer::ask`].
    pub fn partitions(&self, topic: &str) -> Result<Option<u32>> {
        let what = format!("cannot look up topic '{topic}'");
        self.ask(&what, |consumer, timeout| partition_count(consumer, topic, timeout))
    }

    /// Waits until a new topic is known with all its partitions led. Gives up in silence when the time is over:
    /// the topic is there.
    pub fn wait_for(&self, topic: &str, partitions: u32) {
        let ready = |consumer: &BaseConsumer<Listener>, timeout| {
            let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
            let led =
                metadata.topics().iter().flat_map(MetadataTopic::partitions).filter(|p| p.leader() >= 0);
            if led.count() == partitions as usize {
                Ok(())
            } else {
                Err(KafkaError::MetadataFetch(Code::LeaderNotAvailable))
            }
        };
        if let Err(error) = self.ask("the new topic is not ready", ready) {
            tracing::debug!(topic, error = error.chain(), "the new topic is not ready yet");
        }
    }

    /// All topics and their partitions, without those the brokers keep for themselves.
    ///
    /// # Errors
    /// As [`Observer::ask`].
    pub fn places(&self) -> Result<Vec<Place>> {
        self.ask("cannot list topics", |consumer, timeout| {
            let metadata = consumer.fetch_metadata(None, timeout)?;
            let topics = metadata.topics().iter().filter(|topic| !is_internal(topic.name()));
            Ok(topics.flat_map(places_of).collect())
        })
    }

    /// The offsets that partitions hold.
    ///
    /// # Errors
    /// As [`Observer::ask`].
    pub fn spans(&self, places: &[Place]) -> Result<BTreeMap<Place, PartitionSpan>> {
        self.ask("cannot look up offsets", |consumer, timeout| spans(consumer, places, timeout))
    }

    /// Of each partition the first offset of this time or later; its end where there is none.
    ///
    /// # Errors
    /// As [`Observer::ask`].
    pub fn offsets_at(&self, topic: &str, partitions: &[i32], at_ms: i64) -> Result<BTreeMap<i32, i64>> {
        let places: Vec<Place> = partitions.iter().map(|number| (topic.to_owned(), *number)).collect();
        // Negative ones are names of edges.
        let at = Offset::Offset(at_ms.max(0));
        self.ask("cannot look up offsets", |consumer, timeout| {
            let spans = spans(consumer, &places, timeout)?;
            let found = edges(consumer, &places, at, timeout)?;
            let of = |(place, span): (&Place, &PartitionSpan)| {
                (place.1, found.get(place).copied().unwrap_or(span.end))
            };
            Ok(spans.iter().map(of).collect())
        })
    }

    /// Sets the progress of this client's group.
    ///
    /// # Errors
    /// As [`Observer::ask`]; Fatal when the group has members.
    pub fn commit(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, next) in offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*next))
                .map_err(|error| of_call(&self.who, "cannot set the group's progress", &error))?;
        }
        let mut members = false;
        let committed = self.ask("cannot set the group's progress", |consumer, _| {
            let answer = consumer.commit(&list, CommitMode::Sync);
            let code = answer.as_ref().err().and_then(KafkaError::rdkafka_error_code);
            members = matches!(
                code,
                Some(Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress)
            );
            if members { Ok(()) } else { answer }
        });
        committed.and_then(|()| if members { Err(is_read(&self.who, group)) } else { Ok(()) })
    }

    /// The next offsets that this client's group has committed.
    ///
    /// # Errors
    /// As [`Observer::ask`].
    pub fn committed(&self, topic: &str, partitions: &[i32]) -> Result<BTreeMap<i32, i64>> {
        let what = "cannot look up the group's progress";
        self.ask(what, |consumer, timeout| committed(consumer, topic, partitions, timeout))
    }
}

/// Topics of the brokers' own, by name: the protocol's flag for them does not get through librdkafka.
fn is_internal(topic: &str) -> bool {
    topic.starts_with("__")
        || topic.starts_with("_redpanda")
        || topic.starts_with("_internal")
        || topic == "_schemas"
}

fn places_of(topic: &MetadataTopic) -> impl Iterator<Item = Place> {
    topic.partitions().iter().map(|partition| (topic.name().to_owned(), partition.id()))
}

/// How many partitions a topic has; none when it is not there.
pub fn partition_count<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    timeout: Duration,
) -> KafkaResult<Option<u32>> {
    let metadata = match consumer.fetch_metadata(Some(topic), timeout) {
        Err(KafkaError::MetadataFetch(code)) if is_unknown_topic(code) => return Ok(None),
        other => other?,
    };
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    let count = u32::try_from(found.partitions().len()).unwrap_or(u32::MAX);
    match found.error().map(Code::from) {
        Some(code) if is_unknown_topic(code) => Ok(None),
        Some(code) => Err(KafkaError::MetadataFetch(code)),
        None if count == 0 => Err(KafkaError::MetadataFetch(Code::LeaderNotAvailable)),
        None => Ok(Some(count)),
    }
}

/// The offsets that partitions hold, asked of each leader at once.
pub fn spans<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[Place],
    timeout: Duration,
) -> KafkaResult<BTreeMap<Place, PartitionSpan>> {
    let starts = edges(consumer, places, Offset::Beginning, timeout)?;
    let ends = edges(consumer, places, Offset::End, timeout)?;
    if starts.len() < places.len() {
        return Err(KafkaError::OffsetFetch(Code::OffsetNotAvailable));
    }
    let span = |(place, start): (Place, i64)| {
        let end = ends.get(&place).copied().unwrap_or(start).max(start);
        (place, PartitionSpan { start, end })
    };
    Ok(starts.into_iter().map(span).collect())
}

/// The first offsets of a time; places without one are absent. The protocol answers the numbers of "beginning" and
/// "end" as if they were times, for all partitions at once; librdkafka's call for watermarks takes one partition at
/// a time.
fn edges<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[Place],
    edge: Offset,
    timeout: Duration,
) -> KafkaResult<BTreeMap<Place, i64>> {
    if places.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::with_capacity(places.len());
    for (topic, partition) in places {
        list.add_partition_offset(topic, *partition, edge)?;
    }
    let answer = consumer.offsets_for_times(list, timeout)?;
    let mut edges = BTreeMap::new();
    for element in answer.elements() {
        element.error()?;
        let Offset::Offset(offset) = element.offset() else { continue };
        edges.insert((element.topic().to_owned(), element.partition()), offset);
    }
    Ok(edges)
}

/// The next offsets that the client's group has committed; partitions without one are absent.
pub fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> KafkaResult<BTreeMap<i32, i64>> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    let answer = consumer.committed_offsets(list, timeout)?;
    let mut committed = BTreeMap::new();
    for element in answer.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            committed.insert(element.partition(), offset);
        }
    }
    Ok(committed)
}
