//! The states of steps: records of a compacted topic, appended within the transaction of the progress they belong
//! to. Where each lies stands in the metadata of the committed offset, so one read per step finds it.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use bytes::Bytes;
use millrace_core::{Error, Header, NewRecord, Position, Result, States};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
};
use tokio::time::{Duration, Instant};

use super::Owner;
use crate::{cluster::partition_count, context::Listener, error::of_call};

/// Begins the metadata of an offset, with its format.
const MARK: &str = "millrace-states:";
const FORMAT: &str = "1";
/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);
/// Bytes fetched ahead to read one record.
const PREFETCH_BYTES: usize = 1 << 20;

/// The group's progress in the partition, and the metadata beside it. Waits for transactions that are being decided.
pub fn committed(owner: &Owner) -> Result<(Option<i64>, String)> {
    let what = "cannot look up the group's progress";
    let call_error = |error: &KafkaError| of_call(&owner.clients.who, what, error);
    let Some(consumer) = owner.consumer.upgrade() else { return Err(owner.retry("the source has left")) };
    let mut list = TopicPartitionList::new();
    list.add_partition(&owner.partition.topic, owner.partition.partition);
    let answer = consumer
        .committed_offsets(list, owner.clients.options.request_timeout)
        .map_err(|error| call_error(&error))?;
    let element = answer.find_partition(&owner.partition.topic, owner.partition.partition);
    let Some(element) = element else { return Ok((None, String::new())) };
    element.error().map_err(|error| call_error(&error))?;
    Ok(match element.offset() {
        Offset::Offset(offset) => (Some(offset), element.metadata().to_owned()),
        _ => (None, String::new()),
    })
}

/// The metadata that tells where states lie: `millrace-states:1;sum=3/4711`.
pub fn metadata(pointers: &BTreeMap<Arc<str>, Position>) -> String {
    let mut text = String::new();
    if !pointers.is_empty() {
        text = format!("{MARK}{FORMAT}");
    }
    for (step, position) in pointers {
        let written = write!(text, ";{step}={}/{}", position.partition, position.offset);
        written.expect("invariant: a string takes all");
    }
    text
}

/// What the metadata tells; nothing where it is not ours.
///
/// # Errors
/// Fatal when it is of a newer format or was cut.
pub fn pointers(owner: &Owner, metadata: &str) -> Result<BTreeMap<Arc<str>, Position>> {
    let Some(told) = metadata.strip_prefix(MARK) else { return Ok(BTreeMap::new()) };
    let unreadable = || {
        let why =
            format!("the states of {} are told in a way this program does not know: {metadata}", owner.id());
        Error::fatal(&owner.clients.who, why)
    };
    let mut parts = told.split(';');
    if parts.next() != Some(FORMAT) {
        return Err(unreadable());
    }
    let pointer = |part: &str| {
        let (step, place) = part.split_once('=')?;
        let (partition, offset) = place.split_once('/')?;
        let position = Position { partition: partition.parse().ok()?, offset: offset.parse().ok()? };
        Some((Arc::from(step), position))
    };
    parts.map(|part| pointer(part).ok_or_else(unreadable)).collect()
}

/// A step's state, to be appended.
pub fn record(owner: &Owner, step: &str, state: Bytes, next_offset: i64) -> NewRecord {
    let header = |name: &str, value: String| Header { name: name.into(), value: Some(value.into()) };
    NewRecord {
        key: Some(key(owner, step).into()),
        value: Some(state),
        headers: vec![
            header("millrace-format", FORMAT.to_owned()),
            header("millrace-next-offset", next_offset.to_string()),
        ],
        ..NewRecord::default()
    }
}

fn key(owner: &Owner, step: &str) -> String {
    format!("{}/{step}", owner.id())
}

/// Reads the states where they lie.
///
/// # Errors
/// Fatal when one is not there: the topic was made anew.
pub fn read(owner: &Owner, pointers: &BTreeMap<Arc<str>, Position>) -> Result<States> {
    let mut states = States::new();
    for (step, position) in pointers {
        let state = read_one(owner, step, *position)?;
        states.insert(step.clone(), state);
    }
    Ok(states)
}

fn read_one(owner: &Owner, step: &str, position: Position) -> Result<Bytes> {
    let topic = owner.clients.state_topic();
    let what = format!("cannot read the state of step '{step}' from topic '{topic}'");
    let call_error = |error: &KafkaError| of_call(&owner.clients.who, &what, error);
    let config = owner.clients.consumer(None, PREFETCH_BYTES);
    let consumer: BaseConsumer<Listener> =
        BaseConsumer::from_config_and_context(&config, Listener::default())
            .map_err(|error| call_error(&error))?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, position.partition, Offset::Offset(position.offset))
        .and_then(|()| consumer.assign(&list))
        .map_err(|error| call_error(&error))?;
    let deadline = Instant::now() + owner.clients.options.request_timeout;
    while Instant::now() < deadline {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                let is_it =
                    message.offset() == position.offset && message.key() == Some(key(owner, step).as_bytes());
                return match message.payload().filter(|_| is_it) {
                    Some(state) => Ok(Bytes::copy_from_slice(state)),
                    None => Err(gone(owner, &what, position)),
                };
            }
            Some(Err(KafkaError::MessageConsumption(Code::OffsetOutOfRange | Code::AutoOffsetReset))) => {
                return Err(gone(owner, &what, position));
            }
            Some(Err(error)) => tracing::debug!(%error, "{what}"),
            None => {}
        }
    }
    if let Ok(None) = partition_count(&consumer, &topic, owner.clients.options.request_timeout) {
        return Err(gone(owner, &what, position));
    }
    let told = Error::retry(&owner.clients.who, what);
    Err(match consumer.context().reports.cause() {
        Some(cause) => told.with_source(cause),
        None => told,
    })
}

fn gone(owner: &Owner, what: &str, position: Position) -> Error {
    let why = format!(
        "{what}: it is not at offset {} of partition {} any more; put the topic back, or reset the progress of group \
         '{}' to count from there anew",
        position.offset, position.partition, owner.group
    );
    Error::fatal(&owner.clients.who, why)
}
