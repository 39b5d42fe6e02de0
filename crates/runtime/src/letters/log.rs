//! The topic of dead letters: which are open, reading them in bounded memory, settling them.

use std::{collections::BTreeMap, sync::Arc};

use millrace_core::{
    Broker, Class, Error, NewRecord, PartitionSpan, Record, Result, Source, SourceEvent, Start, Subscription,
};
use tokio::time::{Duration, timeout};

use super::read::{Entry, Letter, LetterId, Outcome, Resolution};
use crate::backoff::{Backoff, RetryPolicy};

/// A source that is silent for this long before the end is away.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Tries of an append; with the waits between them about half a minute.
const TRIES_MAX: u32 = 8;

const PREFETCH_BYTES_MAX: usize = 8 << 20;
const BATCH_RECORDS_MAX: usize = 500;

/// A dead-letter topic as it was when it was opened: what is appended later is not seen.
pub struct LetterLog {
    broker: Arc<dyn Broker>,
    topic: String,
    spans: BTreeMap<i32, PartitionSpan>,
    states: BTreeMap<i32, States>,
}

/// How each record of a partition was settled, at two bits a record.
struct States {
    start: i64,
    packed: Vec<u8>,
}

/// Reads records up to where the topic ended.
pub struct Scan {
    source: Option<Box<dyn Source>>,
    topic: String,
    /// What is left to read, by partition: position and end.
    open: BTreeMap<i32, (i64, i64)>,
    total: i64,
}

