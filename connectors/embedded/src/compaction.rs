//! Compaction: a topic that keeps the newest record of each key loses the older one with the append that
//! supersedes it, and a tombstone a day later. The index by key that this needs is also what marks the topic.

use rusqlite::Connection;

use crate::layout::{PartitionRow, TopicRow, position, records_table};

/// How long a tombstone stays for readers that follow the topic, as on Kafka.
const TOMBSTONES_KEPT_MS: i64 = 86_400_000;

/// The statements that mark a topic.
pub(crate) fn schema(topic: i64) -> String {
    let table = records_table(topic);
    format!(
        "CREATE INDEX {table}_key ON {table}(key);
         CREATE INDEX {table}_tombstones ON {table}(timestamp_ms) WHERE value IS NULL"
    )
}

/// Whether a topic is marked.
pub(crate) fn is_compacted(log: &Connection, topic: i64) -> rusqlite::Result<bool> {
    log.prepare_cached("SELECT EXISTS(SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = ?)")?
        .query_row((format!("{}_key", records_table(topic)),), |row| row.get(0))
}

/// Removes what the record at `offset` supersedes; updates the row, which the caller stores.
pub(crate) fn supersede(
    log: &Connection,
    topic: &TopicRow,
    partition: &mut PartitionRow,
    key: &[u8],
    offset: i64,
) -> rusqlite::Result<()> {
    let number = partition.partition;
    let removed = log
        .prepare_cached(&format!(
            "DELETE FROM {} WHERE key = ? AND position >= ? AND position < ? RETURNING {SIZE}",
            records_table(topic.id)
        ))?
        .query_map((key, position(number, 0), position(number, offset)), |row| row.get::<_, i64>(0))?
        .sum::<rusqlite::Result<i64>>()?;
    partition.bytes = (partition.bytes - removed).max(0);
    Ok(())
}

/// Removes tombstones that every follower has had the time to see. Returns how many.
pub(crate) fn drop_tombstones(
    log: &Connection,
    topic: &TopicRow,
    partition: &mut PartitionRow,
    now_ms: i64,
    rows_max: usize,
) -> rusqlite::Result<usize> {
    let table = records_table(topic.id);
    let (from, end) = (position(partition.partition, 0), position(partition.partition, partition.next));
    let sizes: Vec<i64> = log
        .prepare_cached(&format!(
            "DELETE FROM {table} WHERE position IN (
                 SELECT position FROM {table}
                 WHERE value IS NULL AND timestamp_ms < ? AND position >= ? AND position < ? LIMIT ?
             ) RETURNING {SIZE}"
        ))?
        .query_map(
            (
                now_ms.saturating_sub(TOMBSTONES_KEPT_MS),
                from,
                end,
                i64::try_from(rows_max).unwrap_or(i64::MAX),
            ),
            |row| row.get(0),
        )?
        .collect::<rusqlite::Result<_>>()?;
    partition.bytes = (partition.bytes - sizes.iter().sum::<i64>()).max(0);
    Ok(sizes.len())
}

/// The bytes of a row.
pub(crate) const SIZE: &str =
    "ifnull(length(key), 0) + ifnull(length(value), 0) + ifnull(length(headers), 0)";
