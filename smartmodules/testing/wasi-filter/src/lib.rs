//! A filter that asks WASI for what a host may give (clock, random numbers, output) and for what it must not (files,
//! environment), one request a record. A record is kept where the request was granted.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the host's clock is what is asked for"
)]

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::Write;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fluvio_smartmodule::{Result, SmartModuleRecord, eyre, smartmodule};

/// Keeps a record whose text names something that is granted; another text is an error.
#[smartmodule(filter)]
pub fn filter(record: &SmartModuleRecord) -> Result<bool> {
    match record.value.as_ref() {
        b"clock" => Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() > 0
            && Instant::now().elapsed().as_secs() < 60),
        b"random" => Ok(RandomState::new().hash_one(0) != RandomState::new().hash_one(1)),
        b"stdout" => Ok(writeln!(std::io::stdout(), "a line from the guest").is_ok()),
        b"stderr" => Ok(writeln!(std::io::stderr(), "a complaint from the guest").is_ok()),
        b"file" => Ok(std::fs::read("/etc/hostname").is_ok()),
        b"environment" => Ok(std::env::vars_os().next().is_some()),
        _ => Err(eyre!("not a request")),
    }
}
