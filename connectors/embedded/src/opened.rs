//! Where a source starts: the log, its topic, and a place in each partition.

use std::sync::Arc;

use millrace_core::{Error, Result, Start, Subscription};
use millrace_sqlite_file::Database;
use rusqlite::Connection;

use crate::{
    layout::{PartitionRow, log_id, partitions_of, topic_by_name},
    progress,
};

/// What a source starts with: the log, its topic, and a place in each partition.
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    pub(crate) who: String,
    pub(crate) log: i64,
    pub(crate) topic: Arc<str>,
    pub(crate) cursors: Vec<Cursor>,
    pub(crate) topic_id: i64,
}

/// Where reading of a partition has come to.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    pub(crate) partition: i32,
    pub(crate) next: i64,
    /// The end that was last told as caught up with.
    pub(crate) told_end: Option<i64>,
}

impl Opened {
    /// Opens the log and finds the place in each partition: the committed one, or where the subscription says.
    pub(crate) fn open(log: &Database, views: &Database, subscription: &Subscription) -> Result<Self> {
        let missing = || Error::missing_topic("embedded log", &subscription.topic);
        let connection = log.open_reader().map_err(|e| log.error(e))?.ok_or_else(missing)?;
        let found = topic_by_name(&connection, &subscription.topic).and_then(|topic| match topic {
            None => Ok(None),
            Some(topic) => Ok(Some((topic.id, log_id(&connection)?, partitions_of(&connection, topic.id)?))),
        });
        let (topic_id, log_id, rows) = found.map_err(|e| log.error(e))?.ok_or_else(missing)?;
        let committed = match &subscription.group {
            None => None,
            Some(group) => views
                .open_reader()
                .and_then(|views| match views {
                    None => Ok(None),
                    Some(views) => progress::committed(&views, group, &subscription.topic, log_id).map(Some),
                })
                .map_err(|e| views.error(e))?,
        };
        let committed = committed.unwrap_or_default();
        let mut cursors = Vec::new();
        for row in wanted(&rows, subscription)? {
            let next = match (committed.get(&row.partition), subscription.start) {
                (Some(next), _) if *next > row.next => return Err(beyond(subscription, row, *next)),
                (Some(next), _) => *next,
                (None, Start::Beginning) => row.start,
                (None, Start::End) => row.next,
                (None, Start::Offset(offset)) => offset.clamp(row.start, row.next),
            };
            cursors.push(Cursor { partition: row.partition, next, told_end: None });
        }
        let topic = Arc::from(subscription.topic.as_str());
        Ok(Opened { connection, who: log.who.clone(), log: log_id, topic, cursors, topic_id })
    }
}

fn wanted<'r>(rows: &'r [PartitionRow], subscription: &Subscription) -> Result<Vec<&'r PartitionRow>> {
    let Some(partitions) = &subscription.partitions else { return Ok(rows.iter().collect()) };
    let find = |number: &i32| {
        rows.iter().find(|row| row.partition == *number).ok_or_else(|| {
            Error::fatal(format!("topic {}", subscription.topic), format!("has no partition {number}"))
        })
    };
    partitions.iter().map(find).collect()
}

/// The log is shorter than what was read of it: going on would skip what is appended next.
fn beyond(subscription: &Subscription, row: &PartitionRow, next: i64) -> Error {
    let group = subscription.group.as_deref().unwrap_or_default();
    Error::fatal(
        format!("topic {}", subscription.topic),
        format!(
            "group {group} has read partition {} up to offset {next}, but the log ends at {}: it was replaced or cut",
            row.partition, row.next
        ),
    )
}
