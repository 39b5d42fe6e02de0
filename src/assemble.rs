//! From a plan to pipelines that can run: opens what they name, once, and puts the parts together.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use millrace_config::{
    BreakerPlan, CanaryPart, ExhaustedPolicy, GapPolicy, LookupPlan, LookupQuery, ModulePlan, ModuleSource,
    Output, PipelinePlan, Plan, QuarantinePlan, QuarantinePolicy, RecordFormat, RetryPlan, SinkPlan,
    StepPlan, TrialManner, TrialPlan,
};
use millrace_core::{
    Broker, Error, Ledger, Lookup, ModuleReference, Sink, SinkId, Start, Store, Subscription, TopicSpec, View,
};
use millrace_engine::{ModuleOptions, SmartEngine};
use millrace_registry::Manifest;
use millrace_runtime::{
    Breaker, BreakerPolicy, Clock, DeadLetterQueue, Decode, Exhausted, Format, Guard, GuardedLedger, Limits,
    LookupKind, LookupStep, Manner, OnGap, Part, Pipeline, Quarantine, RetryPolicy, SinkPart, Steering,
    StepPart, Then, TopicSink, Trial, Version, Versions,
};
use tokio::time::Duration;

use crate::{
    modules::{Access, Modules},
    offline::{GivenAnswers, NoBroker},
    registry,
    versions::{Deployed, Following, fits, version},
};

/// The opened systems of a plan. Each is opened when it is first asked for.
pub struct Systems {
    engine: SmartEngine,
    modules: Modules,
    following: Following,
    brokers: HashMap<String, Arc<dyn Broker>>,
    stores: HashMap<String, Arc<dyn Store>>,
    /// By endpoint.
    breakers: HashMap<String, Breaker>,
    /// In place of every broker and of what lookups read.
    answers: Option<Arc<GivenAnswers>>,
}

