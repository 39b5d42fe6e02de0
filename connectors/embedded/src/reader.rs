//! The thread that reads for one source: one range scan per partition and round, partitions in turn, never
//! more bytes than the room has. It is woken by appends of this process and looks for those of others.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use millrace_core::{Batch, Class, Header, Record, Result, SourceEvent, TopicPartition};
use millrace_sqlite_file::Failure;
use rusqlite::{Connection, Row};
use tokio::sync::mpsc;

use crate::{
    headers,
    layout::{PartitionRow, offset_of, partitions_of, position, records_table},
    opened::{Cursor, Opened},
    room::{Look, Room},
};

/// How often other processes' appends are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long the thread waits after a failure before it reads again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The thread's own.
pub(crate) struct Reader {
    pub(crate) opened: Opened,
    pub(crate) room: Arc<Room>,
    pub(crate) events: mpsc::Sender<Result<SourceEvent>>,
    pub(crate) batch_records_max: usize,
    /// The partition that is first in the next round.
    pub(crate) turn: usize,
}

/// What one round may still read: a share for each partition, so that one with much does not keep the others
/// waiting.
struct Budget {
    left_bytes: usize,
    share_bytes: usize,
    left_of_share_bytes: usize,
    /// The next record is its partition's first.
    first: bool,
    /// Nothing is held or read: a record is let in, whatever its size.
    empty: bool,
    read_bytes: usize,
    starved: bool,
}

impl Reader {
    pub(crate) fn run(mut self) {
        loop {
            let look = self.room.look();
            if look.closed {
                return;
            }
            match self.round(&look) {
                Ok((events, starved)) if events.is_empty() => self.room.wait(starved, LOOK_EVERY),
                Ok((events, _)) => {
                    for event in events {
                        if self.events.blocking_send(Ok(event)).is_err() {
                            return;
                        }
                    }
                }
                Err(failure) => {
                    let error = failure.error(&self.opened.who);
                    let last = error.class() != Class::Retry;
                    if self.events.blocking_send(Err(error)).is_err() || last {
                        return;
                    }
                    self.room.wait(false, RETRY_AFTER);
                }
            }
        }
    }

    /// What there is to tell: at most a batch of each partition. Also whether the room was too small for more.
    fn round(&mut self, look: &Look) -> Result<(Vec<SourceEvent>, bool), Failure> {
        // One snapshot for ends and records: a trim between them must show as a gap.
        let snapshot = self.opened.connection.unchecked_transaction()?;
        let rows = partitions_of(&snapshot, self.opened.topic_id)?;
        let row_of = |cursor: &Cursor| usize::try_from(cursor.partition).ok().and_then(|n| rows.get(n));
        let news = |cursor: &Cursor| row_of(cursor).is_some_and(|row| cursor.told_end != Some(row.next));
        let count = self.opened.cursors.len();
        let ready: Vec<usize> = (0..count)
            .map(|n| (self.turn + n) % count)
            .filter(|index| {
                let cursor = &self.opened.cursors[*index];
                !look.paused.contains(&cursor.partition) && news(cursor)
            })
            .collect();
        let mut budget = Budget::new(look, ready.len());
        let mut events = Vec::new();
        let mut cursors = self.opened.cursors.clone();
        for index in ready {
            let cursor = &mut cursors[index];
            let Some(row) = row_of(cursor) else { continue };
            self.step(&snapshot, cursor, row, &mut budget, &mut events)?;
        }
        drop(snapshot);
        self.opened.cursors = cursors;
        self.turn = if count == 0 { 0 } else { (self.turn + 1) % count };
        self.room.put(budget.read_bytes);
        Ok((events, budget.starved))
    }

