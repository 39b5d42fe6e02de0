//! The way of lines to their topic: at once while the broker acknowledges in time, and by way of the spool, if there
//! is one, while it does not. A line that is done is acknowledged by the broker, or lies in the spool on the disk.

use std::{pin::Pin, sync::Arc};

use millrace_core::{Class, Error, NewRecord, Position, Producer, Result};
use millrace_runtime::{Backoff, RetryPolicy};
use millrace_spool::{Entry, Spool};
use tokio::{
    task::block_in_place,
    time::{Duration, Instant, sleep_until, timeout},
};

use super::input::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use crate::report::{Failure, counted, grouped, say};

type Attempt = Pin<Box<dyn Future<Output = Vec<Result<Position>>> + Send>>;

/// Lines that are on their way.
pub struct Outbox {
    topic: String,
    producer: Arc<dyn Producer>,
    spool: Option<Spool>,
    append_timeout: Duration,
    /// What is being appended. It is never given up while it may still arrive, so that it is sent once.
    batch: Option<Batch>,
    attempt: Option<Attempt>,
    backoff: Backoff,
    next_try: Instant,
    /// Taken, and without room in the spool.
    held: Vec<Entry>,
    /// The broker did not acknowledge in time: lines go to the spool at once.
    away: bool,
    /// Records the broker acknowledged.
    pub produced: u64,
    /// Records the broker refused.
    pub refused: u64,
}

struct Batch {
    /// Those not acknowledged yet.
    lines: Vec<Entry>,
    /// How many of the oldest in the spool it stands for; none: it is not in the spool.
    spooled: Option<usize>,
    /// When it goes to the spool.
    deadline: Instant,
    /// Why the last try failed.
    failure: Option<Error>,
}

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The batch is acknowledged.
    Sent,
    /// The broker did not take it.
    Away,
}

impl Outbox {
    /// `away`: the broker did not answer already.
    pub fn new(
        topic: &str,
        producer: Arc<dyn Producer>,
        spool: Option<Spool>,
        append_timeout: Duration,
        away: Option<&Error>,
    ) -> Self {
        let policy = RetryPolicy {
            initial: Duration::from_millis(200),
            max: Duration::from_secs(10),
            ..RetryPolicy::default()
        };
        let mut outbox = Outbox {
            topic: topic.to_owned(),
            producer,
            spool,
            append_timeout,
            batch: None,
            attempt: None,
            backoff: Backoff::new(policy, 0),
            next_try: Instant::now(),
            held: Vec::new(),
            away: false,
            produced: 0,
            refused: 0,
        };
        if let Some(error) = away {
            outbox.gone(&error.chain());
        }
        outbox
    }

    /// Whether lines can be taken now.
    pub fn is_free(&self) -> bool {
        self.held.is_empty() && self.batch.as_ref().is_none_or(|batch| batch.spooled.is_some())
    }

    /// Whether lines wait for room in the spool.
    pub fn is_full(&self) -> bool {
        !self.held.is_empty()
    }

