//! The history that steps want to see before their first batch, read through the source.

use millrace_core::{Class, Error, Message, SourceEvent, Start, Step, Subscription};
use tokio::time::timeout;

use crate::{
    decode::Decoded,
    flow::{Context, Flow, Halt},
    worker::Worker,
};

/// Where retries of reading are counted.
const PLACE: &str = "look-back";

/// Messages of a range of offsets.
#[derive(Default)]
struct Stretch {
    messages: Vec<Message>,
    /// The log has nothing older.
    whole: bool,
}

impl Worker {
    /// Reads the history before `start` that the steps ask for, and hands it to them.
    pub(crate) async fn prime(&self, flow: &mut Flow, start: i64) -> Result<(), Halt> {
        self.context.prime_steps(flow.steps().collect(), start).await
    }
}

impl Context {
    /// As [`Worker::prime`], for these steps.
    pub(crate) async fn prime_steps(
        &self,
        mut steps: Vec<&mut Box<dyn Step>>,
        start: i64,
    ) -> Result<(), Halt> {
        let wanted = steps.iter().filter_map(|step| step.look_back()).map(|back| back.records_max).max();
        let Some(wanted) = wanted else { return Ok(()) };
        let history = self.history(wanted, start).await?;
        let now_ms = self.clock.now_ms();
        for step in &mut steps {
            let Some(back) = step.look_back() else { continue };
            let oldest_ms = back.age_max.map_or(i64::MIN, |age| now_ms - age.as_millis() as i64);
            let skip = history.len().saturating_sub(back.records_max as usize);
            let seen = history[skip..].iter().filter(|m| m.origin.record.timestamp_ms >= oldest_ms).cloned();
            step.prime(seen.collect()).map_err(Halt::Fatal)?;
        }
        Ok(())
    }

    /// The last `wanted` messages of this partition before `start` or some more, if there are as many. Offsets have
    /// gaps, and records may be of other types, so it goes back ever further.
    async fn history(&self, wanted: u32, start: i64) -> Result<Vec<Message>, Halt> {
        let mut back = i64::from(wanted);
        loop {
            let from = start.saturating_sub(back).max(0);
            let stretch = self.read(from, start).await?;
            if stretch.messages.len() >= wanted as usize || stretch.whole || from == 0 {
                return Ok(stretch.messages);
            }
            back = back.saturating_mul(4);
        }
    }

    async fn read(&self, from: i64, to: i64) -> Result<Stretch, Halt> {
        let mut stretch = Stretch::default();
        if from >= to {
            return Ok(stretch);
        }
        let pipeline = &self.pipeline;
        let subscription = Subscription {
            group: None,
            partitions: Some(vec![self.partition]),
            start: Start::Offset(from),
            ..pipeline.subscription.clone()
        };
        let mut attempts = self.broker_attempts(&PLACE);
        let subscribed = attempts.call(None, || pipeline.broker.subscribe(subscription.clone())).await?;
        let mut source = subscribed.map_err(Halt::Fatal)?;
        loop {
            let event = match timeout(pipeline.limits.drain_timeout, source.next()).await {
                Err(_) => Err(Error::retry("look back", "the source did not answer in time")),
                Ok(event) => event,
            };
            match event {
                Ok(Some(SourceEvent::Assigned(assigned))) => {
                    stretch.whole = assigned.iter().any(|one| one.next_offset > from);
                }
                Ok(Some(SourceEvent::Batch(batch))) => {
                    let next_offset = batch.next_offset();
                    let below = batch.records.into_iter().filter(|record| record.offset < to);
                    stretch.messages.extend(below.filter_map(
                        |record| match pipeline.decode.decode(record) {
                            Decoded::Message(message) => Some(message),
                            Decoded::Skipped | Decoded::Rejected(..) => None,
                        },
                    ));
                    if next_offset >= to {
                        return Ok(stretch);
                    }
                }
                Ok(Some(SourceEvent::CaughtUp { .. }) | None) => return Ok(stretch),
                Ok(Some(_)) => {}
                Err(error) if error.class() == Class::Retry => {
                    attempts.failed(&error, None).await?;
                }
                Err(error) => return Err(Halt::Fatal(error)),
            }
        }
    }
}