    fn step(
        &self,
        log: &Connection,
        cursor: &mut Cursor,
        row: &PartitionRow,
        budget: &mut Budget,
        events: &mut Vec<SourceEvent>,
    ) -> Result<(), Failure> {
        let partition = TopicPartition { topic: self.opened.topic.clone(), partition: cursor.partition };
        if cursor.next < row.start {
            let (from, to) = (cursor.next, row.start);
            events.push(SourceEvent::Gap { partition: partition.clone(), from, to });
            cursor.next = row.start;
        }
        if cursor.next < row.next {
            let (records, exhausted) = self.fetch(log, cursor, row.next, budget)?;
            if let Some(last) = records.last() {
                cursor.next = last.offset + 1;
                let (topic, partition) = (self.opened.topic.clone(), cursor.partition);
                events.push(SourceEvent::Batch(Batch { topic, partition, records }));
            }
            // Compaction may have removed the last records.
            if exhausted {
                cursor.next = row.next;
            }
        }
        if cursor.next == row.next {
            cursor.told_end = Some(row.next);
            events.push(SourceEvent::CaughtUp { partition, next_offset: row.next });
        }
        Ok(())
    }

    /// The next records, and whether there are no more below `end`.
    fn fetch(
        &self,
        log: &Connection,
        cursor: &Cursor,
        end: i64,
        budget: &mut Budget,
    ) -> Result<(Vec<Record>, bool), Failure> {
        let mut select = log.prepare_cached(&format!(
            "SELECT position, timestamp_ms, key, value, headers FROM {}
             WHERE position >= ? AND position < ? ORDER BY position LIMIT ?",
            records_table(self.opened.topic_id)
        ))?;
        let limit = i64::try_from(self.batch_records_max.max(1)).unwrap_or(i64::MAX);
        let mut rows = select.query((
            position(cursor.partition, cursor.next),
            position(cursor.partition, end),
            limit,
        ))?;
        let mut records = Vec::new();
        budget.next_partition();
        while let Some(row) = rows.next()? {
            let record = self.record(cursor.partition, row)?;
            if !budget.admit(record.size_bytes()) {
                return Ok((records, false));
            }
            records.push(record);
        }
        let exhausted = records.len() < self.batch_records_max.max(1);
        Ok((records, exhausted))
    }

    fn record(&self, partition: i32, row: &Row<'_>) -> Result<Record, Failure> {
        let bytes = |column: usize| -> rusqlite::Result<Option<Bytes>> {
            Ok(row.get_ref(column)?.as_blob_or_null()?.map(Bytes::copy_from_slice))
        };
        let offset = offset_of(row.get(0)?);
        let headers = match row.get_ref(4)?.as_blob_or_null().map_err(rusqlite::Error::from)? {
            None => Arc::from([] as [Header; 0]),
            Some(blob) => headers::decode(blob).ok_or_else(|| {
                let why = format!("{}/{partition} offset {offset} has damaged headers", self.opened.topic);
                Failure::new(Class::Fatal, why)
            })?,
        };
        Ok(Record {
            topic: self.opened.topic.clone(),
            partition,
            offset,
            timestamp_ms: row.get(1)?,
            key: bytes(2)?,
            value: bytes(3)?,
            headers,
        })
    }
}

impl Budget {
    fn new(look: &Look, partitions: usize) -> Self {
        Budget {
            left_bytes: look.free_bytes,
            share_bytes: look.free_bytes / partitions.max(1),
            left_of_share_bytes: 0,
            first: true,
            empty: look.empty,
            read_bytes: 0,
            starved: false,
        }
    }

    fn next_partition(&mut self) {
        self.left_of_share_bytes = self.share_bytes;
        self.first = true;
    }

    fn admit(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.left_bytes && (self.first || bytes <= self.left_of_share_bytes);
        if !fits && !self.empty {
            self.starved |= bytes > self.left_bytes;
            return false;
        }
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
        self.left_of_share_bytes = self.left_of_share_bytes.saturating_sub(bytes);
        self.first = false;
        self.empty = false;
        self.read_bytes += bytes;
        true
    }
}
