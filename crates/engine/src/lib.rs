//! The WASM host: a SmartModule of Fluvio's ABI, version 22, as a [`millrace_core::Step`].
//!
//! [`SmartEngine`] compiles and checks a module once; the [`ModuleFactory`] it gives opens one instance for each
//! partition's worker. A module is a stranger: every pointer it gives is checked, every call has a deadline, and
//! memory, tables, output and fan-out have limits, so that a defect costs the record at fault and nothing else.
//!
//! Inside, from the outside in: `engine`, `instrument` and `cache` compile; `module` and `program` check and link;
//! `step` applies a batch, by the `plan` that narrows a failure down to its record; `call` is one call of the transform
//! and what its outputs came from; `measure` says what that costs; `instance` is the guest itself, `deadline` and `clock`
//! end its calls, `room` is how far it may grow; `abi` is the bytes between host and guest.

mod abi;
mod cache;
mod call;
mod clock;
mod deadline;
mod engine;
mod fault;
mod frame;
mod history;
mod instance;
mod instrument;
mod limits;
mod measure;
mod memory;
mod module;
mod plan;
mod program;
mod room;
mod step;
mod wasi;

pub use abi::Kind;
pub use engine::{EngineOptions, SmartEngine};
pub use limits::Limits;
pub use measure::Measured;
pub use module::ModuleInfo;
pub use program::{ModuleFactory, ModuleOptions};
