//! Systems that are not there: what `millrace test` puts in place of brokers and of the stores lookups read, so
//! that pipelines run without any server.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use millrace_core::{
    Admin, Answer, Broker, Call, CreateOutcome, Encoded, Error, Lookup, Message, NewRecord, Ordinals, Page,
    PageRequest, Position, Producer, Result, Sink, Source, Subscription, TopicInfo, TopicSpec,
};
use serde_json::Value;
use tokio::time::Duration;

/// A broker that cannot be reached.
pub struct NoBroker;

fn offline() -> Error {
    Error::fatal("test", "golden cases use no broker")
}

#[async_trait]
impl Broker for NoBroker {
    async fn subscribe(&self, _: Subscription) -> Result<Box<dyn Source>> {
        Err(offline())
    }

    async fn producer(&self) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(NoBroker))
    }

    fn admin(&self) -> Arc<dyn Admin> {
        Arc::new(NoBroker)
    }

    /// Nothing is ever committed.
    fn has_transactions(&self) -> bool {
        true
    }
}

#[async_trait]
impl Producer for NoBroker {
    async fn send(&self, _: &str, records: Vec<NewRecord>) -> Vec<Result<Position>> {
        records.iter().map(|_| Err(offline())).collect()
    }
}

#[async_trait]
impl Admin for NoBroker {
    async fn create_topic(&self, _: &TopicSpec) -> Result<CreateOutcome> {
        Err(offline())
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        Err(offline())
    }

    async fn topic(&self, _: &str) -> Result<Option<TopicInfo>> {
        Err(offline())
    }

    async fn progress(&self, _: &str, _: &str) -> Result<BTreeMap<i32, i64>> {
        Err(offline())
    }

    async fn offsets_at(&self, _: &str, _: i64) -> Result<BTreeMap<i32, i64>> {
        Err(offline())
    }

    async fn set_progress(&self, _: &str, _: &str, _: &BTreeMap<i32, i64>) -> Result<()> {
        Err(offline())
    }

    async fn forget_progress(&self, _: &str, _: &str) -> Result<()> {
        Err(offline())
    }
}

/// Lookups answered from a case's file: sets are arrays of strings, documents anything else.
pub struct GivenAnswers {
    answers: BTreeMap<String, Value>,
    closed: Mutex<HashSet<String>>,
}

impl GivenAnswers {
    /// Answers by rendered key.
    pub fn new(answers: BTreeMap<String, Value>) -> Self {
        GivenAnswers { answers, closed: Mutex::default() }
    }

    fn set(&self, key: &str) -> Vec<String> {
        let members = self.answers.get(key).and_then(Value::as_array);
        let mut set: Vec<String> =
            members.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        set.sort_unstable();
        set.dedup();
        set
    }
}

#[async_trait]
impl Lookup for GivenAnswers {
    async fn members(&self, requests: &[PageRequest]) -> Result<Vec<Page>> {
        let page = |request: &PageRequest| {
            let set = self.set(&request.key);
            let from =
                request.after.as_ref().map_or(0, |after| set.partition_point(|member| member <= after));
            let members: Vec<String> =
                set[from..].iter().take(request.members_max as usize).cloned().collect();
            let more = from + members.len() < set.len();
            Page { members, more }
        };
        Ok(requests.iter().map(page).collect())
    }

    async fn documents(&self, keys: &[String]) -> Result<Vec<Option<String>>> {
        Ok(keys.iter().map(|key| self.answers.get(key).map(Value::to_string)).collect())
    }

    async fn close(&self, guards: &[String], _: Duration) -> Result<()> {
        self.closed.lock().expect("invariant: no panic under the lock").extend(guards.iter().cloned());
        Ok(())
    }

    async fn closed(&self, guards: &[String]) -> Result<Vec<bool>> {
        let closed = self.closed.lock().expect("invariant: no panic under the lock");
        Ok(guards.iter().map(|guard| closed.contains(guard)).collect())
    }
}

/// A sink that encodes as the real one does and keeps the calls instead of sending them.
pub struct Recorder {
    real: Arc<dyn Sink>,
    calls: Mutex<Vec<Value>>,
}

impl Recorder {
    /// In place of `real`.
    pub fn new(real: Arc<dyn Sink>) -> Self {
        Recorder { real, calls: Mutex::default() }
    }

    /// The calls so far, as the sink describes them.
    pub fn calls(&self) -> Vec<Value> {
        self.calls.lock().expect("invariant: no panic under the lock").clone()
    }
}

#[async_trait]
impl Sink for Recorder {
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    fn encode(&self, messages: &[Message]) -> Encoded {
        self.real.encode(messages)
    }

    fn encode_part(&self, messages: &[Message], ordinals: &mut Ordinals) -> Encoded {
        self.real.encode_part(messages, ordinals)
    }

    async fn send(&self, calls: &[Call]) -> Vec<Answer> {
        let described = calls.iter().map(|call| self.real.describe(call));
        self.calls.lock().expect("invariant: no panic under the lock").extend(described);
        calls.iter().map(|_| Answer::Done).collect()
    }
}
