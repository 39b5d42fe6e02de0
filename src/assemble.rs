//! From a plan to pipelines that can run: opens what they name, once, and puts the parts together.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use millrace_config::{
    GapPolicy, LookupPlan, LookupQuery, ModulePlan, ModuleSource, Output, PipelinePlan, Plan, RecordFormat,
    SinkPlan, StepPlan,
};
use millrace_core::{
    Admin, Broker, Error, Ledger, Lookup, Sink, SinkId, Start, Store, Subscription, TopicSpec,
};
use millrace_engine::{ModuleOptions, SmartEngine};
use millrace_runtime::{
    DeadLetterQueue, Decode, Format, Guard, Limits, LookupKind, LookupStep, ModuleAbout, OnGap, Pipeline,
    RetryPolicy, SinkPart, Steering, StepPart, TopicSink,
};
use tokio::time::Duration;

use crate::{
    offline::{GivenAnswers, NoBroker},
    registry,
};

/// The opened systems of a plan. Each is opened when it is first asked for.
pub struct Systems {
    engine: SmartEngine,
    brokers: HashMap<String, Arc<dyn Broker>>,
    stores: HashMap<String, Arc<dyn Store>>,
    /// In place of every broker and of what lookups read.
    answers: Option<Arc<GivenAnswers>>,
}

impl Systems {
    /// Nothing is opened yet.
    pub fn new() -> Result<Self, Error> {
        let engine = registry::engine()?;
        Ok(Systems { engine, brokers: HashMap::new(), stores: HashMap::new(), answers: None })
    }

    /// Without brokers, and with lookups answered from here: for golden cases.
    pub fn offline(answers: GivenAnswers) -> Result<Self, Error> {
        Ok(Systems { answers: Some(Arc::new(answers)), ..Self::new()? })
    }

    /// The broker of that name.
    pub fn broker(&mut self, plan: &Plan, name: &str) -> Result<Arc<dyn Broker>, Error> {
        if self.answers.is_some() {
            return Ok(Arc::new(NoBroker));
        }
        if let Some(open) = self.brokers.get(name) {
            return Ok(open.clone());
        }
        let system = plan.brokers.get(name).expect("invariant: a checked plan names only brokers it has");
        let broker = registry::open_broker(system)?;
        self.brokers.insert(name.to_owned(), broker.clone());
        Ok(broker)
    }

    /// The broker that a pipeline reads from, and its control topic.
    pub fn control(&mut self, plan: &Plan, name: &str) -> Result<(Arc<dyn Broker>, String), Error> {
        let system = plan.brokers.get(name).expect("invariant: a checked plan names only brokers it has");
        Ok((self.broker(plan, name)?, registry::control_topic(system)?))
    }

    /// The store of that name.
    pub async fn store(&mut self, plan: &Plan, name: &str) -> Result<Arc<dyn Store>, Error> {
        if let Some(open) = self.stores.get(name) {
            return Ok(open.clone());
        }
        let system = plan.stores.get(name).expect("invariant: a checked plan names only stores it has");
        let store = registry::open_store(system).await?;
        self.stores.insert(name.to_owned(), store.clone());
        Ok(store)
    }

    /// The broker that holds a declared topic, and how the topic is declared.
    pub fn topic(&mut self, plan: &Plan, topic: &str) -> Result<(Arc<dyn Broker>, TopicSpec), Error> {
        let declared = plan.topics.get(topic).expect("invariant: the caller has looked the topic up");
        Ok((self.broker(plan, &declared.broker)?, declared.spec.clone()))
    }

    /// A pipeline, ready to run.
    pub async fn pipeline(&mut self, plan: &Plan, pipeline: &PipelinePlan) -> Result<Pipeline, Error> {
        let broker = self.broker(plan, &pipeline.from.broker)?;
        let name: Arc<str> = pipeline.name.as_str().into();
        let admin: Arc<dyn Admin> = broker.admin();
        let dead_letters = DeadLetterQueue::new(
            name.clone(),
            pipeline.dead_letters.clone(),
            admin,
            broker.producer().await?,
        );
        let mut steps = Vec::with_capacity(pipeline.steps.len());
        for step in &pipeline.steps {
            steps.push(match step {
                StepPlan::Module(module) => self.module(module)?,
                StepPlan::Lookup(lookup) => StepPart::Lookup(Arc::new(self.lookup(plan, lookup).await?)),
            });
        }
        let mut sinks = Vec::with_capacity(pipeline.sinks.len());
        let mut writes_topics = vec![pipeline.dead_letters.name.clone()];
        for sink in &pipeline.sinks {
            if let Output::Topic { topic, .. } = &sink.output {
                writes_topics.push(topic.clone());
            }
            let id = SinkId { pipeline: name.clone(), sink: sink.id.as_str().into() };
            let opened = self.sink(plan, sink, id.clone()).await?;
            sinks.push(SinkPart { id, sink: opened, timeout: pipeline.send_timeout });
        }
        Ok(Pipeline {
            subscription: subscription(pipeline),
            decode: Decode {
                format: match pipeline.from.format {
                    RecordFormat::Json => Format::Json,
                    RecordFormat::Bytes => Format::Bytes,
                },
                events: pipeline.from.events.as_ref().map(|events| events.iter().cloned().collect()),
            },
            on_gap: match pipeline.from.on_gap {
                GapPolicy::Stop => OnGap::Stop,
                GapPolicy::Continue => OnGap::Continue,
            },
            limits: limits(pipeline),
            retry: RetryPolicy { initial: pipeline.retry.initial, max: pipeline.retry.max },
            name,
            broker,
            steps,
            sinks,
            dead_letters: Arc::new(dead_letters),
            writes_topics,
            steering: Steering::default(),
            transactions: false,
        })
    }

