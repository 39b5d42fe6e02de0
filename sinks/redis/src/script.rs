//! Scripts: called by their hash, sent whole where the server has not seen them.

use millrace_core::Result;
use redis::{Cmd, ErrorKind, RedisResult, ServerErrorKind, Value};

use crate::connection::Connection;

/// A Lua script that the program brings along.
#[derive(Debug)]
pub(crate) struct Script {
    body: &'static str,
    hash: String,
}

/// The words a call of a script begins with.
pub(crate) type Verb<'a> = [&'a str; 2];

impl Script {
    pub(crate) fn new(body: &'static str) -> Self {
        Script { body, hash: redis::Script::new(body).get_hash().to_owned() }
    }

    /// The command that makes the server know it.
    pub(crate) fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(self.body);
        command
    }

    /// Runs `count` calls in order; `compose` gives each as a command that begins with the verb. Calls that the
    /// server did not know the script for (a restart, a flush, a failover) are repeated with its text.
    ///
    /// # Errors
    /// Retry or Fatal when the connection failed: nothing is known of any call then.
    pub(crate) async fn invoke(
        &self,
        connection: &Connection,
        count: usize,
        compose: impl Fn(usize, Verb<'_>) -> Cmd,
    ) -> Result<Vec<RedisResult<Value>>> {
        let by_hash = (0..count).map(|index| compose(index, ["EVALSHA", &self.hash])).collect();
        let mut results = connection.run(by_hash).await?;
        let unknown: Vec<usize> = (0..results.len()).filter(|index| is_unknown(&results[*index])).collect();
        if !unknown.is_empty() {
            let whole = unknown.iter().map(|index| compose(*index, ["EVAL", self.body])).collect();
            for (index, result) in unknown.into_iter().zip(connection.run(whole).await?) {
                results[index] = result;
            }
        }
        Ok(results)
    }
}

fn is_unknown(result: &RedisResult<Value>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
}
