//! Who reads what in this process: a group has one member per topic, which owns all partitions. A second one
//! is refused, because two would do the same work twice; more members are what Kafka is for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// Group and topic.
type Place = (String, String);

/// The taken seats.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seats {
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    seats: HashMap<Place, u64>,
    last: u64,
}

/// A member's seat; free again when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    ticket: Ticket,
}

/// Recognises a seat after its member has left.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    seats: Seats,
    place: Place,
    number: u64,
}

impl Seats {
    /// The seat, unless it is taken.
    pub(crate) fn take(&self, group: &str, topic: &str) -> Option<Seat> {
        let place = (group.to_owned(), topic.to_owned());
        let mut taken = self.taken();
        if taken.seats.contains_key(&place) {
            return None;
        }
        taken.last += 1;
        let number = taken.last;
        taken.seats.insert(place.clone(), number);
        Some(Seat { ticket: Ticket { seats: self.clone(), place, number } })
    }

    /// Whether somebody has it.
    pub(crate) fn is_taken(&self, group: &str, topic: &str) -> bool {
        self.taken().seats.contains_key(&(group.to_owned(), topic.to_owned()))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().expect("invariant: nobody panics while holding the seats")
    }
}

impl Seat {
    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.ticket.seats.taken().seats.remove(&self.ticket.place);
    }
}

impl Ticket {
    /// Which one it is, in this process.
    pub(crate) fn number(&self) -> i64 {
        i64::try_from(self.number).unwrap_or(i64::MAX)
    }

    /// Whether somebody else has the seat now.
    pub(crate) fn is_superseded(&self) -> bool {
        self.seats.taken().seats.get(&self.place).is_some_and(|number| *number != self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_again_and_old_tickets_know() {
        let seats = Seats::default();
        let seat = seats.take("g", "t").expect("a free seat");
        assert!(seats.take("g", "t").is_none());
        assert!(seats.take("g", "other").is_some() && seats.take("other", "t").is_some());
        let ticket = seat.ticket();
        drop(seat);
        assert!(!ticket.is_superseded());
        let second = seats.take("g", "t").expect("free again");
        assert!(ticket.is_superseded() && !second.ticket().is_superseded());
    }
}
