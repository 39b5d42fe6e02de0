//! Appending within one transaction: which partition, which offset, and what is refused. The transaction may
//! hold the records of many senders.

use std::collections::HashMap;

use bytes::Bytes;
use millrace_core::{Class, Error, NewRecord, Position, Result, partition_for_key};
use rusqlite::{CachedStatement, Connection};

use crate::{
    compaction, headers,
    layout::{
        PartitionRow, TopicRow, partitions_of, position, records_table, store_partition, topic_by_name,
    },
    retention,
};

/// Rows that a trim removes at most, beside two for each row appended.
const TRIM_ROWS: usize = 200;

/// What one transaction appends. Rows of topics and partitions are read once; the partitions are stored at
/// the end.
pub(crate) struct Appends<'t> {
    log: &'t Connection,
    now_ms: i64,
    /// Counts records without a key: they go to the partitions in turn.
    keyless: &'t mut u32,
    topics: HashMap<String, Option<Tails>>,
}

/// A topic and the ends of its partitions, as this transaction leaves them.
struct Tails {
    row: TopicRow,
    partitions: Vec<PartitionRow>,
    appended: Vec<usize>,
}

impl<'t> Appends<'t> {
    /// Appends into the transaction open on `log`.
    pub(crate) fn new(log: &'t Connection, now_ms: i64, keyless: &'t mut u32) -> Self {
        Appends { log, now_ms, keyless, topics: HashMap::new() }
    }

    /// Appends the records of one sender, in order, and answers for each.
    pub(crate) fn append(
        &mut self,
        topic: &str,
        records: &[NewRecord],
    ) -> rusqlite::Result<Vec<Result<Position>>> {
        if !self.topics.contains_key(topic) {
            let tails = match topic_by_name(self.log, topic)? {
                None => None,
                Some(row) => {
                    let partitions = partitions_of(self.log, row.id)?;
                    Some(Tails { row, appended: vec![0; partitions.len()], partitions })
                }
            };
            self.topics.insert(topic.to_owned(), tails);
        }
        let Some(Some(tails)) = self.topics.get_mut(topic) else {
            let missing = |_| Err(Error::missing_topic("embedded log", topic));
            return Ok(records.iter().map(missing).collect());
        };
        let mut insert = self.log.prepare_cached(&format!(
            "INSERT INTO {}(position, timestamp_ms, key, value, headers) VALUES (?, ?, ?, ?, ?)",
            records_table(tails.row.id)
        ))?;
        let mut answers = Vec::with_capacity(records.len());
        for record in records {
            answers.push(match tails.place(topic, record, self.keyless) {
                Err(error) => Err(error),
                Ok((index, bytes)) => {
                    let position = tails.put(&mut insert, index, record, bytes, self.now_ms)?;
                    if let Some(key) = record.key.as_ref().filter(|_| tails.row.compact) {
                        let partition = &mut tails.partitions[index];
                        compaction::supersede(self.log, &tails.row, partition, key, position.offset)?;
                    }
                    Ok(position)
                }
            });
        }
        Ok(answers)
    }

    /// Trims the heads of the partitions that grew, by twice as much as they grew at most, and stores all.
    pub(crate) fn finish(self) -> rusqlite::Result<()> {
        for tails in self.topics.into_values().flatten() {
            for (mut partition, appended) in tails.partitions.into_iter().zip(tails.appended) {
                if appended > 0 {
                    let rows_max = 2 * appended + TRIM_ROWS;
                    retention::trim(self.log, &tails.row, &mut partition, self.now_ms, rows_max)?;
                    store_partition(self.log, tails.row.id, &partition)?;
                }
            }
        }
        Ok(())
    }
}

/// The bytes of a record that the topic takes.
///
/// # Errors
/// Reject when it never takes it.
pub(crate) fn accept(topic: &str, row: &TopicRow, record: &NewRecord) -> Result<usize> {
    let bytes = record.key.as_ref().map_or(0, Bytes::len)
        + record.value.as_ref().map_or(0, Bytes::len)
        + headers::size_bytes(&record.headers);
    let refused = |why: String| Err(Error::reject(format!("topic {topic}"), why));
    if bytes > row.record_bytes_max as usize {
        return refused(format!(
            "the record has {bytes} bytes, at most {} are accepted",
            row.record_bytes_max
        ));
    }
    if row.compact && record.key.is_none() {
        return refused("is compacted: it takes records with a key only".to_owned());
    }
    Ok(bytes)
}

impl Tails {
    /// The partition's place in the list, and the record's bytes.
    fn place(&self, topic: &str, record: &NewRecord, keyless: &mut u32) -> Result<(usize, usize)> {
        let bytes = accept(topic, &self.row, record)?;
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) => u32::try_from(partition).ok().filter(|p| *p < self.row.partitions),
            (None, Some(key)) => Some(partition_for_key(key, self.row.partitions)),
            (None, None) => {
                *keyless = keyless.wrapping_add(1);
                Some(*keyless % self.row.partitions.max(1))
            }
        };
        let index = partition.and_then(|p| usize::try_from(p).ok()).filter(|i| *i < self.partitions.len());
        let index = index.ok_or_else(|| {
            let why = format!("has no partition {}", record.partition.unwrap_or_default());
            Error::new(Class::Reject, format!("topic {topic}"), why)
        })?;
        Ok((index, bytes))
    }

    fn put(
        &mut self,
        insert: &mut CachedStatement<'_>,
        index: usize,
        record: &NewRecord,
        bytes: usize,
        now_ms: i64,
    ) -> rusqlite::Result<Position> {
        let partition = &mut self.partitions[index];
        let offset = partition.next;
        insert.execute((
            position(partition.partition, offset),
            now_ms,
            record.key.as_deref(),
            record.value.as_deref(),
            headers::encode(&record.headers),
        ))?;
        partition.next += 1;
        partition.bytes += i64::try_from(bytes).unwrap_or(i64::MAX);
        self.appended[index] += 1;
        Ok(Position { partition: partition.partition, offset })
    }
}
