//! Pipelines as state: what a pipeline file would change against the one that is applied and the world as it was
//! observed, as a [`Planned`] with a hash; and what each pipeline depends on, so that a running process restarts only
//! what has changed.
//!
//! All of it works on files whose variables are not expanded, so what is shown, hashed and stored is what somebody
//! wrote, and never what a variable holds.

mod address;
mod file;
mod plan;
mod tree;
mod world;

pub use address::{Address, address};
pub use file::{FileState, dependencies, digest};
pub use plan::{Action, Change, Planned, Subject, plan};
pub use tree::{Difference, differences};
pub use world::{GroupWorld, IndexWorld, TopicWorld, World};
