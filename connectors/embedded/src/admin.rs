//! Topics and groups: made by the thread that appends, looked at over a connection of its own.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use millrace_core::{
    Admin, CreateOutcome, Error, PartitionSpan, Result, TopicInfo, TopicPartition, TopicSpec,
};
use millrace_sqlite_file::Failure;
use rusqlite::Connection;

use crate::{
    broker::Inner,
    compaction,
    layout::{
        PARTITIONS_MAX, TopicRow, log_id, offset_of, partitions_of, position, records_table, topic_by_name,
        topic_schema,
    },
    outputs::Owner,
    progress::{self, Setting},
};

/// A topic's name has at most this many bytes, as on Kafka.
const NAME_BYTES_MAX: usize = 249;

/// The largest record a topic can be made for, in bytes: SQLite's own bound is a thousand million.
const RECORD_BYTES_MAX: usize = 512 << 20;

/// Topics and groups of one folder.
pub(crate) struct LogAdmin {
    pub(crate) inner: Arc<Inner>,
}

#[async_trait]
impl Admin for LogAdmin {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<CreateOutcome> {
        check(spec)?;
        self.inner.writer().await?.create(spec.clone()).await
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        let topics = self.inner.read_log(|log| {
            let names: Vec<String> = log
                .prepare("SELECT name FROM topics ORDER BY name")?
                .query_map((), |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            names.iter().filter_map(|name| info(log, name).transpose()).collect()
        });
        Ok(topics.await?.unwrap_or_default())
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicInfo>> {
        let name = name.to_owned();
        Ok(self.inner.read_log(move |log| info(log, &name)).await?.flatten())
    }

    async fn progress(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let Some(log) = self.inner.read_log(|log| Ok(log_id(log)?)).await? else {
            return Ok(BTreeMap::new());
        };
        let (group, topic) = (group.to_owned(), topic.to_owned());
        let offsets =
            self.inner.read_progress(move |views| progress::committed(views, &group, &topic, log)).await?;
        Ok(offsets.unwrap_or_default())
    }

    async fn offsets_at(&self, topic: &str, at_ms: i64) -> Result<BTreeMap<i32, i64>> {
        let name = topic.to_owned();
        let found = self.inner.read_log(move |log| offsets_at(log, &name, at_ms)).await?.flatten();
        found.ok_or_else(|| missing(topic))
    }

    async fn set_progress(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        let log = self.inner.read_log(|log| Ok(log_id(log)?)).await?.ok_or_else(|| missing(topic))?;
        self.set(group, topic, offsets.keys(), Some((log, offsets.clone()))).await
    }

    async fn forget_progress(&self, group: &str, topic: &str) -> Result<()> {
        let known = self.progress(group, topic).await?;
        if known.is_empty() {
            return Ok(());
        }
        self.set(group, topic, known.keys(), None).await
    }
}

impl LogAdmin {
    /// The outputs first: where progress is set and this is not, outputs that are made again would be missing.
    async fn set(
        &self,
        group: &str,
        topic: &str,
        partitions: impl Iterator<Item = &i32>,
        offsets: Option<(i64, BTreeMap<i32, i64>)>,
    ) -> Result<()> {
        if self.inner.is_read(group, topic) {
            return Err(Error::fatal(
                format!("group {group}"),
                format!("somebody reads {topic} as this group"),
            ));
        }
        let writer = self.inner.writer().await?;
        for partition in partitions {
            let source = TopicPartition { topic: topic.into(), partition: *partition };
            writer.reset(Owner { group: group.to_owned(), source, holder: 0 }).await?;
        }
        let setting = Setting { group: group.to_owned(), topic: topic.to_owned(), offsets };
        self.inner.keeper().await?.set(setting).await
    }
}

fn missing(topic: &str) -> Error {
    Error::missing_topic("embedded log", topic)
}

/// Of each partition the first offset of this time or later, or its end; none where there is no such topic.
fn offsets_at(log: &Connection, name: &str, at_ms: i64) -> Result<Option<BTreeMap<i32, i64>>, Failure> {
    let Some(topic) = topic_by_name(log, name)? else { return Ok(None) };
    let mut find = log.prepare(&format!(
        "SELECT min(position) FROM {} WHERE position >= ? AND position < ? AND timestamp_ms >= ?",
        records_table(topic.id)
    ))?;
    let mut offsets = BTreeMap::new();
    for row in partitions_of(log, topic.id)? {
        let (from, to) = (position(row.partition, row.start), position(row.partition, row.next));
        let first: Option<i64> = find.query_row((from, to, at_ms), |found| found.get(0))?;
        offsets.insert(row.partition, first.map_or(row.next, offset_of));
    }
    Ok(Some(offsets))
}

/// Creates the topic within the transaction open on `log`.
pub(crate) fn create(log: &Connection, spec: &TopicSpec) -> rusqlite::Result<CreateOutcome> {
    if let Some(TopicRow { partitions, .. }) = topic_by_name(log, &spec.name)? {
        return Ok(CreateOutcome::Exists { partitions });
    }
    let bound = |value: Option<u64>| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX));
    log.execute(
        "INSERT INTO topics(name, partitions, retention_ms, retention_bytes, record_bytes_max)
         VALUES (?, ?, ?, ?, ?)",
        (
            &spec.name,
            spec.partitions,
            bound(spec.retention_ms),
            bound(spec.retention_bytes),
            bound(Some(spec.record_bytes_max as u64)),
        ),
    )?;
    let topic = log.last_insert_rowid();
    log.execute_batch(&topic_schema(topic, &spec.name))?;
    if spec.compact {
        log.execute_batch(&compaction::schema(topic))?;
    }
    let mut insert = log.prepare(
        "INSERT INTO partitions(topic, partition, start_offset, next_offset, bytes) VALUES (?, ?, 0, 0, 0)",
    )?;
    for partition in 0..spec.partitions {
        insert.execute((topic, partition))?;
    }
    Ok(CreateOutcome::Created)
}

fn check(spec: &TopicSpec) -> Result<()> {
    let refused = |why: String| Err(Error::fatal(format!("topic {}", spec.name.escape_debug()), why));
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let name = &spec.name;
    if name.is_empty()
        || name.len() > NAME_BYTES_MAX
        || !name.bytes().all(legal)
        || name == "."
        || name == ".."
    {
        return refused(format!("a name is 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' and '-'"));
    }
    if !(1..=PARTITIONS_MAX).contains(&spec.partitions) {
        return refused(format!(
            "{} partitions were asked for, 1 to {PARTITIONS_MAX} can be",
            spec.partitions
        ));
    }
    if !(1..=RECORD_BYTES_MAX).contains(&spec.record_bytes_max) {
        return refused(format!("records of up to {} bytes cannot be held", spec.record_bytes_max));
    }
    Ok(())
}

fn info(log: &Connection, name: &str) -> Result<Option<TopicInfo>, Failure> {
    let Some(topic) = topic_by_name(log, name)? else { return Ok(None) };
    let partitions = partitions_of(log, topic.id)?
        .into_iter()
        .map(|row| (row.partition, PartitionSpan { start: row.start, end: row.next }))
        .collect();
    Ok(Some(TopicInfo { name: name.to_owned(), partitions }))
}
