//! The runtime: reads records, runs steps and lookups, writes sinks, and commits what is done.
//!
//! One [`Pipeline`] has one source and a worker per partition. A worker takes a batch, decodes it, flows it
//! through the stages and hands the outputs to all sinks; what a record is rejected for becomes a dead letter;
//! when every output of every record is acknowledged, the batch's next offset may be committed. So the
//! committed offset is always the lowest one not done, and nothing that was read is forgotten.

mod appender;
mod attempts;
mod backoff;
mod breaker;
mod cache;
mod clock;
mod dead_letter;
mod decode;
mod delivery;
mod driver;
mod fleet;
mod flow;
mod health;
mod ledger;
mod letter_cap;
mod letters;
mod look_back;
mod lookup;
mod metrics;
mod partitions;
mod pipeline;
mod portions;
mod quarantine;
mod rehearse;
mod steering;
mod topic_sink;
mod transaction;
mod trial;
mod until_end;
mod versions;
mod worker;

pub use backoff::{Backoff, Exhausted, RetryPolicy};
pub use breaker::{Breaker, BreakerPolicy};
pub use clock::Clock;
pub use dead_letter::{DeadLetter, DeadLetterQueue, FORMAT as DEAD_LETTER_FORMAT, Place};
pub use decode::{Decode, Format};
pub use driver::{Mode, Summary, run_pipeline};
pub use fleet::{Fleet, FleetReport, run_fleet};
pub use health::{BreakerState, Endpoint, Health, LastError, PipelineState};
pub use ledger::GuardedLedger;
pub use letters::{
    Entry, Letter, LetterId, LetterLog, Outcome, RESOLVES, Replay, Replayed, Resolution, Scan, read_again,
};
pub use lookup::{Guard, LookupKind, LookupStep};
pub use metrics::Metrics;
pub use pipeline::{Limits, ModuleAbout, OnGap, Pipeline, SinkPart, StepPart};
pub use quarantine::{Quarantine, Then};
pub use rehearse::{Rehearsal, rehearse};
pub use steering::{Gate, HeldBy, Pause, Steering};
pub use topic_sink::TopicSink;
pub use trial::{Difference, Differing, Findings, Manner, Part, Trial, Tried};
pub use versions::{
    Begun, History, Refused, StepPlace, Version, VersionLog, VersionSource, Versions, WeakVersions,
};