    /// Compiles and checks a module.
    fn module(&self, plan: &ModulePlan) -> Result<StepPart, Error> {
        let wasm: Cow<'_, [u8]> = match &plan.source {
            ModuleSource::Shipped => registry::shipped_module(&plan.module).into(),
            ModuleSource::File(path) => std::fs::read(path)
                .map_err(|error| {
                    let why = format!("cannot read {}", path.display());
                    Error::fatal(format!("module {}", plan.module), why).with_source(error)
                })?
                .into(),
        };
        let options = ModuleOptions {
            params: plan.with.clone(),
            look_back: plan.look_back,
            limits: registry::module_limits(plan.limits),
        };
        let factory = self.engine.load(&plan.module, &wasm, &options)?;
        let digest = factory.info().sha256.clone();
        let about = ModuleAbout { module: plan.module.as_str().into(), digest: digest.into() };
        Ok(StepPart::Module { id: plan.id.as_str().into(), factory: Arc::new(factory), about })
    }

    async fn lookup(&mut self, plan: &Plan, lookup: &LookupPlan) -> Result<LookupStep, Error> {
        let store: Arc<dyn Lookup> =
            match &self.answers {
                Some(answers) => answers.clone(),
                None => self.store(plan, &lookup.store).await?.lookup().ok_or_else(|| {
                    Error::fatal(format!("store {}", lookup.store), "does not serve lookups")
                })?,
            };
        Ok(LookupStep {
            id: lookup.id.as_str().into(),
            store,
            kind: match &lookup.query {
                LookupQuery::Members { key, page } => {
                    LookupKind::Members { key: key.clone(), page_members_max: *page }
                }
                LookupQuery::Document { key } => LookupKind::Document { key: key.clone() },
            },
            into: lookup.into.clone(),
            cache_ttl: lookup.cache_ttl,
            cache_entries_max: lookup.cache_entries as usize,
            uncached: lookup.uncached.iter().cloned().collect(),
            guard: lookup.guard.as_ref().map(|guard| Guard {
                id: guard.id.clone(),
                closed_by: guard.closed_by.iter().cloned().collect(),
                ttl: guard.ledger,
            }),
        })
    }

    async fn sink(&mut self, plan: &Plan, sink: &SinkPlan, id: SinkId) -> Result<Arc<dyn Sink>, Error> {
        match &sink.output {
            Output::View(view) => {
                let store = sink.store.as_deref().expect("invariant: a view has a store");
                self.store(plan, store).await?.sink(id, view.clone())
            }
            Output::Topic { topic, broker, key } => {
                let producer = self.broker(plan, broker)?.producer().await?;
                Ok(Arc::new(TopicSink::new(topic.clone(), key.clone(), producer)))
            }
            Output::System => {
                let ledger = match &sink.store {
                    None => None,
                    Some(store) => Some(self.ledger(plan, store, sink).await?),
                };
                registry::open_sink(sink, id, ledger)
            }
        }
    }

    async fn ledger(&mut self, plan: &Plan, store: &str, sink: &SinkPlan) -> Result<Arc<dyn Ledger>, Error> {
        let ttl = sink.settings.duration("remember").unwrap_or(Duration::from_secs(30 * 86_400));
        let opened = self.store(plan, store).await?;
        opened.ledger(ttl).ok_or_else(|| Error::fatal(format!("store {store}"), "cannot hold a ledger"))
    }
}

/// What a pipeline reads, as its group.
fn subscription(pipeline: &PipelinePlan) -> Subscription {
    Subscription {
        topic: pipeline.from.topic.clone(),
        group: Some(pipeline.name.clone()),
        partitions: None,
        start: Start::Beginning,
        prefetch_bytes_max: bytes(pipeline.in_flight.prefetch_bytes),
        batch_records_max: pipeline.batch.records as usize,
    }
}

fn limits(pipeline: &PipelinePlan) -> Limits {
    Limits {
        batch_records_max: pipeline.batch.records as usize,
        batch_bytes_max: bytes(pipeline.batch.bytes),
        linger: pipeline.batch.linger,
        outputs_max: pipeline.in_flight.outputs as usize,
        output_bytes_max: bytes(pipeline.in_flight.output_bytes),
        queue_bytes_max: bytes(pipeline.in_flight.queue_bytes),
        drain_timeout: pipeline.drain_timeout,
        commit_interval: pipeline.commit_interval,
    }
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
