//! The sink `stdout`: each message as one line, for looking at a pipeline and for shell pipes.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use millrace_core::{
    Answer, Call, Encoded, Error, Message, Result, Sink, off_the_reactor,
    settings::{Field, Kind, Object, Settings, Shape},
};
use serde_json::json;

/// `stdout:` in YAML.
pub static STDOUT: Kind = Kind { name: "stdout", settings: &SETTINGS };

static SETTINGS: Object = Object {
    name: "stdout",
    doc: "Prints each message as one line on standard output.",
    fields: &[Field::with_default(
        "format",
        Shape::Choice(&["value", "json"]),
        "value",
        "value: the message's value; json: an object with topic, partition, offset, key and value",
    )],
};

const LINE: &str = "line";

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFormat {
    /// The value; its line ends become spaces, so that a message stays one line.
    Value,
    /// A JSON object.
    Json,
}

/// The sink. Lines of several workers never mix.
pub struct StdoutSink {
    format: LineFormat,
    out: Arc<Mutex<dyn Write + Send>>,
}

impl StdoutSink {
    /// The sink on the process's standard output, from checked settings.
    pub fn open(settings: &Settings) -> Self {
        let format =
            if settings.text("format") == Some("json") { LineFormat::Json } else { LineFormat::Value };
        Self::new(format, Arc::new(Mutex::new(io::stdout())))
    }

    /// The sink on any writer.
    pub fn new(format: LineFormat, out: Arc<Mutex<dyn Write + Send>>) -> Self {
        StdoutSink { format, out }
    }

    fn line(&self, message: &Message) -> Bytes {
        match self.format {
            LineFormat::Value if !message.value.contains(&b'\n') => message.value.clone(),
            LineFormat::Value => {
                message.value.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect()
            }
            LineFormat::Json => {
                let record = &message.origin.record;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let value = message.json().cloned().unwrap_or_else(|_| text(&message.value).into());
                let line = json!({
                    "topic": &*record.topic, "partition": record.partition, "offset": record.offset,
                    "key": message.key.as_deref().map(text), "value": value,
                });
                line.to_string().into()
            }
        }
    }
}

#[async_trait]
impl Sink for StdoutSink {
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    fn encode(&self, messages: &[Message]) -> Encoded {
        let calls = (0u32..)
            .zip(messages)
            .map(|(index, message)| Call::single(LINE, index, vec![self.line(message)]));
        Encoded { calls: calls.collect(), rejected: Vec::new() }
    }

    /// A closed pipe is Fatal with an [`io::ErrorKind::BrokenPipe`] at the end of its chain: the program ends
    /// silently then, as every filter does.
    async fn send(&self, calls: &[Call]) -> Vec<Answer> {
        let mut text = Vec::new();
        for part in calls.iter().flat_map(|call| &call.ops).flat_map(|op| &op.parts) {
            text.extend_from_slice(part);
            text.push(b'\n');
        }
        // A reader that takes nothing, as a pager does, must not keep signals and leases waiting.
        let written = off_the_reactor(|| {
            let mut out = self.out.lock().expect("invariant: nobody panics while writing");
            out.write_all(&text).and_then(|()| out.flush())
        });
        match written {
            Ok(()) => calls.iter().map(|_| Answer::Done).collect(),
            Err(error) => {
                let kind = error.kind();
                calls
                    .iter()
                    .map(|_| {
                        let failed =
                            Error::fatal("stdout", "cannot write").with_source(io::Error::from(kind));
                        Answer::Failed(failed)
                    })
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        mpsc::{Receiver, sync_channel},
    };

    use millrace_core::{Answer, Class, Sink};
    use millrace_testkit::message::message;
    use tokio::time::Duration;

    use super::*;

    struct Closed;

    /// Takes nothing until it is told to.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let told = self.0.recv_timeout(Duration::from_secs(20));
            told.map(|()| bytes.len()).map_err(|_| io::ErrorKind::TimedOut.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_reader_that_takes_nothing_holds_up_nobody_else() {
        let (go, wait) = sync_channel(1);
        let sink = StdoutSink::new(LineFormat::Value, Arc::new(Mutex::new(Stuck(wait))));
        let calls = sink.encode(&[message(1, "1", "x")]).calls;
        let sending = tokio::spawn(async move { sink.send(&calls).await });
        let another = tokio::spawn(async move { go.send(()) });
        another.await.expect("it runs").expect("the writer waits");
        assert!(matches!(sending.await.expect("it ends")[..], [Answer::Done]));
    }

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn prints_lines_in_order() {
        for (format, expected) in [
            (LineFormat::Value, "{\"a\":1}\nx y\n"),
            (
                LineFormat::Json,
                "{\"key\":null,\"offset\":1,\"partition\":0,\"topic\":\"test\",\"value\":{\"a\":1}}\n\
                 {\"key\":null,\"offset\":2,\"partition\":0,\"topic\":\"test\",\"value\":\"x\\ny\"}\n",
            ),
        ] {
            let out = Arc::new(Mutex::new(Vec::new()));
            let sink = StdoutSink::new(format, out.clone());
            let calls = sink.encode(&[message(1, "1", "{\"a\":1}"), message(2, "2", "x\ny")]).calls;
            let answers = sink.send(&calls).await;
            assert!(answers.iter().all(|answer| matches!(answer, Answer::Done)));
            assert_eq!(String::from_utf8_lossy(&out.lock().expect("no panic")), expected);
        }
    }

    #[tokio::test]
    async fn a_closed_pipe_is_fatal_and_recognisable() {
        let sink = StdoutSink::new(LineFormat::Value, Arc::new(Mutex::new(Closed)));
        let calls = sink.encode(&[message(1, "1", "x")]).calls;
        let answers = sink.send(&calls).await;
        let Answer::Failed(error) = &answers[0] else { unreachable!("the pipe is closed") };
        assert_eq!(error.class(), Class::Fatal);
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
        assert_eq!(cause.map(io::Error::kind), Some(io::ErrorKind::BrokenPipe));
    }
}
