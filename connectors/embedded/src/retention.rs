//! Retention: the oldest records of a partition are removed in small steps, with appends and when idle, so
//! that nobody waits for it.

use rusqlite::Connection;

use crate::{
    compaction::{self, SIZE},
    layout::{
        PartitionRow, TopicRow, offset_of, partitions_of, position, records_table, store_partition,
        topic_by_name,
    },
};

/// Removes up to `rows_max` of the oldest records that are older than the topic keeps, or that lie beyond the
/// bytes it keeps, and the old tombstones of a compacted topic; updates the row, which the caller stores.
/// Returns how many it removed of one kind, so that `rows_max` tells of more.
pub(crate) fn trim(
    log: &Connection,
    topic: &TopicRow,
    partition: &mut PartitionRow,
    now_ms: i64,
    rows_max: usize,
) -> rusqlite::Result<usize> {
    let tombstones = match topic.compact {
        true => compaction::drop_tombstones(log, topic, partition, now_ms, rows_max)?,
        false => 0,
    };
    let oldest_ms = topic.retention_ms.map(|kept_ms| now_ms.saturating_sub(kept_ms));
    if oldest_ms.is_none() && topic.retention_bytes.is_none_or(|max| partition.bytes <= max) {
        return Ok(tombstones);
    }
    let table = records_table(topic.id);
    let (from, end) =
        (position(partition.partition, partition.start), position(partition.partition, partition.next));
    let mut heads = log.prepare_cached(&format!(
        "SELECT position, timestamp_ms, {SIZE}
         FROM {table} WHERE position >= ? AND position < ? ORDER BY position LIMIT ?"
    ))?;
    let mut rows = heads.query((from, end, i64::try_from(rows_max).unwrap_or(i64::MAX)))?;
    let (mut cut, mut bytes, mut removed) = (partition.start, partition.bytes, 0);
    while let Some(row) = rows.next()? {
        let (at, timestamp_ms, size): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let expired = oldest_ms.is_some_and(|oldest| timestamp_ms < oldest);
        let beyond = topic.retention_bytes.is_some_and(|max| bytes > max);
        if !expired && !beyond {
            break;
        }
        cut = offset_of(at) + 1;
        bytes = (bytes - size).max(0);
        removed += 1;
    }
    drop(rows);
    if removed > 0 {
        log.prepare_cached(&format!("DELETE FROM {table} WHERE position >= ? AND position < ?"))?
            .execute((from, position(partition.partition, cut)))?;
        partition.start = cut;
        partition.bytes = bytes;
    }
    Ok(removed.max(tombstones))
}

/// Trims all topics, each partition by `rows_max` at most. Returns whether one of them may have more to trim.
pub(crate) fn trim_all(log: &Connection, now_ms: i64, rows_max: usize) -> rusqlite::Result<bool> {
    let names: Vec<String> = log
        .prepare_cached(
            "SELECT name FROM topics WHERE retention_ms IS NOT NULL OR retention_bytes IS NOT NULL
                 OR 'records_' || id || '_key' IN (SELECT name FROM sqlite_schema WHERE type = 'index')",
        )?
        .query_map((), |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut more = false;
    for name in names {
        let Some(topic) = topic_by_name(log, &name)? else { continue };
        for mut partition in partitions_of(log, topic.id)? {
            let removed = trim(log, &topic, &mut partition, now_ms, rows_max)?;
            if removed > 0 {
                store_partition(log, topic.id, &partition)?;
            }
            more |= removed >= rows_max;
        }
    }
    Ok(more)
}
