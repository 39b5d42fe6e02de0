//! A topic in memory, and pipelines over it with systems that can be turned off.

use std::sync::Arc;

use millrace_core::{Lookup, SinkId, Start, Subscription, Template, TopicSpec};
use millrace_runtime::{
    Breaker, BreakerPolicy, Clock, DeadLetterQueue, Decode, FleetReport, Format, Health, Limits, LookupKind,
    LookupStep, Metrics, Mode, OnGap, Pipeline, RetryPolicy, SinkPart, Steering, StepPart, run_fleet,
};
use millrace_testkit::memory::MemoryBroker;
use tokio::{
    task::JoinHandle,
    time::{Duration, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::doubles::{Gate, Mood, System};

pub const TOPIC: &str = "events";
pub const NOW_MS: i64 = 1_800_000_000_000;

pub struct Stage {
    pub broker: MemoryBroker,
    pub health: Health,
    pub metrics: Metrics,
    pub shutdown: CancellationToken,
    /// In front of the dead letters.
    pub letters: Arc<System>,
}

impl Stage {
    /// A topic with this many events in each partition; their ids are `partition-number`.
    pub fn new(partitions: u32, events: u32) -> Self {
        let broker = MemoryBroker::with_topic(TOPIC, partitions);
        let stage = Stage {
            broker,
            health: Health::default(),
            metrics: Metrics::new(),
            shutdown: CancellationToken::new(),
            letters: System::new(Mood::Works),
        };
        (0..partitions.cast_signed()).for_each(|partition| stage.append(partition, 0..events));
        stage
    }

    pub fn append(&self, partition: i32, numbers: std::ops::Range<u32>) {
        let event = |number| {
            format!(r#"{{"eventId":"{partition}-{number}","eventType":"a.b.c.v1","payload":{{"u":"x"}}}}"#)
        };
        self.broker.append(TOPIC, partition, numbers.map(event));
    }

    pub fn pipeline(&self, name: &str, sinks: Vec<SinkPart>) -> Pipeline {
        let topic = TopicSpec {
            name: format!("{TOPIC}.dlq"),
            partitions: 1,
            retention_ms: None,
            retention_bytes: None,
            record_bytes_max: 1 << 20,
            replication: None,
            compact: false,
        };
        let broker = Arc::new(self.broker.clone());
        let gate = Gate { system: self.letters.clone(), producer: broker.clone() };
        let queue = DeadLetterQueue::new(name.into(), topic, broker.clone(), Arc::new(gate));
        Pipeline {
            name: name.into(),
            lane: None,
            broker,
            breaker: breaker("broker main"),
            subscription: Subscription {
                topic: TOPIC.into(),
                group: Some(name.into()),
                partitions: None,
                start: Start::Beginning,
                prefetch_bytes_max: 1 << 20,
                batch_records_max: 10,
            },
            decode: Decode { format: Format::Json, events: None },
            on_gap: OnGap::Stop,
            steps: Vec::new(),
            sinks,
            dead_letters: Arc::new(queue),
            writes_topics: Vec::new(),
            transactions: false,
            limits: Limits { call_timeout: Duration::from_secs(5), ..Limits::default() },
            retry: RetryPolicy::default(),
            steering: Steering::default(),
            version_log: None,
        }
    }

    /// Runs pipelines until `shutdown`.
    pub fn start(&self, pipelines: Vec<Pipeline>) -> JoinHandle<FleetReport> {
        self.run(pipelines, Mode::Forever)
    }

    pub fn run(&self, pipelines: Vec<Pipeline>, mode: Mode) -> JoinHandle<FleetReport> {
        let pipelines = pipelines.into_iter().map(Arc::new).collect();
        let (metrics, health, shutdown) = (self.metrics.clone(), self.health.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            run_fleet(pipelines, mode, &metrics, &health, &Clock::fixed(NOW_MS), &shutdown).await
        })
    }

    /// Ends the run, which must go well.
    pub async fn stop(&self, running: JoinHandle<FleetReport>) {
        self.shutdown.cancel();
        let report = timeout(Duration::from_secs(3_600), running).await.unwrap().unwrap();
        assert!(report.failures.is_empty(), "{report:?}");
    }

    /// Place, class and reason of each dead letter.
    pub fn dead_letters(&self) -> Vec<[String; 3]> {
        let letters = self.broker.records(&format!("{TOPIC}.dlq"));
        let header = |letter: &millrace_core::Record, name: &str| {
            String::from_utf8_lossy(letter.header(name).unwrap()).into_owned()
        };
        letters
            .iter()
            .map(|l| ["millrace-place", "millrace-class", "millrace-reason"].map(|name| header(l, name)))
            .collect()
    }

    pub fn committed(&self, group: &str) -> Vec<Option<i64>> {
        (0..4).map(|partition| self.broker.committed(group, TOPIC, partition)).collect()
    }
}

pub fn breaker(endpoint: &str) -> Breaker {
    Breaker::new(endpoint, BreakerPolicy::default(), 7)
}

pub fn sink(pipeline: &str, id: &str, system: &Arc<System>, breaker: &Breaker) -> SinkPart {
    SinkPart {
        id: SinkId { pipeline: pipeline.into(), sink: id.into() },
        sink: system.clone(),
        timeout: Duration::from_secs(5),
        breaker: breaker.clone(),
        ledger: None,
        retry: RetryPolicy::default(),
    }
}

pub fn lookup(store: Arc<dyn Lookup>, breaker: &Breaker) -> StepPart {
    StepPart::Lookup(Arc::new(LookupStep {
        id: "user".into(),
        store,
        breaker: breaker.clone(),
        kind: LookupKind::Document { key: Template::parse("user:{payload.u}").unwrap() },
        into: "user".into(),
        cache_ttl: Duration::ZERO,
        cache_entries_max: 1,
        uncached: Default::default(),
        guard: None,
    }))
}

/// Lets time pass while others work. Time is paused: it jumps to whatever is due next.
pub async fn pass(time: Duration) {
    let never = std::future::pending::<()>();
    let _ = timeout(time, never).await;
}

/// Waits until somebody has paused the pipeline; an hour of paused time at most.
pub async fn paused(steering: &Steering) {
    let mut changes = steering.watch();
    let wait = changes.wait_for(Option::is_some);
    timeout(Duration::from_secs(3_600), wait).await.expect("in time").unwrap();
}
