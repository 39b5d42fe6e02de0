//! Topics and groups.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use millrace_core::{Admin, CreateOutcome, Error, PartitionSpan, Result, TopicInfo, TopicSpec};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    config::FromClientConfigAndContext,
    error::RDKafkaErrorCode as Code,
};
use tokio::task::spawn_blocking;

use crate::{
    client::{BATCH_OVERHEAD_BYTES, Clients},
    cluster::{Observer, Place},
    context::Listener,
    error::{self, of_call},
};

const DAY_MS: u64 = 86_400_000;

/// How long a segment of a compacted topic grows: only closed ones are compacted.
const COMPACTED_SEGMENT_MS: u64 = 600_000;

/// Of the topic of states.
const STATE_PARTITIONS: u32 = 8;

/// The administration of one cluster. Each call has a client of its own.
pub struct KafkaAdmin {
    clients: Arc<Clients>,
}

impl KafkaAdmin {
    /// The administration of the broker that these clients are of.
    pub fn new(clients: Arc<Clients>) -> Self {
        KafkaAdmin { clients }
    }

    async fn partitions(&self, topic: &str) -> Result<Option<u32>> {
        let (clients, topic) = (self.clients.clone(), topic.to_owned());
        blocking(&self.clients, move || Observer::open(&clients, &clients.observer())?.partitions(&topic))
            .await
    }

    async fn wait_for(&self, topic: &str, partitions: u32) -> Result<()> {
        let (clients, topic) = (self.clients.clone(), topic.to_owned());
        blocking(&self.clients, move || {
            Observer::open(&clients, &clients.observer())?.wait_for(&topic, partitions);
            Ok(())
        })
        .await
    }

    fn client(&self) -> Result<AdminClient<Listener>> {
        AdminClient::from_config_and_context(&self.clients.observer(), Listener::default())
            .map_err(|error| of_call(&self.clients.who, "cannot make a client", &error))
    }

    fn options(&self) -> AdminOptions {
        let timeout = self.clients.options.request_timeout;
        AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout))
    }

    /// The most bytes a batch of a topic may have; none where we may not ask.
    ///
    /// # Errors
    /// Fatal when the topic does not exist; Retry when the broker is away.
    pub async fn batch_bytes_max(&self, topic: &str) -> Result<Option<u64>> {
        if self.partitions(topic).await?.is_none() {
            return Err(Error::missing_topic(&self.clients.who, topic));
        }
        let client = self.client()?;
        let answer = client.describe_configs([&ResourceSpecifier::Topic(topic)], &self.options()).await;
        dispose(client);
        let limit = match answer {
            Ok(resources) => {
                resources.into_iter().next().and_then(std::result::Result::ok).and_then(|resource| {
                    resource.get("max.message.bytes").and_then(|entry| entry.value.as_ref()?.parse().ok())
                })
            }
            Err(error) => {
                tracing::debug!(topic, %error, "the topic's limits are not known");
                None
            }
        };
        Ok(limit)
    }
}

impl KafkaAdmin {
    /// Makes the topic of states, unless it is there.
    ///
    /// # Errors
    /// As [`Admin::create_topic`].
    pub async fn create_state_topic(&self) -> Result<()> {
        let spec = TopicSpec {
            name: self.clients.state_topic(),
            partitions: STATE_PARTITIONS,
            retention_ms: None,
            retention_bytes: None,
            record_bytes_max: usize::try_from(self.clients.options.record_bytes_max).unwrap_or(usize::MAX),
            replication: None,
            compact: true,
        };
        self.create_topic(&spec).await.map(drop)
    }
}

#[async_trait]
impl Admin for KafkaAdmin {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<CreateOutcome> {
        if let Some(partitions) = self.partitions(&spec.name).await? {
            return Ok(CreateOutcome::Exists { partitions });
        }
        let what = format!("cannot create topic '{}'", spec.name);
        let config = topic_config(spec);
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        // -1 is the broker's default.
        let replication = TopicReplication::Fixed(spec.replication.map_or(-1, i32::from));
        let mut topic = NewTopic::new(&spec.name, partitions, replication);
        for (key, value) in &config {
            topic = topic.set(key, value);
        }
        let client = self.client()?;
        let answer = client.create_topics([&topic], &self.options()).await;
        dispose(client);
        let answers = answer.map_err(|error| of_call(&self.clients.who, &what, &error))?;
        match answers.into_iter().next() {
            Some(Err((_, Code::TopicAlreadyExists))) => {
                self.wait_for(&spec.name, spec.partitions).await?;
                let partitions = self.partitions(&spec.name).await?.unwrap_or(spec.partitions);
                Ok(CreateOutcome::Exists { partitions })
            }
            Some(Err((_, code))) => Err(error::error(&self.clients.who, &what, code, "")),
            Some(Ok(_)) | None => {
                self.wait_for(&spec.name, spec.partitions).await?;
                Ok(CreateOutcome::Created)
            }
        }
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        let clients = self.clients.clone();
        blocking(&self.clients, move || {
            let observer = Observer::open(&clients, &clients.observer())?;
            let places = observer.places()?;
            Ok(topic_infos(observer.spans(&places)?))
        })
        .await
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicInfo>> {
        let (clients, name) = (self.clients.clone(), name.to_owned());
        blocking(&self.clients, move || {
            let observer = Observer::open(&clients, &clients.observer())?;
            let Some(count) = observer.partitions(&name)? else { return Ok(None) };
            let places: Vec<Place> = numbers(count).map(|partition| (name.clone(), partition)).collect();
            Ok(topic_infos(observer.spans(&places)?).pop())
        })
        .await
    }

