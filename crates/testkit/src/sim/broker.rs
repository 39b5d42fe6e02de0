//! A process's client of the log: what a broker's crate is.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use millrace_core::{
    Admin, Broker, CreateOutcome, Error, NewRecord, Position, Producer, Result, Source, Subscription,
    TopicInfo, TopicSpec,
};

use super::{
    log::{Log, unknown},
    process::Process,
    source::SimSource,
};

/// Cloning shares the connection.
#[derive(Clone)]
pub struct SimBroker {
    log: Log,
    process: Process,
}

impl SimBroker {
    /// A client of `log` in `process`.
    pub fn new(log: &Log, process: &Process) -> Self {
        SimBroker { log: log.clone(), process: process.clone() }
    }

    async fn ask<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Log) -> T + Send + 'static,
    ) -> Result<T> {
        let log = self.log.clone();
        let work = Box::pin(async move { work(&log) });
        self.log.world().ask(&self.process, self.log.system(), what, work).await
    }
}

#[async_trait]
impl Broker for SimBroker {
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Source>> {
        let topic = subscription.topic.clone();
        let info = self.ask("subscribe", move |log| log.info(&topic)).await?;
        let info = info.ok_or_else(|| unknown(&subscription.topic))?;
        Ok(Box::new(SimSource::open(&self.log, &self.process, &subscription, &info)))
    }

    async fn producer(&self) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(self.clone()))
    }

    fn admin(&self) -> Arc<dyn Admin> {
        Arc::new(self.clone())
    }

    fn has_transactions(&self) -> bool {
        true
    }
}

#[async_trait]
impl Producer for SimBroker {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<Position>> {
        let count = records.len();
        let world = self.log.world();
        let whole = !world.chance(world.faults().partial);
        let taken = if whole { count } else { world.index(count + 1) };
        let name = topic.to_owned();
        let append = move |log: &Log| -> Vec<Result<Position>> {
            records.into_iter().take(taken).map(|record| log.append(&name, record)).collect()
        };
        let mut answers = match self.ask("produce", append).await {
            Ok(answers) => answers,
            Err(error) => (0..count).map(|_| Err(Error::retry(error.who(), error.why()))).collect(),
        };
        answers.resize_with(count, || Err(Error::retry("log", "not enough replicas")));
        answers
    }
}

#[async_trait]
impl Admin for SimBroker {
    async fn create_topic(&self, spec: &TopicSpec) -> Result<CreateOutcome> {
        let spec = spec.clone();
        self.ask("create topic", move |log| log.create(&spec)).await
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        self.ask("topics", Log::infos).await
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicInfo>> {
        let name = name.to_owned();
        self.ask("topic", move |log| log.info(&name)).await
    }

    async fn progress(&self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let (group, topic) = (group.to_owned(), topic.to_owned());
        self.ask("progress", move |log| log.progress(&group, &topic)).await
    }

    async fn offsets_at(&self, topic: &str, at_ms: i64) -> Result<BTreeMap<i32, i64>> {
        let topic = topic.to_owned();
        self.ask("offsets of a time", move |log| log.offsets_at(&topic, at_ms)).await?
    }

    async fn set_progress(&self, group: &str, topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        let (group, topic, offsets) = (group.to_owned(), topic.to_owned(), offsets.clone());
        self.ask("set progress", move |log| log.set_progress(&group, &topic, Some(offsets))).await?
    }

    async fn forget_progress(&self, group: &str, topic: &str) -> Result<()> {
        let (group, topic) = (group.to_owned(), topic.to_owned());
        self.ask("forget progress", move |log| log.set_progress(&group, &topic, None)).await?
    }
}
