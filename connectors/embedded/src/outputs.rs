//! What pipelines append to the log they read, each record once: beside the topics the log keeps up to which
//! offset of its source a pipeline's outputs are in them, and what is held back until its batch is done.
//!
//! Progress lies in another file, so the two are not on the disk together; what a worker appends again after a
//! crash in between is recognised here by the offset it was made of.

use std::{collections::HashMap, path::Path, sync::Arc};

use bytes::Bytes;
use millrace_core::{Error, NewRecord, TopicPartition};
use millrace_sqlite_file::{Database, Failure};
use rusqlite::{Connection, OptionalExtension};

use crate::{append::Appends, headers, layout::log_database};

const SCHEMA: &str = "
    -- Outputs made of records below next_offset are in the topic.
    CREATE TABLE outputs_applied(
        consumer_group TEXT NOT NULL,
        source TEXT NOT NULL,
        source_partition INTEGER NOT NULL,
        topic TEXT NOT NULL,
        next_offset INTEGER NOT NULL,
        PRIMARY KEY (consumer_group, source, source_partition, topic)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE outputs_held(
        id INTEGER PRIMARY KEY,
        consumer_group TEXT NOT NULL,
        source TEXT NOT NULL,
        source_partition INTEGER NOT NULL,
        -- Which of the owner's transactors: a former one may come late.
        holder INTEGER NOT NULL,
        topic TEXT NOT NULL,
        partition INTEGER,
        source_offset INTEGER,
        key BLOB, value BLOB, headers BLOB
    ) STRICT;
";

/// For whom outputs are: a group, and a partition it reads.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) group: String,
    pub(crate) source: TopicPartition,
    /// Unique among the transactors of the owner in this process.
    pub(crate) holder: i64,
}

/// Outputs of one batch, by topic, in their order.
pub(crate) type Outputs = Vec<(Arc<str>, NewRecord)>;

/// The part of the log's file that this is.
pub(crate) fn outputs_database(folder: &Path) -> Database {
    Database { part: "outputs", format: 1, schema: SCHEMA, ..log_database(folder) }
}

/// Holds outputs back, within the transaction open on `log`.
pub(crate) fn hold(log: &Connection, owner: &Owner, outputs: &Outputs) -> rusqlite::Result<()> {
    let mut insert = log.prepare_cached(
        "INSERT INTO outputs_held(consumer_group, source, source_partition, holder, topic, partition, source_offset,
             key, value, headers) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    for (topic, record) in outputs {
        insert.execute((
            &owner.group,
            &*owner.source.topic,
            owner.source.partition,
            owner.holder,
            &**topic,
            record.partition,
            record.source_offset,
            record.key.as_deref(),
            record.value.as_deref(),
            headers::encode(&record.headers),
        ))?;
    }
    Ok(())
}

/// Forgets what is held back by this holder, or by whomever.
pub(crate) fn forget(log: &Connection, owner: &Owner, whoever: bool) -> rusqlite::Result<()> {
    log.prepare_cached(
        "DELETE FROM outputs_held
         WHERE consumer_group = ? AND source = ? AND source_partition = ? AND (holder = ? OR ?)",
    )?
    .execute((&owner.group, &*owner.source.topic, owner.source.partition, owner.holder, whoever))?;
    Ok(())
}

/// Forgets which outputs are in their topics, so that they are appended anew when they are made again.
pub(crate) fn reset(log: &Connection, owner: &Owner) -> rusqlite::Result<()> {
    log.prepare_cached(
        "DELETE FROM outputs_applied WHERE consumer_group = ? AND source = ? AND source_partition = ?",
    )?
    .execute((&owner.group, &*owner.source.topic, owner.source.partition))?;
    forget(log, owner, true)
}

/// Appends what is held back and then `outputs`, but for what is there already, and notes that all below
/// `next_offset` is.
pub(crate) fn apply(
    log: &Connection,
    appends: &mut Appends<'_>,
    owner: &Owner,
    outputs: &Outputs,
    next_offset: i64,
) -> Result<(), Failure> {
    let mut applying = Applying { log, appends, owner, applied: HashMap::new() };
    let mut held = log.prepare_cached(
        "SELECT topic, partition, source_offset, key, value, headers FROM outputs_held
         WHERE consumer_group = ? AND source = ? AND source_partition = ? AND holder = ? ORDER BY id",
    )?;
    let mut rows = held.query((&owner.group, &*owner.source.topic, owner.source.partition, owner.holder))?;
    while let Some(row) = rows.next()? {
        let bytes = |index| row.get::<_, Option<Vec<u8>>>(index).map(|bytes| bytes.map(Bytes::from));
        let record = NewRecord {
            partition: row.get(1)?,
            source_offset: row.get(2)?,
            key: bytes(3)?,
            value: bytes(4)?,
            headers: bytes(5)?
                .and_then(|blob| headers::decode(&blob))
                .map_or_else(Vec::new, |all| all.to_vec()),
        };
        applying.append(&row.get::<_, String>(0)?, &record)?;
    }
    for (topic, record) in outputs {
        applying.append(topic, record)?;
    }
    let applied = applying.applied;
    forget(log, owner, false)?;
    let mut note = log.prepare_cached(
        "INSERT INTO outputs_applied(consumer_group, source, source_partition, topic, next_offset)
         VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET next_offset = max(next_offset, excluded.next_offset)",
    )?;
    for topic in applied.into_keys() {
        note.execute((&owner.group, &*owner.source.topic, owner.source.partition, topic, next_offset))?;
    }
    Ok(())
}

struct Applying<'a, 't> {
    log: &'a Connection,
    appends: &'a mut Appends<'t>,
    owner: &'a Owner,
    /// By topic, as it was before.
    applied: HashMap<String, i64>,
}

impl Applying<'_, '_> {
    fn append(&mut self, topic: &str, record: &NewRecord) -> Result<(), Failure> {
        let applied = match self.applied.get(topic) {
            Some(applied) => *applied,
            None => {
                let applied = self.applied_to(topic)?;
                self.applied.insert(topic.to_owned(), applied);
                applied
            }
        };
        if record.source_offset.is_some_and(|offset| offset < applied) {
            return Ok(());
        }
        let answers = self.appends.append(topic, std::slice::from_ref(record))?;
        // Looked at when it was sent, so it is none of the record's doing.
        let refused = |error: Error| Failure::new(error.class(), error.chain()).never_reject();
        answers.into_iter().try_for_each(|answer| answer.map(drop).map_err(refused))
    }

    fn applied_to(&self, topic: &str) -> rusqlite::Result<i64> {
        let applied = self
            .log
            .prepare_cached(
                "SELECT next_offset FROM outputs_applied
                 WHERE consumer_group = ? AND source = ? AND source_partition = ? AND topic = ?",
            )?
            .query_row(
                (&self.owner.group, &*self.owner.source.topic, self.owner.source.partition, topic),
                |row| row.get(0),
            )
            .optional()?;
        Ok(applied.unwrap_or(i64::MIN))
    }
}
