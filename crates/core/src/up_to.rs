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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{collections::VecDeque, future::pending, sync::Arc};

    use async_trait::async_trait;

    use super::*;
    use crate::{Control, TopicPartition};

    /// Yields these, then ends, or says nothing more.
    struct Script {
        events: VecDeque<Result<SourceEvent>>,
        ends: bool,
    }

    #[async_trait]
    impl Source for Script {
        async fn next(&mut self) -> Result<Option<SourceEvent>> {
            match self.events.pop_front() {
                Some(event) => event.map(Some),
                None if self.ends => Ok(None),
                None => pending().await,
            }
        }

        fn control(&self) -> Arc<dyn Control> {
            unreachable!("nothing is committed")
        }
    }

    fn at(number: i32, next_offset: i64) -> Result<SourceEvent> {
        let partition = TopicPartition { topic: "t".into(), partition: number };
        Ok(SourceEvent::CaughtUp { partition, next_offset })
    }

    /// Reads two partitions up to 5 and 2; with where they were seen to be.
    async fn read(
        events: Vec<Result<SourceEvent>>,
        ends: bool,
        enough: usize,
    ) -> (Result<bool>, Vec<(i32, i64)>) {
        let mut source = Script { events: events.into(), ends };
        let mut seen = Vec::new();
        let take = |stretch: Stretch| {
            seen.push((stretch.partition, stretch.next_offset));
            if seen.len() < enough { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let ends = BTreeMap::from([(0, 5), (1, 2)]);
        let read = read_up_to(&mut source, ends, ("topic t", Duration::from_secs(7)), take).await;
        (read, seen)
    }

    #[tokio::test(start_paused = true)]
    async fn every_partition_is_read_to_its_end() {
        let events = vec![at(0, 3), at(1, 2), at(0, 4), at(0, 6), at(0, 9)];
        let (read, seen) = read(events, false, usize::MAX).await;
        assert!(read.unwrap());
        assert_eq!(seen, [(0, 3), (1, 2), (0, 4), (0, 6)]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_enough_was_seen_and_when_the_source_ends() {
        let (enough, seen) = read(vec![at(0, 3), at(1, 2)], false, 1).await;
        assert_eq!((enough.unwrap(), seen.len()), (true, 1));
        let (ended, _) = read(vec![at(0, 3)], true, usize::MAX).await;
        assert!(!ended.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_waited_for_and_said_when_it_does_not() {
        let away = || Err(Error::retry("broker", "is away"));
        let (passed, _) = read(vec![away(), at(0, 5), at(1, 2)], false, usize::MAX).await;
        assert!(passed.unwrap());
        let (late, _) = read(vec![at(0, 5)], false, usize::MAX).await;
        assert_eq!(late.unwrap_err().to_string(), "topic t: not read within 7 s");
        let (late, _) = read(vec![away()], false, usize::MAX).await;
        assert_eq!(late.unwrap_err().to_string(), "broker: is away");
        let fatal = Err(Error::fatal("broker", "refuses"));
        let (refused, _) = read(vec![fatal, at(0, 5)], false, usize::MAX).await;
        assert_eq!(refused.unwrap_err().class(), Class::Fatal);
    }
}
