//! Test doubles and conformance suites: what every connector, step and sink must pass, run against the memory
//! doubles and against real servers alike. A dev-dependency only.

pub mod broker_suite;
pub mod index_suite;
pub mod memory;
pub mod message;
pub mod sim;
pub mod transaction_suite;
pub mod views_suite;
