//! What a run is asked to do, and what it did.

/// When a run ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only when it is told to.
    Forever,
    /// When the group's progress covers what the topic held at the start.
    UntilEnd,
}

/// What a run did, in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records read.
    pub records: u64,
    /// Of these, records of event types that the pipeline does not list.
    pub skipped: u64,
    /// Of these, dead letters.
    pub dead_letters: u64,
}

impl Summary {
    /// Counts what another run did.
    pub(crate) fn add(&mut self, more: Summary) {
        self.records += more.records;
        self.skipped += more.skipped;
        self.dead_letters += more.dead_letters;
    }
}
