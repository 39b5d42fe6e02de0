//! Taking partitions over and handing them over.
//!
//! librdkafka waits for our answer to each rebalance, so none is hurried: a partition is taken only when it is
//! known where to start, and given up only when the pipeline has finished with it or its time is over. Other
//! partitions go on meanwhile.

use std::{collections::BTreeMap, sync::Arc};

use millrace_core::{Assignment, Error, Lease, PartitionSpan, Result, SourceEvent, Start};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
};
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::Instant,
};

use super::{QUESTION, Reader};
use crate::{
    cluster::{self, committed, spans},
    context::{Notice, give_up},
    placement::{Place, place},
    slots::Slot,
};

/// How often progress beyond the end is looked at again before it is believed.
const BEYOND_END_MAX: u32 = 10;

/// Why a partition has no place.
enum Unplaced {
    /// The cluster did not answer, or not yet usefully.
    Asked(KafkaError),
    /// What was read of it is not there any more.
    Beyond(Error),
}

impl From<KafkaError> for Unplaced {
    fn from(error: KafkaError) -> Self {
        Unplaced::Asked(error)
    }
}

/// Partitions on their way out.
pub struct Handover {
    partitions: Vec<i32>,
    done: oneshot::Receiver<()>,
    deadline: Instant,
}

impl Reader {
    /// Takes in what the group decided.
    pub(super) fn answer_group(&mut self) -> Result<()> {
        if !self.consumer.context().is_noticed() {
            return Ok(());
        }
        for notice in self.consumer.context().take_notices() {
            match notice {
                Notice::Assigned(partitions) => {
                    tracing::info!(topic = &*self.plan.topic, ?partitions, "partitions assigned");
                    self.joining.extend(partitions);
                    // Accepts the decision; the partitions follow when it is known where they start.
                    let none = TopicPartitionList::new();
                    self.consumer.incremental_assign(&none).map_err(|error| self.call_error(&error))?;
                }
                Notice::Revoked { partitions, lost } => {
                    tracing::info!(topic = &*self.plan.topic, ?partitions, lost, "partitions revoked");
                    self.revoke(&partitions, lost);
                }
            }
        }
        Ok(())
    }

    fn revoke(&mut self, partitions: &[i32], lost: bool) {
        let mut owned = Vec::new();
        for partition in partitions {
            self.joining.remove(partition);
            let Some(slot) = self.slots.get_mut(*partition) else { continue };
            if lost {
                slot.lease.revoke();
            }
            if !slot.leaving {
                slot.leave();
                owned.push(*partition);
            }
        }
        if lost {
            self.desk.disown(partitions);
        }
        let (done, wait) = oneshot::channel();
        let told = owned.iter().map(|partition| self.partition(*partition)).collect();
        self.mailbox.revoke(SourceEvent::Revoked { partitions: told, lost, done });
        let deadline = Instant::now() + self.clients.options.handover();
        self.handovers.push(Handover { partitions: owned, done: wait, deadline });
    }

    /// Gives up the partitions that the pipeline has finished with, and those whose time is over.
    pub(super) fn finish_handovers(&mut self) {
        let now = Instant::now();
        for mut handover in std::mem::take(&mut self.handovers) {
            let waits = matches!(handover.done.try_recv(), Err(TryRecvError::Empty));
            if waits && now < handover.deadline {
                self.handovers.push(handover);
                continue;
            }
            if waits {
                let partitions = &handover.partitions;
                tracing::warn!(topic = &*self.plan.topic, ?partitions, "revoked before their work had ended");
            }
            self.desk.disown(&handover.partitions);
            for partition in &handover.partitions {
                if let Some(slot) = self.slots.remove(*partition) {
                    slot.lease.revoke();
                }
            }
            // Also when there is nothing to give up: librdkafka waits for the answer.
            if let Err(error) = self.unassign(&handover.partitions) {
                tracing::warn!(topic = &*self.plan.topic, %error, "a rebalance could not be answered");
            }
        }
    }

    fn unassign(&self, partitions: &[i32]) -> KafkaResult<()> {
        let assigned = self.consumer.assignment()?;
        let mut list = TopicPartitionList::new();
        for element in assigned.elements() {
            if partitions.contains(&element.partition()) {
                list.add_partition(element.topic(), element.partition());
            }
        }
        self.consumer.incremental_unassign(&list)
    }

    /// Finds out where the new partitions start, and starts them.
    pub(super) fn join(&mut self) -> Result<()> {
        if self.joining.is_empty() || Instant::now() < self.rest_until {
            return Ok(());
        }
        let partitions: Vec<i32> = self.joining.iter().copied().collect();
        let places = match self.starting_places(&partitions) {
            Ok(places) => places,
            Err(unplaced) => return self.not_placed(unplaced),
        };
        self.beyond_end = 0;
        for (partition, place) in &places {
            let lease = if self.plan.shared { Lease::new(self.pulse.span()) } else { Lease::unbounded() };
            self.slots.insert(*partition, Slot::new(Arc::new(lease), place.next_offset));
        }
        if let Err(error) = self.seat(&partitions) {
            partitions.iter().for_each(|partition| drop(self.slots.remove(*partition)));
            return self.question_failed(&error);
        }
        self.joining.clear();
        self.desk.own(partitions.iter().copied());
        let mut assignments = Vec::with_capacity(places.len());
        for (partition, place) in &places {
            let at = self.partition(*partition);
            if let Some(slot) = self.slots.get_mut(*partition) {
                assignments.push(Assignment {
                    partition: at,
                    next_offset: place.next_offset,
                    lease: slot.lease.clone(),
                });
            }
        }
        self.mailbox.push(SourceEvent::Assigned(assignments));
        places.iter().for_each(|(partition, place)| self.tell_gap(*partition, place));
        Ok(())
    }

