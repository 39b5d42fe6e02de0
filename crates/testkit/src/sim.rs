//! A world in one thread, in which everything that can go wrong does, by the numbers that one seed gives.
//!
//! The runtime runs in it unchanged, as several processes with a log, groups and stores between them. Time is
//! tokio's paused clock; every wait, order and fault comes from one generator, so a seed is a run: the same one
//! each time. What the parts are:
//!
//! - [`World`]: the generator, the faults, the trace, and what must never happen.
//! - [`Process`]: runs, is stopped, or is dead; nothing else of it is simulated, its tasks are the real ones.
//! - `network`: a request may be refused, lost, late, done without an answer, or cut short.
//! - [`Log`]: topics, and groups with sessions, epochs and hand-overs; [`SimBroker`] is a process's client of it.
//! - [`Kept`]: what a store holds, changed by atomic operations; [`SimStore`] is a process's client of it.
//! - [`Plant`]: bugs that somebody could have written, to show that a simulation finds them.

mod broker;
mod document;
mod group;
mod index;
mod kept;
mod log;
mod lookup;
mod member;
mod network;
mod process;
mod sink;
mod source;
mod store;
mod transactor;
mod world;

pub use broker::SimBroker;
pub use kept::Kept;
pub use log::Log;
pub use network::System;
pub use process::Process;
pub use store::{REFUSED, SimStore, StoreReader};
pub use world::{Faults, Plant, World};
