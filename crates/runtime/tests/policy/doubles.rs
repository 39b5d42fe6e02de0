//! A system that a test turns off and on, and what the runtime sees of it: a sink, a lookup, a producer.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use millrace_core::{
    Answer, Call, Encoded, Error, Lookup, Message, NewRecord, Page, PageRequest, Position, Producer, Result,
    Sink,
};
use tokio::{sync::watch, time::Duration};

/// What a system does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Works,
    /// Answers Retry.
    Away,
    /// Never answers.
    Hangs,
    /// Answers Reject.
    Refuses,
}

/// A system.
pub struct System {
    mood: watch::Sender<Mood>,
    /// Calls so far, answered or not.
    calls: AtomicU32,
    written: Mutex<Vec<String>>,
    changed: watch::Sender<()>,
}

impl System {
    pub fn new(mood: Mood) -> Arc<Self> {
        Arc::new(System {
            mood: watch::Sender::new(mood),
            calls: AtomicU32::new(0),
            written: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    pub fn turn(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    /// What the sink has written, in order.
    pub fn written(&self) -> Vec<String> {
        self.written.lock().unwrap().clone()
    }

    /// Waits until this much was written; an hour of paused time at most.
    pub async fn wait_for(&self, count: usize) {
        let mut changed = self.changed.subscribe();
        let enough = async {
            while self.written().len() < count {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(3_600), enough).await.expect("in time");
    }

    async fn pass(&self) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mood = *self.mood.borrow();
        match mood {
            Mood::Works => Ok(()),
            Mood::Away => Err(Error::retry("double", "away")),
            Mood::Hangs => std::future::pending().await,
            Mood::Refuses => Err(Error::reject("double", "refused")),
        }
    }
}

/// One call per message; writes the event's id.
#[async_trait]
impl Sink for System {
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    fn encode(&self, messages: &[Message]) -> Encoded {
        let id = |message: &Message| message.origin.envelope.event_id.clone().unwrap_or_default();
        let call = |(index, message)| Call::single("write", index, vec![id(message).into()]);
        Encoded { calls: (0u32..).zip(messages).map(call).collect(), rejected: Vec::new() }
    }

    async fn send(&self, calls: &[Call]) -> Vec<Answer> {
        if let Err(error) = self.pass().await {
            let copy = || Error::new(error.class(), error.who(), error.why());
            return calls.iter().map(|_| Answer::Failed(copy())).collect();
        }
        let ids = calls.iter().map(|call| String::from_utf8_lossy(&call.ops[0].parts[0]).into_owned());
        self.written.lock().unwrap().extend(ids);
        self.changed.send_replace(());
        calls.iter().map(|_| Answer::Done).collect()
    }
}

/// Every set is empty, every document null.
#[async_trait]
impl Lookup for System {
    async fn members(&self, requests: &[PageRequest]) -> Result<Vec<Page>> {
        self.pass().await?;
        Ok(vec![Page::default(); requests.len()])
    }

    async fn documents(&self, keys: &[String]) -> Result<Vec<Option<String>>> {
        self.pass().await?;
        Ok(vec![None; keys.len()])
    }

    async fn close(&self, _: &[String], _: Duration) -> Result<()> {
        self.pass().await
    }

    async fn closed(&self, guards: &[String]) -> Result<Vec<bool>> {
        self.pass().await?;
        Ok(vec![false; guards.len()])
    }
}

/// A producer in front of another one.
pub struct Gate {
    pub system: Arc<System>,
    pub producer: Arc<dyn Producer>,
}

#[async_trait]
impl Producer for Gate {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<Position>> {
        match self.system.pass().await {
            Ok(()) => self.producer.send(topic, records).await,
            Err(error) => {
                records.iter().map(|_| Err(Error::new(error.class(), error.who(), error.why()))).collect()
            }
        }
    }
}
