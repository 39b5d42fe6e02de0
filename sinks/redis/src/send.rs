//! The sink of every view: encodes through the view, sends one script per call, answers for each.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use millrace_core::{Answer, Call, Encoded, Message, Ordinals, Result, Sink};
use redis::Cmd;

use crate::{
    calls::Calls,
    connection::Connection,
    script::{Script, Verb},
};

/// What a view adds to a sink: how its messages become operations, and the script that applies them.
pub(crate) trait Writes: Send + Sync {
    /// The kind of its calls.
    fn kind(&self) -> &'static str;

    /// The script of a call.
    fn script(&self) -> &'static Script;

    /// How many parts of an operation are keys; they come first.
    fn keys_per_op(&self) -> usize;

    /// The script's arguments before those of the operations.
    fn constants(&self) -> &[String];

    /// The operations of a batch, in its order.
    fn encode(&self, messages: &[Message], ordinals: &mut Ordinals, calls: &mut Calls);
}

/// Writes one view.
pub(crate) struct RedisSink {
    connection: Arc<Connection>,
    view: Box<dyn Writes>,
}

impl RedisSink {
    pub(crate) fn new(connection: Arc<Connection>, view: Box<dyn Writes>) -> Self {
        RedisSink { connection, view }
    }

    /// A call as a command: the script, all keys, then the constants and all arguments.
    fn command(&self, call: &Call, verb: Verb<'_>) -> Cmd {
        let keys_per_op = self.view.keys_per_op();
        let constants = self.view.constants();
        let keys = call.ops.len() * keys_per_op;
        let parts = 3 + constants.len() + call.ops.iter().map(|op| op.parts.len()).sum::<usize>();
        let bytes = call.size_bytes() + verb.iter().map(|word| word.len()).sum::<usize>() + 64;
        let mut command = Cmd::with_capacity(parts, bytes);
        command.arg(verb[0]).arg(verb[1]).arg(keys);
        for op in &call.ops {
            append(&mut command, &op.parts[..keys_per_op]);
        }
        for constant in constants {
            command.arg(constant);
        }
        for op in &call.ops {
            append(&mut command, &op.parts[keys_per_op..]);
        }
        command
    }
}

fn append(command: &mut Cmd, parts: &[Bytes]) {
    for part in parts {
        command.arg(part.as_ref());
    }
}

#[async_trait]
impl Sink for RedisSink {
    async fn prepare(&self) -> Result<()> {
        let loaded = self.connection.run(vec![self.view.script().load()]).await?;
        match loaded.into_iter().next() {
            Some(Err(error)) => Err(self.connection.error(error)),
            _ => Ok(()),
        }
    }

    fn encode(&self, messages: &[Message]) -> Encoded {
        self.encode_part(messages, &mut Ordinals::default())
    }

    fn encode_part(&self, messages: &[Message], ordinals: &mut Ordinals) -> Encoded {
        let mut calls = Calls::new(self.view.kind(), self.connection.is_cluster(), messages.len());
        self.view.encode(messages, ordinals, &mut calls);
        calls.finish()
    }

    async fn send(&self, calls: &[Call]) -> Vec<Answer> {
        let invoked = self
            .view
            .script()
            .invoke(&self.connection, calls.len(), |index, verb| self.command(&calls[index], verb));
        match invoked.await {
            Ok(results) => results
                .into_iter()
                .map(|result| match result {
                    Ok(_) => Answer::Done,
                    Err(error) => Answer::Failed(self.connection.error(error)),
                })
                .collect(),
            Err(error) => calls.iter().map(|_| Answer::Failed(error.again())).collect(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;

    use super::*;
    use crate::{connection::Connection, settings::tests::read};

    /// What a sink makes of a batch: its calls as `millrace test` prints them, and the messages it rejects.
    pub(crate) fn encoded(view: impl Writes + 'static, messages: &[Message]) -> (Vec<Value>, Vec<u32>) {
        let sink = RedisSink::new(Arc::new(connection()), Box::new(view));
        let encoded = sink.encode(messages);
        let calls = encoded.calls.iter().map(|call| sink.describe(call)).collect();
        (calls, encoded.rejected.into_iter().map(|(place, _)| place).collect())
    }

    fn connection() -> Connection {
        Connection::new("test", read(&[("url", "redis://localhost")]).unwrap()).unwrap()
    }

    struct Plain;

    impl Writes for Plain {
        fn kind(&self) -> &'static str {
            "plain"
        }

        fn script(&self) -> &'static Script {
            unreachable!("nothing is sent")
        }

        fn keys_per_op(&self) -> usize {
            2
        }

        fn constants(&self) -> &[String] {
            static CONSTANTS: std::sync::LazyLock<[String; 1]> =
                std::sync::LazyLock::new(|| ["c".to_owned()]);
            &*CONSTANTS
        }

        fn encode(&self, messages: &[Message], _: &mut Ordinals, calls: &mut Calls) {
            for (place, message) in (0..).zip(messages) {
                let key = String::from_utf8_lossy(&message.value).into_owned();
                calls.push(place, &key, &["with"], 1, |parts| parts.text("argument"));
            }
        }
    }

    #[test]
    fn a_command_has_all_keys_then_constants_then_arguments() {
        let sink = RedisSink::new(Arc::new(connection()), Box::new(Plain));
        let messages = [1, 2].map(|n| millrace_testkit::message::message(n, "e", &format!("k{n}")));
        let command = sink.command(&sink.encode(&messages).calls[0], ["EVALSHA", "hash"]);
        let words: Vec<String> = command
            .args_iter()
            .map(|arg| match arg {
                redis::Arg::Simple(word) => String::from_utf8(word.to_vec()).unwrap(),
                _ => "cursor".to_owned(),
            })
            .collect();
        let keys = ["k1", "with:{k1}", "k2", "with:{k2}"];
        assert_eq!(words[..3], ["EVALSHA", "hash", "4"]);
        assert_eq!(words[3..7], keys);
        assert_eq!(words[7..], ["c", "argument", "argument"]);
    }
}
