//! Against real servers: one Redis, the same with a password and with TLS, and a cluster of three masters.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "server/cluster.rs"]
mod cluster;
#[path = "server/connecting.rs"]
mod connecting;
#[path = "server/keys.rs"]
mod keys;
#[path = "server/single.rs"]
mod single;
mod support;