    async fn progress(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let (clients, group, topic) = (self.clients.clone(), group.to_owned(), topic.to_owned());
        blocking(&self.clients, move || {
            let observer = Observer::open(&clients, &clients.group_observer(&group))?;
            let Some(count) = observer.partitions(&topic)? else { return Ok(BTreeMap::new()) };
            observer.committed(&topic, &numbers(count).collect::<Vec<_>>())
        })
        .await
    }

    async fn offsets_at(&self, topic: &str, at_ms: i64) -> Result<BTreeMap<i32, i64>> {
        let (clients, topic) = (self.clients.clone(), topic.to_owned());
        blocking(&self.clients, move || {
            let observer = Observer::open(&clients, &clients.observer())?;
            let count = observer.partitions(&topic)?;
            let count = count.ok_or_else(|| Error::missing_topic(&clients.who, &topic))?;
            observer.offsets_at(&topic, &numbers(count).collect::<Vec<_>>(), at_ms)
        })
        .await
    }

    /// Commits without being a member, which the cluster takes only while there is none. Without metadata, so that no
    /// states of steps belong to it.
    async fn set_progress(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        let (clients, group, topic) = (self.clients.clone(), group.to_owned(), topic.to_owned());
        let offsets = offsets.clone();
        blocking(&self.clients, move || {
            Observer::open(&clients, &clients.group_observer(&group))?.commit(&group, &topic, &offsets)
        })
        .await
    }

    /// A group of ours reads one topic, so it goes as a whole.
    async fn forget_progress(&self, group: &str, _topic: &str) -> Result<()> {
        let name = self.clients.group_name(group);
        let what = format!("cannot delete group '{name}'");
        let client = self.client()?;
        let answer = client.delete_groups(&[&name], &self.options()).await;
        dispose(client);
        let answers = answer.map_err(|error| of_call(&self.clients.who, &what, &error))?;
        match answers.into_iter().next() {
            Some(Err((_, Code::GroupIdNotFound))) | Some(Ok(_)) | None => Ok(()),
            Some(Err((_, Code::NonEmptyGroup))) => Err(is_read(&self.clients.who, group)),
            Some(Err((_, code))) => Err(error::error(&self.clients.who, &what, code, "")),
        }
    }
}

/// What a call comes to that needs a group without members.
pub fn is_read(who: &str, group: &str) -> Error {
    Error::fatal(who, format!("somebody reads as group {group}"))
}

/// Runs a call that blocks.
async fn blocking<T: Send + 'static>(
    clients: &Clients,
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let interrupted = |error| Error::retry(&clients.who, "the call was interrupted").with_source(error);
    spawn_blocking(call).await.map_err(interrupted)?
}

/// Ends a client where it may wait for its thread.
fn dispose<T: Send + 'static>(client: T) {
    drop(spawn_blocking(move || drop(client)));
}

fn numbers(count: u32) -> impl Iterator<Item = i32> {
    0..i32::try_from(count).unwrap_or(i32::MAX)
}

fn topic_infos(spans: BTreeMap<Place, PartitionSpan>) -> Vec<TopicInfo> {
    let mut infos: Vec<TopicInfo> = Vec::new();
    for ((name, partition), span) in spans {
        match infos.last_mut() {
            Some(info) if info.name == name => {
                info.partitions.insert(partition, span);
            }
            _ => infos.push(TopicInfo { name, partitions: BTreeMap::from([(partition, span)]) }),
        }
    }
    infos
}

/// A topic's own settings. Records leave the log a segment at a time, so a segment is no longer than the
/// retention.
fn topic_config(spec: &TopicSpec) -> Vec<(&'static str, String)> {
    let batch_bytes = (spec.record_bytes_max as u64 + BATCH_OVERHEAD_BYTES).min(i32::MAX as u64);
    let mut config = vec![("max.message.bytes", batch_bytes.to_string())];
    if let Some(retention_ms) = spec.retention_ms {
        config.push(("retention.ms", retention_ms.min(i64::MAX as u64).to_string()));
        config.push(("segment.ms", retention_ms.clamp(1, DAY_MS).to_string()));
    }
    if let Some(retention_bytes) = spec.retention_bytes {
        config.push(("retention.bytes", retention_bytes.min(i64::MAX as u64).to_string()));
    }
    if spec.compact {
        config.push(("cleanup.policy", "compact".into()));
        config.push(("delete.retention.ms", DAY_MS.to_string()));
        config.push(("segment.ms", COMPACTED_SEGMENT_MS.to_string()));
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_no_longer_than_the_retention() {
        let spec = |retention_ms| TopicSpec {
            name: "t".into(),
            partitions: 1,
            retention_ms,
            retention_bytes: Some(1 << 30),
            record_bytes_max: 1 << 20,
            replication: None,
            compact: false,
        };
        let config = |retention_ms| topic_config(&spec(retention_ms));
        let week = config(Some(7 * DAY_MS));
        assert!(week.contains(&("retention.ms", "604800000".into())));
        assert!(week.contains(&("segment.ms", "86400000".into())));
        assert!(week.contains(&("retention.bytes", "1073741824".into())));
        assert!(week.contains(&("max.message.bytes", "1049600".into())));
        assert!(config(Some(60_000)).contains(&("segment.ms", "60000".into())));
        assert!(!config(None).iter().any(|(key, _)| key.ends_with(".ms")));
    }

    #[test]
    fn a_compacted_topic_closes_its_segments() {
        let config = topic_config(&TopicSpec {
            name: "t".into(),
            partitions: 1,
            retention_ms: None,
            retention_bytes: None,
            record_bytes_max: 1 << 20,
            replication: None,
            compact: true,
        });
        assert!(config.contains(&("cleanup.policy", "compact".into())));
        assert!(config.contains(&("segment.ms", "600000".into())));
    }
}
