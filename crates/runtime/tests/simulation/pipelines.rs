//! The pipelines of a simulated process: the reference ones in small, over the simulated systems.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use millrace_core::{
    Error, Message, Outcome, Rejected, Result, Sink, SinkId, Start, Step, StepContext, StepFactory, Store,
    Subscription, Template, TopicSpec, View,
    settings::Problems,
    views::{Counter, Document, Index, IndexFields, Members, Timeline},
};
use millrace_runtime::{
    Breaker, DeadLetterQueue, Decode, Format, Guard, LookupKind, LookupStep, ModuleAbout, OnGap, Pipeline,
    SinkPart, Steering, StepPart, TopicSink,
};
use millrace_testkit::{
    sim::{Kept, Log, Process, SimBroker, SimStore, System, World},
    views_suite::settings,
};
use serde_json::json;
use tokio::time::Duration;

use crate::{
    input::{CONTENT, CREATED, DELETED, FOLLOWED, SOCIAL, UNFOLLOWED, UPDATED},
    setup::{Flow, Setup},
};

pub const OUT: &str = "out";
pub const INDEX: &str = "posts";
pub const WHOLE: &str = "whole-posts";
/// The sink that may be isolated.
pub const ISOLATED: &str = "index";

const LONG: Duration = Duration::from_secs(86_400);

/// A store of the world.
#[derive(Clone)]
pub struct Shelf {
    pub system: System,
    pub kept: Arc<Mutex<Kept>>,
}

impl Shelf {
    pub fn new(name: &str) -> Self {
        Shelf { system: System::new(name), kept: Arc::default() }
    }
}

/// The systems of the world.
#[derive(Clone)]
pub struct Systems {
    pub log: Log,
    pub feeds: Shelf,
    pub search: Shelf,
}

impl Flow {
    pub fn name(self) -> &'static str {
        match self {
            Flow::Follows => "follows",
            Flow::Feed => "feed",
            Flow::Posts => "posts",
            Flow::Points => "points",
        }
    }

    /// The lanes of its pipeline: the main one, and those of isolated sinks.
    pub fn lanes(self, setup: &Setup) -> Vec<Lane> {
        let isolated = (self == Flow::Posts && setup.isolated).then_some(ISOLATED);
        [None].into_iter().chain(isolated.map(Some)).map(|sink| Lane { flow: self, sink }).collect()
    }

    pub fn topic(self) -> &'static str {
        match self {
            Flow::Follows => SOCIAL,
            Flow::Feed | Flow::Posts | Flow::Points => CONTENT,
        }
    }

    pub fn events(self) -> &'static [&'static str] {
        match self {
            Flow::Follows => &[FOLLOWED, UNFOLLOWED],
            Flow::Feed => &[CREATED, DELETED],
            Flow::Posts => &[CREATED, UPDATED, DELETED],
            Flow::Points => &[CREATED],
        }
    }
}

/// What has progress of its own: a flow without its isolated sinks, or one of those.
#[derive(Clone, Copy)]
pub struct Lane {
    pub flow: Flow,
    pub sink: Option<&'static str>,
}

impl Lane {
    pub fn group(self) -> String {
        self.named('.')
    }

    pub fn name(self) -> String {
        self.named('/')
    }

    fn named(self, between: char) -> String {
        let flow = self.flow.name();
        self.sink.map_or_else(|| flow.to_owned(), |sink| format!("{flow}{between}{sink}"))
    }

    fn feeds(self, setup: &Setup, sink: &str) -> bool {
        self.sink.map_or_else(
            || self.flow.lanes(setup).iter().all(|lane| lane.sink != Some(sink)),
            |own| own == sink,
        )
    }
}

pub fn topic(name: &str, partitions: u32) -> TopicSpec {
    TopicSpec {
        name: name.to_owned(),
        partitions,
        retention_ms: None,
        retention_bytes: None,
        record_bytes_max: 1 << 20,
        replication: None,
        compact: false,
    }
}

/// The breakers of a process.
pub struct Breakers {
    log: Breaker,
    feeds: Breaker,
    search: Breaker,
}

