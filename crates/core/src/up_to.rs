//! Reading partitions up to where they end now.

use std::{collections::BTreeMap, ops::ControlFlow};

use tokio::time::{Duration, timeout};

use crate::{
    error::{Class, Error, Result},
    record::Record,
    source::{Source, SourceEvent},
};

/// What comes of a partition: its records, which may be none, and the offset below which all has come.
pub struct Stretch {
    /// The partition's number.
    pub partition: i32,
    /// In the order of their offsets.
    pub records: Vec<Record>,
    /// The offset of what comes next.
    pub next_offset: i64,
}

/// Hands over what a source yields until each partition has reached its offset in `ends`, or `take` has seen enough.
/// Says whether there may be more to come: not of a source that has ended. `who` is whom an error is by.
///
/// # Errors
/// Retry when it takes longer than `within`, with the last error that might have passed, if there was one; and what
/// the source calls fatal.
pub async fn read_up_to(
    source: &mut dyn Source,
    ends: BTreeMap<i32, i64>,
    (who, within): (&str, Duration),
    mut take: impl FnMut(Stretch) -> ControlFlow<()> + Send,
) -> Result<bool> {
    let mut passing = None;
    match timeout(within, catch_up(source, ends, &mut take, &mut passing)).await {
        Ok(result) => result,
        Err(_) => Err(passing.unwrap_or_else(|| {
            Error::retry(who.to_owned(), format!("not read within {} s", within.as_secs()))
        })),
    }
}

/// Notes the last error that may pass.
async fn catch_up(
    source: &mut dyn Source,
    mut open: BTreeMap<i32, i64>,
    take: &mut (impl FnMut(Stretch) -> ControlFlow<()> + Send),
    passing: &mut Option<Error>,
) -> Result<bool> {
    while !open.is_empty() {
        let stretch = match source.next().await {
            Ok(Some(SourceEvent::Batch(batch))) => {
                let next_offset = batch.next_offset();
                Stretch { partition: batch.partition, records: batch.records, next_offset }
            }
            Ok(Some(SourceEvent::CaughtUp { partition, next_offset })) => {
                Stretch { partition: partition.partition, records: Vec::new(), next_offset }
            }
            Ok(Some(_)) => continue,
            Ok(None) => return Ok(false),
            Err(error) if error.class() == Class::Retry => {
                *passing = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        let (partition, next_offset) = (stretch.partition, stretch.next_offset);
        if take(stretch).is_break() {
            return Ok(true);
        }
        open.retain(|number, end| *number != partition || next_offset < *end);
    }
    Ok(true)
}