impl LetterLog {
    /// The topic as it is now, all letters taken for open until [`LetterLog::fold`] has read what became of
    /// them. None when there is no such topic: it is made with the first letter.
    ///
    /// # Errors
    /// Retry when the broker is away, Fatal when it refuses.
    pub async fn open(broker: Arc<dyn Broker>, topic: &str) -> Result<Option<Self>> {
        let Some(info) = broker.admin().topic(topic).await? else { return Ok(None) };
        let topic = topic.to_owned();
        Ok(Some(LetterLog { broker, topic, spans: info.partitions, states: BTreeMap::new() }))
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The broker it lies on.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// Whether the topic holds this offset, as far as its ends tell.
    pub fn holds(&self, id: LetterId) -> bool {
        self.spans.get(&id.partition).is_some_and(|span| (span.start..span.end).contains(&id.offset))
    }

    /// Reads the topic for its resolutions, or as much of it as may hold those of some letters. Memory: a quarter of
    /// a byte for each record of the topic. `seen` is told how many records of how many have been read.
    ///
    /// # Errors
    /// As [`Scan::next`]; Fatal when a newer program has written here.
    pub async fn fold(&mut self, only: Option<&[LetterId]>, mut seen: impl FnMut(u64, u64)) -> Result<()> {
        let mut scan = self.scan(only).await?;
        while let Some(records) = scan.next().await? {
            for record in &records {
                if record.header(super::RESOLVES).is_none() {
                    continue;
                }
                if let Ok(Entry::Resolution(resolution)) = refuse_newer(Entry::read(record))? {
                    self.note(&resolution);
                }
            }
            let (read, total) = scan.progress();
            seen(read, total);
        }
        Ok(())
    }

    /// How many letters are open, by one reading of the topic; memory as that of [`LetterLog::fold`].
    ///
    /// # Errors
    /// As [`LetterLog::fold`].
    pub async fn count_open(&mut self) -> Result<u64> {
        let (mut letters, mut settled) = (0_u64, 0);
        let mut scan = self.scan(None).await?;
        while let Some(records) = scan.next().await? {
            for record in &records {
                match refuse_newer(Entry::read(record))? {
                    Ok(Entry::Letter(_)) => letters += 1,
                    // One that retention has removed is not among the letters.
                    Ok(Entry::Resolution(resolution)) if self.holds(resolution.id) => {
                        settled += u64::from(self.outcome(resolution.id).is_none());
                        self.note(&resolution);
                    }
                    Ok(Entry::Resolution(_) | Entry::Foreign) | Err(_) => {}
                }
            }
        }
        Ok(letters.saturating_sub(settled))
    }

    /// How a letter was settled; none: it is open.
    pub fn outcome(&self, id: LetterId) -> Option<Outcome> {
        self.states.get(&id.partition).and_then(|states| states.get(id.offset))
    }

    /// Reads from the start, or only from the oldest of some letters on and only their partitions.
    ///
    /// # Errors
    /// Retry when the broker is away, Fatal when it refuses.
    pub async fn scan(&self, only: Option<&[LetterId]>) -> Result<Scan> {
        let wanted = |number: i32| only.is_none_or(|ids| ids.iter().any(|id| id.partition == number));
        let from = only.and_then(|ids| ids.iter().map(|id| id.offset).min());
        let open: BTreeMap<i32, (i64, i64)> = self
            .spans
            .iter()
            .map(|(number, span)| (*number, (span.start.max(from.unwrap_or(0)), span.end)))
            .filter(|(number, (from, end))| from < end && wanted(*number))
            .collect();
        let source = if open.is_empty() {
            None
        } else {
            let subscription = Subscription {
                topic: self.topic.clone(),
                group: None,
                partitions: Some(open.keys().copied().collect()),
                start: from.map_or(Start::Beginning, Start::Offset),
                prefetch_bytes_max: PREFETCH_BYTES_MAX,
                batch_records_max: BATCH_RECORDS_MAX,
            };
            Some(self.broker.subscribe(subscription).await?)
        };
        let total = open.values().map(|(from, end)| end - from).sum();
        Ok(Scan { source, topic: self.topic.clone(), open, total })
    }

    /// Settles letters; returns when that is acknowledged. A letter that was settled before gets the later
    /// outcome. What this value knows of the topic does not change.
    ///
    /// # Errors
    /// Retry when the broker stays away for about half a minute, Fatal when it refuses. Letters may be settled
    /// all the same; to settle them again does no harm.
    pub async fn resolve(&self, resolutions: &[Resolution]) -> Result<()> {
        let producer = self.broker.producer().await?;
        let mut records: Vec<NewRecord> = resolutions.iter().map(Resolution::record).collect();
        let mut backoff =
            Backoff::new(RetryPolicy { max: Duration::from_secs(8), ..RetryPolicy::default() }, 0);
        while !records.is_empty() {
            let answers = producer.send(&self.topic, records.clone()).await;
            let mut again = Vec::new();
            let mut away = None;
            for (record, answer) in records.into_iter().zip(answers) {
                match answer {
                    Ok(_) => {}
                    Err(error) if error.class() == Class::Retry && backoff.tries() < TRIES_MAX => {
                        again.push(record);
                        away = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            records = again;
            if away.is_some() {
                tokio::time::sleep(backoff.next_wait()).await;
            }
        }
        Ok(())
    }

    fn note(&mut self, resolution: &Resolution) {
        let Some(span) = self.spans.get(&resolution.id.partition) else { return };
        let states = self.states.entry(resolution.id.partition).or_insert_with(|| States::of(*span));
        states.set(resolution.id.offset, resolution.outcome);
    }
}

impl Scan {
    /// The next records, of one partition, in order; none at the end. Cancel-safe.
    ///
    /// # Errors
    /// Retry when the broker is away or silent for 30 s, Fatal when it refuses.
    pub async fn next(&mut self) -> Result<Option<Vec<Record>>> {
        while !self.open.is_empty() {
            let Some(source) = &mut self.source else { break };
            let silent = || Error::retry(format!("topic {}", self.topic), "did not answer within 30 s");
            match timeout(SILENCE_MAX, news(&mut **source)).await.map_err(|_| silent())?? {
                None => break,
                Some(SourceEvent::Batch(batch)) => {
                    let next_offset = batch.next_offset();
                    let Some((_, end)) = self.open.get(&batch.partition).copied() else { continue };
                    self.advance(batch.partition, next_offset);
                    let mut records = batch.records;
                    records.retain(|record| record.offset < end);
                    if !records.is_empty() {
                        return Ok(Some(records));
                    }
                }
                Some(SourceEvent::CaughtUp { partition, next_offset }) => {
                    self.advance(partition.partition, next_offset);
                }
                Some(SourceEvent::Gap { partition, to, .. }) => self.advance(partition.partition, to),
                Some(SourceEvent::Assigned(_) | SourceEvent::Revoked { .. }) => {}
            }
        }
        Ok(None)
    }

    /// How many records have been read, of how many; offsets that hold none are counted too.
    pub fn progress(&self) -> (u64, u64) {
        let left: i64 = self.open.values().map(|(at, end)| (end - at).max(0)).sum();
        ((self.total - left).max(0).cast_unsigned(), self.total.max(0).cast_unsigned())
    }

    fn advance(&mut self, partition: i32, next_offset: i64) {
        if let Some((at, end)) = self.open.get_mut(&partition) {
            *at = next_offset;
            if next_offset >= *end {
                self.open.remove(&partition);
            }
        }
    }
}

impl States {
    fn of(span: PartitionSpan) -> Self {
        let records = usize::try_from(span.end - span.start).unwrap_or(0);
        States { start: span.start, packed: vec![0; records / 4 + 1] }
    }

    fn place(&self, offset: i64) -> Option<(usize, u32)> {
        let index = usize::try_from(offset - self.start).ok()?;
        (index / 4 < self.packed.len()).then_some((index / 4, (index % 4 * 2) as u32))
    }

    fn get(&self, offset: i64) -> Option<Outcome> {
        let (byte, shift) = self.place(offset)?;
        match self.packed[byte] >> shift & 3 {
            1 => Some(Outcome::Replayed),
            2 => Some(Outcome::Discarded),
            3 => Some(Outcome::Replaced),
            _ => None,
        }
    }

    fn set(&mut self, offset: i64, outcome: Outcome) {
        let Some((byte, shift)) = self.place(offset) else { return };
        let code = match outcome {
            Outcome::Replayed => 1,
            Outcome::Discarded => 2,
            Outcome::Replaced => 3,
        };
        self.packed[byte] = self.packed[byte] & !(3 << shift) | code << shift;
    }
}

/// The record of a letter whose value was left out, read from where it came from; none when it is not there any more.
///
/// # Errors
/// Retry when the broker is away or silent for 30 s, Fatal when it refuses.
pub async fn read_again(broker: &dyn Broker, letter: &Letter) -> Result<Option<Record>> {
    let Record { topic, partition, offset, .. } = &letter.record;
    let Some(info) = broker.admin().topic(topic).await? else { return Ok(None) };
    let there = info.partitions.get(partition).is_some_and(|span| (span.start..span.end).contains(offset));
    if !there {
        return Ok(None);
    }
    let subscription = Subscription {
        topic: topic.to_string(),
        group: None,
        partitions: Some(vec![*partition]),
        start: Start::Offset(*offset),
        prefetch_bytes_max: PREFETCH_BYTES_MAX,
        batch_records_max: 1,
    };
    let mut source = broker.subscribe(subscription).await?;
    loop {
        let silent = || Error::retry(format!("topic {topic}"), "did not answer within 30 s");
        match timeout(SILENCE_MAX, news(&mut *source)).await.map_err(|_| silent())?? {
            Some(SourceEvent::Batch(batch)) => {
                return Ok(batch.records.into_iter().find(|record| record.offset == *offset));
            }
            None | Some(SourceEvent::CaughtUp { .. }) => return Ok(None),
            Some(_) => {}
        }
    }
}

/// The next event, waiting while the source reconnects.
async fn news(source: &mut dyn Source) -> Result<Option<SourceEvent>> {
    loop {
        match source.next().await {
            Err(error) if error.class() == Class::Retry => {
                tracing::warn!(error = %error.chain(), "reading dead letters");
            }
            event => return event,
        }
    }
}

/// A newer program's records end the work; damaged ones are passed on.
fn refuse_newer(read: Result<Entry>) -> Result<Result<Entry>> {
    match read {
        Err(error) if error.class() == Class::Fatal => Err(error),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_kept_side_by_side() {
        let mut states = States::of(PartitionSpan { start: 100, end: 110 });
        let outcomes = [Outcome::Replayed, Outcome::Discarded, Outcome::Replaced];
        for (offset, outcome) in (100..110).zip(outcomes.into_iter().cycle()) {
            states.set(offset, outcome);
        }
        states.set(104, Outcome::Replaced);
        // Outside of what was there: of no meaning.
        states.set(99, Outcome::Replayed);
        states.set(500, Outcome::Replayed);
        assert_eq!(states.get(103), Some(Outcome::Replayed));
        assert_eq!(states.get(104), Some(Outcome::Replaced));
        assert_eq!(states.get(105), Some(Outcome::Replaced));
        assert_eq!((states.get(99), states.get(500)), (None, None));
        assert_eq!(States::of(PartitionSpan { start: 0, end: 3 }).get(1), None);
    }
}
