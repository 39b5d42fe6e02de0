//! How Millrace opens a SQLite file and works on it. The embedded log and the embedded views are two crates
//! that share a folder, and one of its files: they agree here on pragmas, format numbers, error classes and on
//! the thread that does the work, so that neither blocks the asynchronous runtime. The spool opens its file here,
//! too.

mod clock;
mod database;
mod failure;
mod lock;
mod mailbox;

pub use clock::{Clock, system_clock};
pub use database::{Database, transact};
pub use failure::Failure;
pub use lock::{FileLock, NotLocked};
pub use mailbox::{Inbox, Mailbox, Wait, mailbox};
