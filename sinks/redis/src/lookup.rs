//! Lookups: pages of sets, documents, guards; one round trip each.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::BytesMut;
use millrace_core::{Error, Lookup, Page, PageRequest, Result};
use redis::{Cmd, RedisResult, Value, from_redis_value};
use tokio::time::Duration;

use crate::{connection::Connection, slot};

/// Reads what the sinks of the store wrote.
pub(crate) struct RedisLookup {
    connection: Arc<Connection>,
}

impl RedisLookup {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        RedisLookup { connection }
    }

    /// Answers of the expected type.
    async fn read<T: redis::FromRedisValue>(&self, commands: Vec<Cmd>) -> Result<Vec<T>> {
        let results = self.connection.run(commands).await?;
        results.into_iter().map(|result| self.value(result)).collect()
    }

    fn value<T: redis::FromRedisValue>(&self, result: RedisResult<Value>) -> Result<T> {
        let value = result.map_err(|error| self.connection.error(error))?;
        from_redis_value(value).map_err(|error| {
            Error::reject(self.connection.who(), "the key holds something else than text").with_source(error)
        })
    }
}

#[async_trait]
impl Lookup for RedisLookup {
    async fn members(&self, requests: &[PageRequest]) -> Result<Vec<Page>> {
        let commands = requests.iter().map(page_command).collect();
        let found: Vec<Vec<String>> = self.read(commands).await?;
        Ok(requests.iter().zip(found).map(|(request, members)| page(request, members)).collect())
    }

    async fn documents(&self, keys: &[String]) -> Result<Vec<Option<String>>> {
        let commands = keys.iter().map(|key| command("GET", key)).collect();
        self.read(commands).await
    }

    async fn close(&self, guards: &[String], ttl: Duration) -> Result<()> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        let commands = guards
            .iter()
            .map(|guard| {
                let mut set = command("SET", &guard_key(guard));
                set.arg(1).arg("PX").arg(ttl_ms);
                set
            })
            .collect();
        let _: Vec<Value> = self.read(commands).await?;
        Ok(())
    }

    async fn closed(&self, guards: &[String]) -> Result<Vec<bool>> {
        let commands = guards.iter().map(|guard| command("EXISTS", &guard_key(guard))).collect();
        self.read(commands).await
    }
}

fn command(name: &str, key: &str) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key);
    command
}

/// One member more than wanted tells whether there is another page.
fn page_command(request: &PageRequest) -> Cmd {
    let mut range = command("ZRANGE", &request.key);
    match &request.after {
        Some(member) => range.arg(format!("({member}")),
        None => range.arg("-"),
    };
    range.arg("+").arg("BYLEX").arg("LIMIT").arg(0).arg(u64::from(request.members_max) + 1);
    range
}

fn page(request: &PageRequest, mut members: Vec<String>) -> Page {
    let members_max = usize::try_from(request.members_max).unwrap_or(usize::MAX);
    let more = members.len() > members_max;
    members.truncate(members_max);
    Page { members, more }
}

/// A guard's key. Guards are never written together with another key, so that any text will do.
fn guard_key(guard: &str) -> String {
    let mut key = BytesMut::new();
    slot::write_companion(&mut key, "closed", guard);
    String::from_utf8_lossy(&key).into_owned()
}
