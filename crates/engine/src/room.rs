//! How far an instance may grow before it is replaced: all instances of an engine share a budget, so that few of them
//! may grow far and are seldom replaced, and many stay small.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What all instances may have grown by, as long as each has a share that is worth having.
const BUDGET_BYTES: usize = 128 << 20;

/// The least and the most that one may grow: opening another one costs about what some hundred records do.
const GROWTH_BYTES_MIN: usize = 2 << 20;
const GROWTH_BYTES_MAX: usize = 16 << 20;

/// The instances that live.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room(Arc<AtomicUsize>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Room);

impl Room {
    /// One more lives.
    pub(crate) fn enter(&self) -> Place {
        self.0.fetch_add(1, Ordering::Relaxed);
        Place(self.clone())
    }
}

impl Place {
    /// What it may have grown by.
    pub(crate) fn growth_bytes_max(&self) -> usize {
        let living = self.0.0.load(Ordering::Relaxed).max(1);
        (BUDGET_BYTES / living).clamp(GROWTH_BYTES_MIN, GROWTH_BYTES_MAX)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_may_grow_far_and_many_little() {
        let room = Room::default();
        let first = room.enter();
        assert_eq!(first.growth_bytes_max(), GROWTH_BYTES_MAX);
        let others: Vec<Place> = (0..31).map(|_| room.enter()).collect();
        assert_eq!(first.growth_bytes_max(), BUDGET_BYTES / 32);
        let more: Vec<Place> = (0..500).map(|_| room.enter()).collect();
        assert_eq!(first.growth_bytes_max(), GROWTH_BYTES_MIN);
        drop((others, more));
        assert_eq!(first.growth_bytes_max(), GROWTH_BYTES_MAX);
    }
}
