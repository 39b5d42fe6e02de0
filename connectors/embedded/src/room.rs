//! What a source's thread and its consumer share: how many bytes lie between them, which partitions are held
//! back, and the bell that wakes the thread.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Condvar, Mutex, MutexGuard, Weak},
    time::Duration,
};

/// Between one reading thread and its consumer.
#[derive(Debug)]
pub(crate) struct Room {
    state: Mutex<State>,
    changed: Condvar,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    held_bytes: usize,
    paused: BTreeSet<i32>,
    closed: bool,
    /// There may be something to read.
    woken: bool,
    /// Bytes were taken out.
    freed: bool,
}

/// The room as the thread saw it.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) closed: bool,
    pub(crate) paused: BTreeSet<i32>,
    pub(crate) free_bytes: usize,
    /// Nothing is held: one record may be larger than the room.
    pub(crate) empty: bool,
}

impl Room {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Room { state: Mutex::default(), changed: Condvar::new(), bytes_max }
    }

    /// Looks, and forgets the wakings before: what they told of is seen by the reading that follows.
    pub(crate) fn look(&self) -> Look {
        let mut state = self.state();
        state.woken = false;
        state.freed = false;
        Look {
            closed: state.closed,
            paused: state.paused.clone(),
            free_bytes: self.bytes_max.saturating_sub(state.held_bytes),
            empty: state.held_bytes == 0,
        }
    }

    /// The thread puts bytes in.
    pub(crate) fn put(&self, bytes: usize) {
        self.state().held_bytes += bytes;
    }

    /// The consumer took bytes out.
    pub(crate) fn take(&self, bytes: usize) {
        let mut state = self.state();
        state.held_bytes = state.held_bytes.saturating_sub(bytes);
        state.freed = true;
        self.changed.notify_all();
    }

    /// Waits until woken; also until bytes are taken out, if the thread had no room for what it read.
    pub(crate) fn wait(&self, starved: bool, at_most: Duration) {
        let asleep = |state: &mut State| !(state.closed || state.woken || (starved && state.freed));
        drop(
            self.changed
                .wait_timeout_while(self.state(), at_most, asleep)
                .expect("invariant: nobody panics while holding the room"),
        );
    }

    pub(crate) fn pause(&self, partitions: impl Iterator<Item = i32>) {
        self.state().paused.extend(partitions);
    }

    pub(crate) fn resume(&self, partitions: impl Iterator<Item = i32>) {
        let mut state = self.state();
        for partition in partitions {
            state.paused.remove(&partition);
        }
        state.woken = true;
        self.changed.notify_all();
    }

    /// The consumer is gone.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    fn wake(&self) {
        self.state().woken = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("invariant: nobody panics while holding the room")
    }
}

/// The sources of this process and their topics: appends wake those that read the topic. Other processes'
/// appends are found by looking.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readers {
    rooms: Arc<Mutex<Rooms>>,
}

/// Topics and the rooms of their readers.
type Rooms = Vec<(Arc<str>, Weak<Room>)>;

impl Readers {
    pub(crate) fn register(&self, topic: Arc<str>, room: &Arc<Room>) {
        self.rooms().push((topic, Arc::downgrade(room)));
    }

    pub(crate) fn wake(&self, topics: &HashSet<&str>) {
        self.rooms().retain(|(topic, room)| match room.upgrade() {
            None => false,
            Some(room) => {
                if topics.contains(&**topic) {
                    room.wake();
                }
                true
            }
        });
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().expect("invariant: nobody panics while holding the list")
    }
}
