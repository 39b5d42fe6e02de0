//! What happens when a system fails: breakers, time-outs, budgets, the cap on dead letters, isolation. Against
//! doubles in memory, under paused time.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod breakers;
mod budgets;
mod caps;
mod doubles;
mod lanes;
mod stage;