    /// How many records wait in the spool.
    pub fn waiting(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::len)
    }

    /// Takes lines, when it is free to.
    ///
    /// # Errors
    /// When the spool cannot be written.
    pub fn take(&mut self, lines: Vec<Entry>) -> Result<(), Failure> {
        if self.batch.is_none() && !self.away && self.waiting() == 0 {
            let deadline = Instant::now() + self.append_timeout;
            self.batch = Some(Batch { lines, spooled: None, deadline, failure: None });
            return Ok(());
        }
        self.held = lines;
        self.spool_held()?;
        if let (Some(first), Some(spool)) = (self.held.first(), &self.spool) {
            let waiting = counted(spool.len(), "record");
            let bytes = grouped(spool.size_bytes());
            say(&format!(
                "millrace: the spool is full with {waiting}, {bytes} bytes; {} waits",
                first.origin
            ));
        }
        Ok(())
    }

    /// Waits until a batch is acknowledged, or not; for ever while there is nothing to send. Cancel-safe.
    ///
    /// # Errors
    /// When the broker refuses for good; without a spool, also when it did not acknowledge in time. When the
    /// spool cannot be used.
    pub async fn step(&mut self) -> Result<Progress, Failure> {
        if self.batch.is_none() {
            self.batch = self.oldest()?;
        }
        let Some(batch) = &self.batch else { return std::future::pending().await };
        let (spooled, deadline) = (batch.spooled.is_some(), batch.deadline);
        let answered = async {
            if self.attempt.is_none() {
                sleep_until(self.next_try).await;
            }
            let attempt = self.attempt.get_or_insert_with(|| {
                let (producer, topic) = (self.producer.clone(), self.topic.clone());
                let records = batch.lines.iter().map(record).collect();
                Box::pin(async move { producer.send(&topic, records).await })
            });
            attempt.await
        };
        let answers = tokio::select! {
            biased;
            answers = answered => answers,
            () = sleep_until(deadline), if !spooled => return self.late().map(|()| Progress::Away),
        };
        self.attempt = None;
        self.settle(answers)
    }

    /// Sends what is left, for as long as the broker takes it.
    ///
    /// # Errors
    /// As [`Outbox::step`].
    pub async fn finish(&mut self) -> Result<(), Failure> {
        self.next_try = Instant::now();
        while self.batch.is_some() || self.waiting() > 0 {
            let direct = self.batch.as_ref().is_some_and(|batch| batch.spooled.is_none());
            let progress = timeout(self.append_timeout, self.step()).await;
            let sent = progress.unwrap_or(Ok(Progress::Away))? == Progress::Sent;
            // What is not in the spool yet has a deadline of its own.
            if !sent && !direct {
                break;
            }
        }
        Ok(())
    }

    /// The first line that was taken and is neither acknowledged nor in the spool.
    pub fn first_undone(&self) -> Option<&str> {
        let direct = self.batch.as_ref().filter(|batch| batch.spooled.is_none());
        let line = direct.and_then(|batch| batch.lines.first()).or_else(|| self.held.first());
        line.map(|line| line.origin.as_str())
    }

    /// The oldest records of the spool, if it holds any.
    fn oldest(&self) -> Result<Option<Batch>> {
        let Some(spool) = self.spool.as_ref().filter(|spool| !spool.is_empty()) else { return Ok(None) };
        let lines = block_in_place(|| spool.peek(BATCH_RECORDS_MAX, BATCH_BYTES_MAX as u64))?;
        let spooled = Some(lines.len());
        Ok(Some(Batch { lines, spooled, deadline: Instant::now(), failure: None }))
    }

    /// Takes the answers in.
    fn settle(&mut self, answers: Vec<Result<Position>>) -> Result<Progress, Failure> {
        let mut batch = self.batch.take().expect("invariant: answers are a batch's");
        let mut fatal = false;
        let mut failure = None;
        let mut left = Vec::new();
        for (line, answer) in std::mem::take(&mut batch.lines).into_iter().zip(answers) {
            match answer {
                Ok(_) => self.produced += 1,
                Err(error) if error.class() == Class::Reject => {
                    self.refuse(&line, &error, batch.spooled.is_some())?;
                }
                Err(error) => {
                    left.push(line);
                    fatal |= error.class() == Class::Fatal;
                    failure = Some(error);
                }
            }
        }
        let Some(error) = failure else {
            if let (Some(count), Some(spool)) = (batch.spooled, &mut self.spool) {
                block_in_place(|| spool.advance(count))?;
                self.spool_held()?;
            }
            self.back();
            return Ok(Progress::Sent);
        };
        self.next_try = Instant::now() + self.backoff.next_wait();
        let spooled = batch.spooled.is_some();
        let why = error.chain();
        self.batch = Some(Batch { lines: left, failure: Some(error), ..batch });
        if fatal {
            // A person acts; until then the lines are safe.
            if !spooled && self.spool.is_some() {
                self.spool_batch()?;
            }
            return Err(Failure::run(why));
        }
        if self.spool.is_none() {
            say(&format!("millrace: {why}; trying again"));
        } else if spooled {
            self.gone(&why);
        }
        Ok(Progress::Away)
    }

    /// The time is over for a batch that is not in the spool.
    fn late(&mut self) -> Result<(), Failure> {
        let failure = self.batch.as_mut().and_then(|batch| batch.failure.take());
        let why = failure.map_or_else(
            || format!("no acknowledgement within {} ms", self.append_timeout.as_millis()),
            |error| error.chain(),
        );
        if self.spool.is_none() {
            return Err(Failure::environment(why));
        }
        self.spool_batch()?;
        self.gone(&why);
        Ok(())
    }

    /// Puts the batch under way into the spool. What is under way stays so: when it arrives after all, it is
    /// removed again.
    fn spool_batch(&mut self) -> Result<(), Failure> {
        let (Some(batch), Some(spool)) = (&mut self.batch, &mut self.spool) else { return Ok(()) };
        let count = block_in_place(|| spool.append(&batch.lines))?;
        if count < batch.lines.len() {
            return Err(Failure::environment("the spool has no room for a batch"));
        }
        batch.spooled = Some(count);
        Ok(())
    }

    fn spool_held(&mut self) -> Result<()> {
        let Some(spool) = self.spool.as_mut().filter(|_| !self.held.is_empty()) else { return Ok(()) };
        let count = block_in_place(|| spool.append(&self.held))?;
        self.held.drain(..count);
        Ok(())
    }

    /// A record that can never be appended. One out of the spool may be the only copy.
    fn refuse(&mut self, line: &Entry, error: &Error, spooled: bool) -> Result<()> {
        self.refused += 1;
        let kept = match self.spool.as_ref().filter(|_| spooled) {
            None => "skipped".to_owned(),
            Some(spool) => {
                block_in_place(|| spool.set_aside(line))?;
                format!("kept in {}", spool.refused().display())
            }
        };
        say(&format!("{}: {}; {kept}", line.origin, error.chain()));
        Ok(())
    }

    fn gone(&mut self, why: &str) {
        if !std::mem::replace(&mut self.away, self.spool.is_some()) {
            say(&format!("millrace: {why}; lines go to the spool, where {} wait", grouped(self.waiting())));
        }
    }

    fn back(&mut self) {
        self.backoff.reset();
        if std::mem::replace(&mut self.away, false) {
            say(&format!(
                "millrace: the broker answers; {} left in the spool",
                counted(self.waiting(), "record")
            ));
        }
    }
}

fn record(line: &Entry) -> NewRecord {
    NewRecord { key: line.key.clone(), value: Some(line.value.clone()), ..NewRecord::default() }
}
