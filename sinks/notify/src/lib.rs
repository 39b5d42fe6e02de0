//! Notification channels. A channel is a file of its own ([`WEBHOOK`] is `webhook.rs`) that knows how to encode
//! and to deliver once; what all channels need stands beside it: the ledger that keeps a redelivered event from
//! being delivered again (`once.rs`), and the guard that keeps a destination out of our own network (`guard.rs`).

mod guard;
mod once;
mod webhook;

pub use webhook::{Clock, Options, WEBHOOK, Webhook};
