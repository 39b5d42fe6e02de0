//! Reading a partition up to where it ends now.

use std::ops::ControlFlow;

use millrace_core::{
    Broker, Class, Error, PartitionSpan, Record, Result, Source, SourceEvent, Start, Subscription,
};
use tokio::time::{Duration, timeout};

/// How long it may take.
const READ_WITHIN: Duration = Duration::from_secs(60);
const PREFETCH_BYTES_MAX: usize = 8 << 20;

/// Hands over the records of one partition, from an offset on up to where it ends now or until enough was seen.
///
/// # Errors
/// Retry when the broker is away or too slow; Fatal when the topic may not be read.
pub(crate) async fn read(
    broker: &dyn Broker,
    topic: &str,
    (partition, span): (i32, PartitionSpan),
    from: i64,
    mut take: impl FnMut(Record) -> ControlFlow<()> + Send,
) -> Result<()> {
    if from.max(span.start) >= span.end {
        return Ok(());
    }
    let subscription = Subscription {
        topic: topic.to_owned(),
        group: None,
        partitions: Some(vec![partition]),
        start: Start::Offset(from.max(span.start)),
        prefetch_bytes_max: PREFETCH_BYTES_MAX,
        batch_records_max: 1_000,
    };
    let mut source = broker.subscribe(subscription).await?;
    let mut passing = None;
    let end = timeout(READ_WITHIN, catch_up(&mut *source, span.end, &mut take, &mut passing)).await;
    end.unwrap_or_else(|_| {
        Err(passing.unwrap_or_else(|| {
            Error::retry(format!("topic {topic}"), format!("not read within {} s", READ_WITHIN.as_secs()))
        }))
    })
}

/// Notes the last error that may pass.
async fn catch_up(
    source: &mut dyn Source,
    end: i64,
    take: &mut (impl FnMut(Record) -> ControlFlow<()> + Send),
    passing: &mut Option<Error>,
) -> Result<()> {
    loop {
        let next_offset = match source.next().await {
            Ok(Some(SourceEvent::Batch(batch))) => {
                let next_offset = batch.next_offset();
                for record in batch.records {
                    if take(record).is_break() {
                        return Ok(());
                    }
                }
                next_offset
            }
            Ok(Some(SourceEvent::CaughtUp { next_offset, .. })) => next_offset,
            Ok(Some(_)) => continue,
            Ok(None) => return Ok(()),
            Err(error) if error.class() == Class::Retry => {
                *passing = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        if next_offset >= end {
            return Ok(());
        }
    }
}