impl Systems {
    /// Nothing is opened yet.
    pub fn new() -> Result<Self, Error> {
        let engine = registry::engine()?;
        let (brokers, stores, breakers) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (modules, following) = (Modules::default(), Following::default());
        Ok(Systems { engine, modules, following, brokers, stores, breakers, answers: None })
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

    /// Forgets these systems, by section and name, so that they are opened as they are declared now.
    pub fn forget<'a>(&mut self, systems: impl IntoIterator<Item = &'a (&'static str, String)>) {
        for (section, name) in systems {
            match *section {
                "brokers" => {
                    self.brokers.remove(name);
                    self.breakers.remove(&format!("broker {name}"));
                }
                _ => {
                    self.stores.remove(name);
                    self.breakers.remove(&format!("store {name}"));
                }
            }
        }
    }

    /// From now on the registry is asked again, and a version that a file names must have the code that it had when the
    /// file was applied.
    pub fn pin(&mut self, digests: &BTreeMap<String, String>) {
        self.modules = Modules::pinned(digests.clone());
    }

    /// The deployed version that a reference means, if it may run here.
    pub async fn deployed(&mut self, plan: &Plan, reference: &ModuleReference) -> Result<Manifest, Error> {
        self.modules.deployed(plan, reference).await
    }

    /// The steps of all lanes that run whatever version is the latest.
    pub fn following(&self) -> Following {
        self.following.clone()
    }

    /// Offers the deployed modules of a pipeline to its steps that run already.
    pub async fn turn(
        &mut self,
        plan: &Plan,
        pipeline: &PipelinePlan,
        running: &[(Arc<str>, Versions)],
    ) -> Result<(), Error> {
        for module in pipeline.modules() {
            let Some((_, versions)) = running.iter().find(|(id, _)| **id == *module.id) else { continue };
            let (version, origin) = self.version(plan, module).await?;
            if let Some((reference, deployed)) = origin {
                let version = fits(version, versions)?;
                // First, so that nothing else is offered after this.
                self.following.set(&reference, versions, deployed);
                if version.about.digest != versions.wanted().about.digest {
                    versions.offer(version);
                }
            }
        }
        Ok(())
    }

    /// The index that a sink writes, opened; none for any other sink.
    pub async fn index(
        &mut self,
        plan: &Plan,
        pipeline: &str,
        sink: &SinkPlan,
    ) -> Result<Option<Arc<dyn Sink>>, Error> {
        let (Output::View(view @ View::Index(..)), Some(store)) = (&sink.output, &sink.store) else {
            return Ok(None);
        };
        let id = SinkId { pipeline: pipeline.into(), sink: sink.id.as_str().into() };
        Ok(Some(self.store(plan, store).await?.sink(id, view.clone())?))
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

    /// The breaker of a system, shared by all who call it. The policy is that of the first who asks.
    fn breaker(&mut self, endpoint: String, policy: BreakerPlan) -> Breaker {
        let BreakerPlan { failures, open_for, open_for_max } = policy;
        let policy = BreakerPolicy { failures, open_for, open_for_max };
        let seed = Clock::system().now_ms().cast_unsigned();
        let breaker = self
            .breakers
            .entry(endpoint)
            .or_insert_with_key(|endpoint| Breaker::new(endpoint.as_str(), policy, seed));
        breaker.clone()
    }

    fn broker_breaker(&mut self, plan: &Plan, name: &str) -> Breaker {
        let policy = plan.brokers.get(name).map(|system| system.breaker);
        let policy = policy.expect("invariant: a checked plan names only brokers it has");
        self.breaker(format!("broker {name}"), policy)
    }

    fn store_breaker(&mut self, plan: &Plan, name: &str) -> Breaker {
        let policy = plan.stores.get(name).map(|system| system.breaker);
        let policy = policy.expect("invariant: a checked plan names only stores it has");
        self.breaker(format!("store {name}"), policy)
    }

    /// A pipeline with all its sinks, isolated or not.
    pub async fn pipeline(&mut self, plan: &Plan, pipeline: &PipelinePlan) -> Result<Pipeline, Error> {
        let steps = self.steps(plan, pipeline).await?;
        self.lane(plan, pipeline, steps, None, &pipeline.sinks.iter().collect::<Vec<_>>()).await
    }

    /// The lanes of a pipeline, ready to run: the main one, and one for each isolated sink.
    pub async fn lanes(&mut self, plan: &Plan, pipeline: &PipelinePlan) -> Result<Vec<Pipeline>, Error> {
        let steps = self.steps(plan, pipeline).await?;
        let (isolated, others): (Vec<_>, Vec<_>) = pipeline.sinks.iter().partition(|sink| sink.isolated);
        let mut lanes = vec![self.lane(plan, pipeline, steps.clone(), None, &others).await?];
        for sink in isolated {
            lanes.push(self.lane(plan, pipeline, steps.clone(), Some(sink), &[sink]).await?);
        }
        Ok(lanes)
    }

    async fn steps(&mut self, plan: &Plan, pipeline: &PipelinePlan) -> Result<Vec<StepPart>, Error> {
        let mut steps = Vec::with_capacity(pipeline.steps.len());
        for step in &pipeline.steps {
            steps.push(match step {
                StepPlan::Module(module) => self.module(plan, module).await?,
                StepPlan::Lookup(lookup) => StepPart::Lookup(Arc::new(self.lookup(plan, lookup).await?)),
            });
        }
        Ok(steps)
    }

    /// A lane with these sinks; `isolated` is the one that it is for.
    async fn lane(
        &mut self,
        plan: &Plan,
        pipeline: &PipelinePlan,
        steps: Vec<StepPart>,
        isolated: Option<&SinkPlan>,
        sinks: &[&SinkPlan],
    ) -> Result<Pipeline, Error> {
        let broker = self.broker(plan, &pipeline.from.broker)?;
        let name: Arc<str> = pipeline.name.as_str().into();
        let (letters, admin) = (pipeline.dead_letters.clone(), broker.admin());
        let mut dead_letters = DeadLetterQueue::new(name.clone(), letters, admin, broker.producer().await?);
        let lane: Option<Arc<str>> = isolated.map(|sink| sink.id.as_str().into());
        if let Some(lane) = &lane {
            dead_letters = dead_letters.of_lane(lane.clone());
        }
        let mut parts = Vec::with_capacity(sinks.len());
        let mut writes_topics = vec![pipeline.dead_letters.name.clone()];
        let transactions = has_transactions(pipeline, &*broker, &steps, sinks)?;
        for sink in sinks {
            if let Output::Topic { topic, .. } = &sink.output {
                writes_topics.push(topic.clone());
            }
            let id = SinkId { pipeline: name.clone(), sink: sink.id.as_str().into() };
            parts.push(self.sink(plan, pipeline, sink, id).await?);
        }
        Ok(Pipeline {
            subscription: subscription(pipeline, lane.as_deref()),
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
            retry: retry(pipeline.retry),
            name: lane.as_ref().map_or_else(|| name.clone(), |sink| format!("{name}/{sink}").into()),
            lane,
            breaker: self.broker_breaker(plan, &pipeline.from.broker),
            broker,
            steps,
            sinks: parts,
            dead_letters: Arc::new(dead_letters),
            writes_topics,
            transactions,
            steering: Steering::default(),
            version_log: None,
        })
    }

    async fn module(&mut self, plan: &Plan, module: &ModulePlan) -> Result<StepPart, Error> {
        let (version, origin) = self.version(plan, module).await?;
        let versions = match origin {
            None => Versions::fixed(version),
            Some((reference, deployed)) => {
                let versions = Versions::changing(version, deployed.clone());
                self.following.set(&reference, &versions, deployed);
                versions
            }
        };
        let QuarantinePlan { after, then } = module.quarantine;
        let then = match then {
            QuarantinePolicy::Stop => Then::Stop,
            QuarantinePolicy::Skip => Then::Skip,
            QuarantinePolicy::Previous => Then::Previous,
        };
        let quarantine = Some(Quarantine { after: after as usize, then });
        Ok(StepPart::Module { id: module.id.as_str().into(), versions, quarantine })
    }

    /// Compiles and checks a module; where it was deployed, with what gives other versions of it.
    async fn version(
        &mut self,
        plan: &Plan,
        module: &ModulePlan,
    ) -> Result<(Version, Option<(ModuleReference, Arc<Deployed>)>), Error> {
        let code = self.modules.code(plan, module).await?;
        let options = ModuleOptions {
            params: module.with.clone(),
            look_back: module.look_back,
            limits: registry::module_limits(module.limits),
        };
        let version = version(&self.engine, &code.label, &code.wasm, &options)?;
        let ModuleSource::Registry(reference) = &module.source else { return Ok((version, None)) };
        let trial = match &module.trial {
            // A golden case is of the version that counts.
            Some(trial) if self.answers.is_none() => Some(self.trial(plan, trial, &options).await?),
            Some(_) | None => None,
        };
        let Access { registry, keys } = self.modules.access(plan).await?;
        let deployed = Deployed { registry, keys, engine: self.engine.clone(), options, trial };
        Ok((deployed.trying(version)?, Some((reference.clone(), Arc::new(deployed)))))
    }

    /// Compiles and checks a version on trial.
    async fn trial(
        &mut self,
        plan: &Plan,
        trial: &TrialPlan,
        options: &ModuleOptions,
    ) -> Result<Trial, Error> {
        let (name, reference) = trial.named();
        let code = self.modules.deployed_code(plan, &name, reference).await?;
        let Version { factory, about, .. } = version(&self.engine, &code.label, &code.wasm, options)?;
        let manner = match &trial.manner {
            TrialManner::Shadow => Manner::Shadow,
            TrialManner::Canary(CanaryPart::Share { per_million }) => {
                Manner::Canary(Part::Share(*per_million))
            }
            TrialManner::Canary(CanaryPart::Partitions(partitions)) => {
                Manner::Canary(Part::Partitions(partitions.clone()))
            }
        };
        Ok(Trial { factory, about, manner })
    }

    /// The first step whose answer depends on the records before: an aggregate, or one that looks back.
    pub async fn step_with_memory(
        &mut self,
        plan: &Plan,
        pipeline: &PipelinePlan,
    ) -> Result<Option<String>, Error> {
        for module in pipeline.modules() {
            let (version, _) = self.version(plan, module).await?;
            if module.look_back.is_some() || version.factory.keeps_state() {
                return Ok(Some(module.id.clone()));
            }
        }
        Ok(None)
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
            breaker: self.store_breaker(plan, &lookup.store),
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

    async fn sink(
        &mut self,
        plan: &Plan,
        pipeline: &PipelinePlan,
        sink: &SinkPlan,
        id: SinkId,
    ) -> Result<SinkPart, Error> {
        let (mut ledger, timeout) = (None, pipeline.send_timeout);
        let (opened, breaker): (Arc<dyn Sink>, Breaker) = match &sink.output {
            Output::View(view) => {
                let store = sink.store.as_deref().expect("invariant: a view has a store");
                let opened = self.store(plan, store).await?.sink(id.clone(), view.clone())?;
                (opened, self.store_breaker(plan, store))
            }
            Output::Topic { topic, broker, key } => {
                let producer = self.broker(plan, broker)?.producer().await?;
                let opened = TopicSink::new(topic.clone(), key.clone(), producer);
                let opened = if *broker == pipeline.from.broker { opened.joining() } else { opened };
                (Arc::new(opened), self.broker_breaker(plan, broker))
            }
            Output::System => {
                let guarded = match &sink.store {
                    None => None,
                    Some(store) => {
                        let opened = self.ledger(plan, store, sink).await?;
                        let breaker = self.store_breaker(plan, store);
                        ledger = Some(breaker.clone());
                        Some(Arc::new(GuardedLedger::new(opened, breaker, timeout)) as Arc<dyn Ledger>)
                    }
                };
                let breaker = self.breaker(registry::endpoint(sink), sink.breaker);
                (registry::open_sink(sink, id.clone(), guarded)?, breaker)
            }
        };
        Ok(SinkPart { id, sink: opened, timeout, breaker, ledger, retry: retry(sink.retry) })
    }

    async fn ledger(&mut self, plan: &Plan, store: &str, sink: &SinkPlan) -> Result<Arc<dyn Ledger>, Error> {
        let ttl = sink.settings.duration("remember").unwrap_or(Duration::from_secs(30 * 86_400));
        let opened = self.store(plan, store).await?;
        opened.ledger(ttl).ok_or_else(|| Error::fatal(format!("store {store}"), "cannot hold a ledger"))
    }
}

fn retry(plan: RetryPlan) -> RetryPolicy {
    RetryPolicy {
        initial: plan.initial,
        max: plan.max,
        budget: plan.budget,
        exhausted: match plan.exhausted {
            ExhaustedPolicy::Pause => Exhausted::Pause,
            ExhaustedPolicy::DeadLetters => Exhausted::DeadLetters,
        },
    }
}

/// Whether a lane works in transactions: as its pipeline says, or where they make a difference.
fn has_transactions(
    pipeline: &PipelinePlan,
    broker: &dyn Broker,
    steps: &[StepPart],
    sinks: &[&SinkPlan],
) -> Result<bool, Error> {
    let wanted = pipeline.transactions.unwrap_or_else(|| {
        let read = &pipeline.from.broker;
        let joins = |sink: &&SinkPlan| matches!(&sink.output, Output::Topic { broker, .. } if broker == read);
        let keeps_state = |step: &StepPart| match step {
            StepPart::Module { versions, .. } => versions.wanted().factory.keeps_state(),
            StepPart::Lookup(_) => false,
        };
        sinks.iter().any(joins) || steps.iter().any(keeps_state)
    });
    if wanted && !broker.has_transactions() && pipeline.transactions == Some(true) {
        let why = format!("the broker '{}' has no transactions", pipeline.from.broker);
        return Err(Error::fatal(format!("pipeline {}", pipeline.name), why));
    }
    Ok(wanted && broker.has_transactions())
}

/// What a pipeline reads, as its group or as that of one of its lanes.
fn subscription(pipeline: &PipelinePlan, lane: Option<&str>) -> Subscription {
    Subscription {
        topic: pipeline.from.topic.clone(),
        group: Some(group(pipeline, lane)),
        partitions: None,
        start: Start::Beginning,
        prefetch_bytes_max: bytes(pipeline.in_flight.prefetch_bytes),
        batch_records_max: pipeline.batch.records as usize,
    }
}

/// The consumer group of a lane.
pub fn group(pipeline: &PipelinePlan, lane: Option<&str>) -> String {
    let name = &pipeline.name;
    lane.map_or_else(|| name.clone(), |sink| format!("{name}.{sink}"))
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
        dead_letters_per_minute_max: pipeline.dead_letters_per_minute_max as usize,
        commit_interval: pipeline.commit_interval,
        call_timeout: pipeline.send_timeout,
    }
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}
