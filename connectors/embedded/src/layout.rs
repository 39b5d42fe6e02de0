//! How the log lies in its file: a row per record, one table per topic, keyed by partition and offset in one
//! number, so that an append goes to the end of its partition and a read is one range scan.

use std::path::Path;

use millrace_sqlite_file::Database;
use rusqlite::{Connection, OptionalExtension};

use crate::compaction;

/// Offsets occupy the low bits of a position, the partition the rest.
const OFFSET_BITS: u32 = 40;

/// A topic may have this many partitions.
pub(crate) const PARTITIONS_MAX: u32 = 10_000;

const LOG_SCHEMA: &str = "
    -- Which log this is: progress names it.
    CREATE TABLE log(id INTEGER NOT NULL) STRICT;
    INSERT INTO log(id) VALUES (random());
    CREATE TABLE topics(
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        partitions INTEGER NOT NULL,
        retention_ms INTEGER,
        retention_bytes INTEGER,
        record_bytes_max INTEGER NOT NULL
    ) STRICT;
    -- The next offset is stored: it must not go back when the newest records are gone.
    CREATE TABLE partitions(
        topic INTEGER NOT NULL,
        partition INTEGER NOT NULL,
        start_offset INTEGER NOT NULL,
        next_offset INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (topic, partition)
    ) STRICT, WITHOUT ROWID;
";

/// A topic's row.
#[derive(Clone, Debug)]
pub(crate) struct TopicRow {
    pub(crate) id: i64,
    pub(crate) partitions: u32,
    pub(crate) retention_ms: Option<i64>,
    pub(crate) retention_bytes: Option<i64>,
    pub(crate) record_bytes_max: u32,
    /// Keeps the newest record of each key.
    pub(crate) compact: bool,
}

/// A partition's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartitionRow {
    pub(crate) partition: i32,
    pub(crate) start: i64,
    pub(crate) next: i64,
    /// Of keys, values and headers.
    pub(crate) bytes: i64,
}

/// The log's file in a folder.
pub(crate) fn log_database(folder: &Path) -> Database {
    let path = folder.join("log.db");
    Database {
        who: format!("embedded log {}", path.display()),
        path,
        part: "log",
        format: 1,
        schema: LOG_SCHEMA,
    }
}

/// The key of a record's row.
pub(crate) fn position(partition: i32, offset: i64) -> i64 {
    (i64::from(partition) << OFFSET_BITS) | offset
}

/// The offset in a row's key.
pub(crate) fn offset_of(position: i64) -> i64 {
    position & ((1 << OFFSET_BITS) - 1)
}

/// The table that holds a topic's records.
pub(crate) fn records_table(topic: i64) -> String {
    format!("records_{topic}")
}

/// The statements that make a topic's table, and a view for people who look into the file.
pub(crate) fn topic_schema(topic: i64, name: &str) -> String {
    let table = records_table(topic);
    let offset_mask = (1_i64 << OFFSET_BITS) - 1;
    format!(
        "CREATE TABLE {table}(
             position INTEGER PRIMARY KEY, timestamp_ms INTEGER NOT NULL, key BLOB, value BLOB, headers BLOB
         ) STRICT;
         CREATE VIEW \"topic/{name}\" AS SELECT
             position >> {OFFSET_BITS} AS \"partition\", position & {offset_mask} AS \"offset\", timestamp_ms,
             CAST(key AS TEXT) AS key, CAST(value AS TEXT) AS value
         FROM {table}"
    )
}

/// Which log the file is.
pub(crate) fn log_id(log: &Connection) -> rusqlite::Result<i64> {
    log.query_row("SELECT id FROM log", (), |row| row.get(0))
}

/// A topic by name.
pub(crate) fn topic_by_name(log: &Connection, name: &str) -> rusqlite::Result<Option<TopicRow>> {
    log.prepare_cached(
        "SELECT id, partitions, retention_ms, retention_bytes, record_bytes_max FROM topics WHERE name = ?",
    )?
    .query_row((name,), |row| {
        let id = row.get(0)?;
        Ok(TopicRow {
            id,
            compact: compaction::is_compacted(log, id)?,
            partitions: row.get(1)?,
            retention_ms: row.get(2)?,
            retention_bytes: row.get(3)?,
            record_bytes_max: row.get(4)?,
        })
    })
    .optional()
}

/// A topic's partitions, by number.
pub(crate) fn partitions_of(log: &Connection, topic: i64) -> rusqlite::Result<Vec<PartitionRow>> {
    log.prepare_cached(
        "SELECT partition, start_offset, next_offset, bytes FROM partitions WHERE topic = ? ORDER BY partition",
    )?
    .query_map((topic,), |row| {
        Ok(PartitionRow { partition: row.get(0)?, start: row.get(1)?, next: row.get(2)?, bytes: row.get(3)? })
    })?
    .collect()
}

/// Stores what an append or a trim changed.
pub(crate) fn store_partition(log: &Connection, topic: i64, row: &PartitionRow) -> rusqlite::Result<()> {
    log.prepare_cached(
        "UPDATE partitions SET start_offset = ?, next_offset = ?, bytes = ? WHERE topic = ? AND partition = ?",
    )?
    .execute((row.start, row.next, row.bytes, topic, row.partition))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_keep_partition_and_offset_apart() {
        let last = (1 << OFFSET_BITS) - 1;
        for (partition, offset) in [(0, 0), (1, 0), (3, 77), (9_999, last)] {
            let position = position(partition, offset);
            assert_eq!((position >> OFFSET_BITS, offset_of(position)), (i64::from(partition), offset));
        }
        assert!(position(1, last) < position(2, 0));
    }
}