impl Breakers {
    pub fn new(world: &World, setup: &Setup) -> Self {
        let breaker = |name: &str| Breaker::new(name, setup.breaker, world.below(u64::MAX));
        Breakers { log: breaker("log"), feeds: breaker("feeds"), search: breaker("search") }
    }
}

/// A lane as one process runs it.
pub fn pipeline(
    world: &World,
    setup: &Setup,
    systems: &Systems,
    (process, breakers): (&Process, &Breakers),
    lane: Lane,
) -> Pipeline {
    let flow = lane.flow;
    let broker = Arc::new(SimBroker::new(&systems.log, process));
    let open =
        |shelf: &Shelf| Arc::new(SimStore::new(world, process, &shelf.system, &shelf.kept, setup.ops_max));
    let stores = (open(&systems.feeds), open(&systems.search));
    let letters = topic(&format!("{}.dlq", flow.topic()), 1);
    let mut dead_letters = DeadLetterQueue::new(flow.name().into(), letters, broker.clone(), broker.clone());
    if let Some(sink) = lane.sink {
        dead_letters = dead_letters.of_lane(sink.into());
    }
    let mut sinks = sinks(setup, flow, &broker, &stores, breakers);
    sinks.retain(|part| lane.feeds(setup, &part.id.sink));
    Pipeline {
        name: lane.name().into(),
        lane: lane.sink.map(Into::into),
        broker: broker.clone(),
        breaker: breakers.log.clone(),
        subscription: Subscription {
            topic: flow.topic().into(),
            group: Some(lane.group()),
            partitions: None,
            start: Start::Beginning,
            prefetch_bytes_max: 1 << 20,
            batch_records_max: setup.batch_records_max,
        },
        decode: Decode {
            format: Format::Json,
            events: Some(flow.events().iter().map(|&one| one.to_owned()).collect()),
        },
        on_gap: OnGap::Stop,
        steps: steps(setup, flow, &stores.0, &breakers.feeds),
        sinks,
        dead_letters: Arc::new(dead_letters),
        writes_topics: Vec::new(),
        transactions: setup.transactions,
        limits: setup.limits,
        retry: setup.retry,
        steering: Steering::default(),
        version_log: None,
    }
}

fn steps(setup: &Setup, flow: Flow, store: &Arc<SimStore>, breaker: &Breaker) -> Vec<StepPart> {
    match flow {
        Flow::Feed => {}
        Flow::Points => return vec![module("tally", Arc::new(Tallies))],
        Flow::Follows | Flow::Posts => return Vec::new(),
    }
    let closing = HashSet::from([DELETED.to_owned()]);
    let lookup = LookupStep {
        id: "followers".into(),
        store: store.lookup().unwrap(),
        breaker: breaker.clone(),
        kind: LookupKind::Members {
            key: Template::parse("followers:{payload.user}").unwrap(),
            page_members_max: setup.page_members_max,
        },
        into: "followers".into(),
        cache_ttl: setup.cache_ttl,
        cache_entries_max: 100,
        uncached: closing.clone(),
        guard: Some(Guard { id: Template::parse("{payload.post}").unwrap(), closed_by: closing, ttl: LONG }),
    };
    vec![StepPart::Lookup(Arc::new(lookup)), module("fanout", Arc::new(Fanout))]
}

fn module(name: &str, factory: Arc<dyn StepFactory>) -> StepPart {
    let about = ModuleAbout { module: name.into(), digest: "00".into() };
    StepPart::fixed(name.into(), factory, about)
}

