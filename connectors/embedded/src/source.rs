//! The consumer's side of a source, and its control.

use std::{collections::HashMap, sync::Arc, thread};

use async_trait::async_trait;
use millrace_core::{
    Assignment, Control, Error, Lease, Result, Source, SourceEvent, States, Subscription, TopicPartition,
    Transactor,
};
use tokio::sync::mpsc;

use crate::{
    broker::Inner,
    opened::Opened,
    outputs::Owner,
    progress::{Commit, ProgressKeeper},
    reader::Reader,
    room::Room,
    seats::{Seat, Ticket},
    transactor::LogTransactor,
};

/// Events between the thread and the consumer; their bytes are bounded by the room.
const EVENTS_MAX: usize = 64;

/// Reads a topic of the embedded log.
pub(crate) struct LogSource {
    events: mpsc::Receiver<Result<SourceEvent>>,
    assigned: Option<Vec<Assignment>>,
    control: Arc<LogControl>,
    _seat: Option<Seat>,
}

struct LogControl {
    topic: Arc<str>,
    partitions: Vec<i32>,
    inner: Arc<Inner>,
    room: Arc<Room>,
    member: Option<Member>,
}

/// As whom progress is stored.
struct Member {
    group: String,
    log: i64,
    keeper: ProgressKeeper,
    /// None for a reader that does not share in its group.
    ticket: Option<Ticket>,
}

impl LogSource {
    /// Starts the reading thread.
    pub(crate) fn start(
        opened: Opened,
        subscription: Subscription,
        keeper: Option<ProgressKeeper>,
        seat: Option<Seat>,
        inner: &Arc<Inner>,
    ) -> Result<Self> {
        let room = Arc::new(Room::new(subscription.prefetch_bytes_max));
        inner.readers.register(opened.topic.clone(), &room);
        let assigned = opened
            .cursors
            .iter()
            .map(|cursor| Assignment {
                partition: TopicPartition { topic: opened.topic.clone(), partition: cursor.partition },
                next_offset: cursor.next,
                lease: Arc::new(Lease::unbounded()),
            })
            .collect();
        let ticket = seat.as_ref().map(Seat::ticket);
        let member = subscription.group.zip(keeper).map(|(group, keeper)| Member {
            group,
            log: opened.log,
            keeper,
            ticket,
        });
        let control = Arc::new(LogControl {
            topic: opened.topic.clone(),
            partitions: opened.cursors.iter().map(|cursor| cursor.partition).collect(),
            inner: inner.clone(),
            room: room.clone(),
            member,
        });
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let who = opened.who.clone();
        let batch_records_max = subscription.batch_records_max;
        let reader = Reader { opened, room, events: sender, batch_records_max, turn: 0 };
        thread::Builder::new()
            .name("log-reader".into())
            .spawn(move || reader.run())
            .map_err(|e| Error::retry(who, "cannot start a thread").with_source(e))?;
        Ok(LogSource { events, assigned: Some(assigned), control, _seat: seat })
    }
}

#[async_trait]
impl Source for LogSource {
    async fn next(&mut self) -> Result<Option<SourceEvent>> {
        if let Some(assigned) = self.assigned.take() {
            return Ok(Some(SourceEvent::Assigned(assigned)));
        }
        let event = self.events.recv().await.transpose()?;
        if let Some(SourceEvent::Batch(batch)) = &event {
            self.control.room.take(batch.size_bytes());
        }
        Ok(event)
    }

    fn control(&self) -> Arc<dyn Control> {
        self.control.clone()
    }
}

impl Drop for LogSource {
    fn drop(&mut self) {
        self.control.room.close();
    }
}

impl LogControl {
    fn own<'a>(&'a self, partitions: &'a [TopicPartition]) -> impl Iterator<Item = i32> + 'a {
        partitions.iter().filter(|partition| self.has(partition)).map(|partition| partition.partition)
    }

    fn has(&self, partition: &TopicPartition) -> bool {
        partition.topic == self.topic && self.partitions.contains(&partition.partition)
    }
}

#[async_trait]
impl Control for LogControl {
    async fn commit(&self, offsets: &[(TopicPartition, i64)]) -> Result<()> {
        let Some(member) = &self.member else { return Ok(()) };
        if member.ticket.as_ref().is_some_and(Ticket::is_superseded) {
            return Ok(());
        }
        // One offset per partition; the last one given.
        let offsets: HashMap<i32, i64> = offsets
            .iter()
            .filter(|(partition, _)| self.has(partition))
            .map(|(partition, next)| (partition.partition, *next))
            .collect();
        if offsets.is_empty() {
            return Ok(());
        }
        let commit = Commit {
            group: member.group.clone(),
            topic: self.topic.to_string(),
            log: member.log,
            offsets: offsets.into_iter().collect(),
            states: States::new(),
        };
        member.keeper.store(commit).await
    }

    fn transactor(&self, assignment: &Assignment) -> Option<Arc<dyn Transactor>> {
        let member = self.member.as_ref()?;
        let ticket = member.ticket.clone()?;
        Some(Arc::new(LogTransactor {
            inner: self.inner.clone(),
            owner: Owner {
                group: member.group.clone(),
                source: assignment.partition.clone(),
                holder: ticket.number(),
            },
            log: member.log,
            ticket,
            open: Arc::default(),
        }))
    }

    fn pause(&self, partitions: &[TopicPartition]) {
        self.room.pause(self.own(partitions));
    }

    fn resume(&self, partitions: &[TopicPartition]) {
        self.room.resume(self.own(partitions));
    }
}
