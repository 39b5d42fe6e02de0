//! Reading a partition up to where it ends now.

use std::{collections::BTreeMap, ops::ControlFlow};

use millrace_core::{Broker, PartitionSpan, Record, Result, Start, Stretch, Subscription, read_up_to};
use tokio::time::Duration;

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
    let ends = BTreeMap::from([(partition, span.end)]);
    let who = format!("topic {topic}");
    let take = |stretch: Stretch| stretch.records.into_iter().try_for_each(&mut take);
    read_up_to(&mut *source, ends, (&who, READ_WITHIN), take).await.map(drop)
}
