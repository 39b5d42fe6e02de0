//! Running the real binary, and the systems it talks to, from tests.

pub mod corpus;
pub mod millrace;
pub mod modules;
pub mod pipelines;
pub mod proxy;
pub mod reference;
pub mod running;
pub mod servers;
