//! What tests against real servers share: where the servers are, and how to look at what was written.

#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "tests, and each binary uses a part")]

mod reader;

use millrace_core::settings::Problems;
use millrace_redis::{RedisSettings, RedisStore};
use millrace_testkit::views_suite::settings;

pub(crate) use reader::Reader;

/// A variable that `scripts/test` sets.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run scripts/test, or: eval \"$(scripts/services env)\"")
    })
}

/// A store of these settings.
pub(crate) fn open(pairs: &[(&str, &str)]) -> RedisStore {
    let mut problems = Problems::default();
    let read = RedisSettings::read(&settings(pairs), &mut problems);
    RedisStore::open("test", read.unwrap_or_else(|| panic!("{problems:?}"))).unwrap()
}

/// Begins the keys of one test: unique, so that runs share a server.
pub(crate) fn prefix(name: &str) -> String {
    format!("test:{name}:{:016x}", rand::random::<u64>())
}
