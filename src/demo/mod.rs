//! The demo: the reference pipelines on a generated social network, in one folder, without any server.

mod events;
mod live;
mod network;
mod report;

pub use events::{Day, Event, user};
pub use live::{Live, effects};
pub use network::Network;
pub use report::{Post, Report, feed, reasons};
