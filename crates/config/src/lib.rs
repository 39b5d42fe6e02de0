//! Pipeline files: YAML with line numbers, checked into a [`Plan`]. No I/O.
//!
//! A file is read in steps that do not mix. [`parse`] makes a tree of located nodes; variables are substituted
//! in its values, never in its structure; the tree is checked against tables (the file's own, and those of the
//! [`Catalog`]); names are resolved; and what needs all of it is checked last: cycles of topics, ledgers against
//! retention. Every step goes on after a mistake, so that one run shows them all.

mod catalog;
mod check;
mod events;
mod fields;
mod graph;
mod modules;
mod names;
mod parse;
mod part;
mod pipeline;
mod plan;
mod policy;
mod reference;
mod render;
mod retention;
mod schema;
mod secrets;
mod select;
mod sinks;
mod steps;
mod systems;
mod tables;
mod topics;
mod tree;
mod trial;
mod variables;
mod world;

pub use catalog::{Catalog, EMBEDDED, Handover, Memory, Section, SettingsCheck, SinkKind, SinkTarget, TOPIC};
pub use check::{load, load_embedded};
pub use fields::ENVELOPE_FIELDS;
pub use parse::{DEPTH_MAX, FILE_BYTES_MAX, KEY_BYTES_MAX, NODES_MAX, TEXT_BYTES_MAX, parse};
pub use plan::{
    BatchPlan, BreakerPlan, CanaryPart, ExhaustedPolicy, FromPlan, GapPolicy, GuardPlan, InFlightPlan,
    LookupPlan, LookupQuery, ModuleLimits, ModulePlan, ModuleSource, Output, PipelinePlan, Plan,
    QuarantinePlan, QuarantinePolicy, RecordFormat, RetryPlan, SinkPlan, StepPlan, SystemPlan, TopicPlan,
    TrialManner, TrialPlan,
};
pub use reference::reference;
pub use render::render;
pub use schema::schema;
pub use secrets::inline_secrets;
pub use systems::broker;
pub use tables::OBJECTS;