fn sinks(
    setup: &Setup,
    flow: Flow,
    broker: &Arc<SimBroker>,
    (feeds, search): &(Arc<SimStore>, Arc<SimStore>),
    breakers: &Breakers,
) -> Vec<SinkPart> {
    let part = |name: &str, sink: Arc<dyn Sink>, breaker: &Breaker| SinkPart {
        id: id(flow, name),
        sink,
        timeout: setup.sink_timeout,
        breaker: breaker.clone(),
        ledger: None,
        retry: setup.retry,
    };
    let view = |name: &str, view: View| {
        let (store, breaker) = match view {
            View::Index(..) => (search, &breakers.search),
            _ => (feeds, &breakers.feeds),
        };
        part(name, store.sink(id(flow, name), view).unwrap(), breaker)
    };
    let problems = &mut Problems::default();
    match flow {
        Flow::Follows => {
            let pairs = [
                ("key", "{payload.set}"),
                ("member", "{payload.member}"),
                ("op", "{payload.op}"),
                ("version", "{payload.at}"),
            ];
            let members = Members::read(&settings(&pairs), problems).unwrap();
            vec![view("followers", View::Members(members))]
        }
        Flow::Feed => {
            let pairs = [("key", "feed:{follower}"), ("op", "{op}"), ("member", "{post}"), ("score", "{at}")];
            let timeline = Timeline::read(&settings(&pairs), problems).unwrap();
            vec![view("feeds", View::Timeline(timeline))]
        }
        Flow::Posts => {
            let change = [("op", "{payload.op}"), ("version", "{payload.at}"), ("document", "{payload.doc}")];
            let document = [&change[..], &[("key", "post:{payload.post}")]].concat();
            let document = Document::read(&settings(&document), problems).unwrap();
            let mut index = |name: &str, mode: &str| {
                let own = [("id", "{payload.post}"), ("index", name), ("mode", mode)];
                let index = Index::read(&settings(&[&change[..], &own].concat()), problems).unwrap();
                View::Index(index, IndexFields::default())
            };
            vec![
                view("documents", View::Document(document)),
                view(ISOLATED, index(INDEX, "merge")),
                view("whole", index(WHOLE, "replace")),
            ]
        }
        Flow::Points => {
            let counter = |by: &str| {
                let pairs = [("key", "points:{payload.user}"), ("by", by)];
                View::Counter(Counter::read(&settings(&pairs), &mut Problems::default()).unwrap())
            };
            let key = Some(Template::parse("{payload.user}").unwrap());
            vec![
                view("posted", counter("1")),
                view("bonus", counter("{payload.bonus}")),
                part(
                    "out",
                    Arc::new(TopicSink::new(OUT.into(), key, broker.clone()).joining()),
                    &breakers.log,
                ),
            ]
        }
    }
}

fn id(flow: Flow, sink: &str) -> SinkId {
    SinkId { pipeline: flow.name().into(), sink: sink.into() }
}

/// A message per follower of the page; refuses events that say so.
struct Fanout;

impl Step for Fanout {
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for message in batch {
            let event = message.json()?;
            let payload = &event["payload"];
            if payload.get("flaw").is_some() {
                let error = Error::reject("fanout", "flawed");
                outcome.rejected.push(Rejected { origin: message.origin.clone(), error, refused: true });
                continue;
            }
            let op = if payload["op"] == "put" { "add" } else { "remove" };
            for follower in event["followers"].as_array().into_iter().flatten() {
                let entry =
                    json!({ "follower": follower, "op": op, "post": payload["post"], "at": payload["at"] });
                let value = entry.to_string().into();
                outcome.passed.push(Message::derived(message.origin.clone(), None, value));
            }
        }
        Ok(outcome)
    }
}

impl StepFactory for Fanout {
    fn open(&self, _: &StepContext) -> Result<Box<dyn Step>> {
        Ok(Box::new(Fanout))
    }
}

/// Numbers the messages of its partition: a step that carries something from batch to batch.
struct Tally {
    last: u64,
}

struct Tallies;

impl Step for Tally {
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for message in batch {
            self.last += 1;
            let mut event = message.json()?.clone();
            event["nth"] = self.last.into();
            let value = event.to_string().into();
            outcome.passed.push(Message::derived(message.origin.clone(), message.key.clone(), value));
        }
        Ok(outcome)
    }

    fn snapshot(&self) -> Option<Bytes> {
        Some(self.last.to_string().into())
    }

    fn restore(&mut self, state: Bytes) -> Result<()> {
        let text = String::from_utf8_lossy(&state);
        self.last = text.parse().map_err(|_| Error::fatal("tally", format!("'{text}' is no number")))?;
        Ok(())
    }
}

impl StepFactory for Tallies {
    fn open(&self, _: &StepContext) -> Result<Box<dyn Step>> {
        Ok(Box::new(Tally { last: 0 }))
    }
}