    fn starting_places(&mut self, partitions: &[i32]) -> Result<Vec<(i32, Place)>, Unplaced> {
        let progress = match self.plan.group {
            true => committed(&self.consumer, &self.plan.topic, partitions, QUESTION)?,
            false => BTreeMap::new(),
        };
        let spans = self.spans(partitions)?;
        let start = self.plan.start;
        spans
            .into_iter()
            .map(|(partition, span)| {
                Ok((partition, self.decide(partition, progress.get(&partition).copied(), span, start)?))
            })
            .collect()
    }

    /// A partition has lost its place: what it should read next is gone. Starts it again where the log does, and
    /// tells what was lost.
    pub(super) fn find_places_again(&mut self) -> Result<()> {
        if !self.misplaced || Instant::now() < self.rest_until {
            return Ok(());
        }
        let mut moved = match self.misplaced_places() {
            Ok(moved) => moved,
            Err(unplaced) => return self.not_placed(unplaced),
        };
        self.beyond_end = 0;
        if moved.is_empty() {
            // It is not said which partition stands still, so all begin again where they are.
            let all = self.slots.iter_mut().filter(|(_, slot)| !slot.leaving);
            moved = all
                .map(|(number, slot)| (number, Place { next_offset: slot.next_offset, gap_from: None }))
                .collect();
        }
        self.flush();
        for (partition, place) in &moved {
            if let Some(slot) = self.slots.get_mut(*partition) {
                slot.next_offset = place.next_offset;
                slot.paused = None;
            }
        }
        let partitions: Vec<i32> = moved.iter().map(|(partition, _)| *partition).collect();
        let seated = match self.plan.shared {
            true => self.unassign(&partitions).and_then(|()| self.seat(&partitions)),
            false => self.seat(&partitions),
        };
        self.desk.touch();
        moved.iter().for_each(|(partition, place)| self.tell_gap(*partition, place));
        match seated {
            Ok(()) => {
                self.misplaced = false;
                Ok(())
            }
            Err(error) => self.question_failed(&error),
        }
    }

    fn misplaced_places(&mut self) -> Result<Vec<(i32, Place)>, Unplaced> {
        let owned: Vec<(i32, i64)> = self
            .slots
            .iter_mut()
            .filter(|(_, slot)| !slot.leaving)
            .map(|(partition, slot)| (partition, slot.next_offset))
            .collect();
        let spans = self.spans(&owned.iter().map(|(partition, _)| *partition).collect::<Vec<_>>())?;
        let mut moved = Vec::new();
        for ((partition, next_offset), (_, span)) in owned.into_iter().zip(spans) {
            let place = self.decide(partition, Some(next_offset), span, Start::Beginning)?;
            if place.next_offset != next_offset {
                moved.push((partition, place));
            }
        }
        Ok(moved)
    }

    /// The place of a partition. Progress beyond the end passes when the broker that answered has only just
    /// become the leader; when it does not pass, the log is not the one that was read.
    fn decide(
        &mut self,
        partition: i32,
        progress: Option<i64>,
        span: PartitionSpan,
        start: Start,
    ) -> Result<Place, Unplaced> {
        if let Some(place) = place(progress, span, start) {
            return Ok(place);
        }
        self.beyond_end += 1;
        if self.beyond_end < BEYOND_END_MAX {
            return Err(Unplaced::Asked(KafkaError::OffsetFetch(Code::OffsetNotAvailable)));
        }
        let (at, end) = (self.partition(partition), span.end);
        let why = format!(
            "{at} was read up to offset {}, but ends at {end}: the topic was made anew or cut; reset the group's \
             progress",
            progress.unwrap_or_default()
        );
        Err(Unplaced::Beyond(Error::fatal(&self.clients.who, why)))
    }

    fn not_placed(&mut self, unplaced: Unplaced) -> Result<()> {
        match unplaced {
            Unplaced::Asked(error) => self.question_failed(&error),
            Unplaced::Beyond(error) => Err(error),
        }
    }

    /// Tells librdkafka where partitions start. Without a group that shares them it takes only all at once.
    fn seat(&mut self, partitions: &[i32]) -> KafkaResult<()> {
        let shared = self.plan.shared;
        let mut list = TopicPartitionList::new();
        for (partition, slot) in self.slots.iter_mut() {
            if !shared || partitions.contains(&partition) {
                list.add_partition_offset(&self.plan.topic, partition, Offset::Offset(slot.next_offset))?;
            }
        }
        if shared { self.consumer.incremental_assign(&list) } else { self.consumer.assign(&list) }
    }

    fn spans(&self, partitions: &[i32]) -> KafkaResult<Vec<(i32, PartitionSpan)>> {
        let places: Vec<cluster::Place> =
            partitions.iter().map(|partition| (self.plan.topic.to_string(), *partition)).collect();
        let spans = spans(&self.consumer, &places, QUESTION)?;
        Ok(spans.into_iter().map(|((_, partition), span)| (partition, span)).collect())
    }

    fn tell_gap(&self, partition: i32, place: &Place) {
        if let Some(from) = place.gap_from {
            let partition = self.partition(partition);
            self.mailbox.push(SourceEvent::Gap { partition, from, to: place.next_offset });
        }
    }

    /// Leaves the group. What it still asks is answered with giving everything up; the client, when the last
    /// who holds it lets go, says goodbye.
    pub(super) fn leave(&mut self) {
        let context = self.consumer.context();
        context.close();
        for _ in self.handovers.drain(..) {
            give_up(&self.consumer, false);
        }
        for notice in context.take_notices() {
            give_up(&self.consumer, matches!(notice, Notice::Assigned(_)));
        }
    }
}
