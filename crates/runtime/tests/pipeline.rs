//! The runtime against doubles in memory, under paused time: what is done, retried, rejected and committed.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

#[path = "pipeline/fleet.rs"]
mod fleet;
#[path = "pipeline/portions.rs"]
mod portions;
#[path = "pipeline/quarantine.rs"]
mod quarantine;
#[path = "pipeline/sinks.rs"]
mod sinks;
#[path = "pipeline/trials.rs"]
mod trials;
#[path = "pipeline/versions.rs"]
mod versions;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use millrace_core::{
    Answer, Call, Encoded, Error, Lease, Message, Outcome, Rejected, Result, Sink, SinkId, Start, Step,
    StepContext, StepFactory, Subscription, Template, TopicSpec,
};
use millrace_runtime::{
    Breaker, BreakerPolicy, Clock, DeadLetterQueue, Decode, Format, Gate, Guard, Health, HeldBy, Limits,
    LookupKind, LookupStep, Metrics, Mode, ModuleAbout, OnGap, Pause, Pipeline, PipelineState, RetryPolicy,
    SinkPart, Steering, StepPart, Summary, run_fleet, run_pipeline,
};
use millrace_testkit::memory::{Fault, MemoryBroker, MemoryLookup, MemorySink};
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

const TOPIC: &str = "events";
const GROUP: &str = "p";
const CREATED: &str = "content.post.created.v1";
const DELETED: &str = "content.post.deleted.v1";

fn event(id: u32, event_type: &str, payload: &str) -> String {
    format!(
        r#"{{"eventId":"{id}","eventType":"{event_type}","occurredAt":"2026-01-01T00:00:00Z","payload":{payload}}}"#
    )
}

fn breaker(endpoint: &str) -> Breaker {
    Breaker::new(endpoint, BreakerPolicy::default(), 1)
}

struct Bench {
    broker: MemoryBroker,
    sink: Arc<MemorySink>,
    shutdown: CancellationToken,
    metrics: Metrics,
}

impl Bench {
    fn new(partitions: u32, ops_max: usize) -> Self {
        Bench {
            broker: MemoryBroker::with_topic(TOPIC, partitions),
            sink: MemorySink::new(ops_max),
            shutdown: CancellationToken::new(),
            metrics: Metrics::new(),
        }
    }

    fn pipeline(&self, steps: Vec<StepPart>) -> Pipeline {
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
        let dead_letters = DeadLetterQueue::new(GROUP.into(), topic, broker.clone(), broker.clone());
        Pipeline {
            name: GROUP.into(),
            lane: None,
            broker,
            breaker: breaker("broker"),
            subscription: Subscription {
                topic: TOPIC.into(),
                group: Some(GROUP.into()),
                partitions: None,
                start: Start::Beginning,
                prefetch_bytes_max: 1 << 20,
                batch_records_max: 10,
            },
            decode: Decode {
                format: Format::Json,
                events: Some(HashSet::from([CREATED.into(), DELETED.into()])),
            },
            on_gap: OnGap::Stop,
            steps,
            sinks: vec![SinkPart {
                id: SinkId { pipeline: GROUP.into(), sink: "memory".into() },
                sink: self.sink.clone(),
                timeout: Duration::from_secs(5),
                breaker: breaker("sink"),
                ledger: None,
                retry: RetryPolicy::default(),
            }],
            dead_letters: Arc::new(dead_letters),
            writes_topics: Vec::new(),
            transactions: false,
            steering: Steering::default(),
            version_log: None,
            limits: Limits::default(),
            retry: RetryPolicy::default(),
        }
    }

    async fn run(&self, pipeline: Pipeline, mode: Mode) -> Result<Summary> {
        let clock = Clock::fixed(1_800_000_000_000);
        let metrics = self.metrics.clone();
        run_pipeline(Arc::new(pipeline), mode, metrics, Health::default(), clock, self.shutdown.clone()).await
    }

    fn dead_letters(&self) -> Vec<(String, String)> {
        let header = |r: &millrace_core::Record, name: &str| {
            String::from_utf8(r.header(name).unwrap().into()).unwrap()
        };
        let letters = self.broker.records(&format!("{TOPIC}.dlq"));
        letters.iter().map(|r| (header(r, "millrace-place"), header(r, "millrace-reason"))).collect()
    }
}

/// Rejects what contains "poison", drops what contains "drop".
struct Picky;

impl Step for Picky {
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for message in batch {
            let text = String::from_utf8_lossy(&message.value).into_owned();
            if text.contains("poison") {
                let error = Error::reject("picky", "poison");
                outcome.rejected.push(Rejected { origin: message.origin.clone(), error, refused: true });
            } else if !text.contains("drop") {
                outcome.passed.push(message);
            }
        }
        Ok(outcome)
    }
}

impl StepFactory for Picky {
    fn open(&self, _: &StepContext) -> Result<Box<dyn Step>> {
        Ok(Box::new(Picky))
    }
}

fn picky() -> StepPart {
    let about = ModuleAbout { module: "picky".into(), digest: "00".into() };
    StepPart::fixed("picky".into(), Arc::new(Picky), about)
}

fn followers(store: &Arc<MemoryLookup>, page_members_max: u32) -> LookupStep {
    LookupStep {
        id: "followers".into(),
        store: store.clone(),
        breaker: breaker("lookup"),
        kind: LookupKind::Members {
            key: Template::parse("followers:{payload.u}").unwrap(),
            page_members_max,
        },
        into: "followers".into(),
        cache_ttl: Duration::from_secs(5),
        cache_entries_max: 100,
        uncached: HashSet::from([DELETED.to_owned()]),
        guard: Some(Guard {
            id: Template::parse("{payload.p}").unwrap(),
            closed_by: HashSet::from([DELETED.to_owned()]),
            ttl: Duration::from_secs(60),
        }),
    }
}

#[tokio::test(start_paused = true)]
async fn commits_the_end_when_all_is_done_or_buried() {
    let bench = Bench::new(2, 3);
    bench.broker.append(TOPIC, 0, (0..25).map(|i| event(i, CREATED, "{}")));
    let other = event(100, "media.media.uploaded.v1", "{}");
    let bad =
        ["not json".to_owned(), event(101, CREATED, r#""poison""#), event(102, CREATED, r#""drop""#), other];
    bench.broker.append(TOPIC, 1, bad);
    let summary = bench.run(bench.pipeline(vec![picky()]), Mode::UntilEnd).await.unwrap();
    assert_eq!(summary, Summary { records: 29, skipped: 1, dead_letters: 2 });
    assert_eq!(bench.sink.written().len(), 25);
    assert_eq!(bench.broker.committed(GROUP, TOPIC, 0), Some(25));
    assert_eq!(bench.broker.committed(GROUP, TOPIC, 1), Some(4));
    let letters = bench.dead_letters();
    assert_eq!(letters[0].0, "decode");
    assert_eq!(letters[1], ("step:picky".to_owned(), "picky: poison".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_the_original_with_its_place() {
    let bench = Bench::new(1, 1);
    bench.broker.append(TOPIC, 0, [event(1, CREATED, r#""poison""#)]);
    bench.run(bench.pipeline(vec![picky()]), Mode::UntilEnd).await.unwrap();
    let letter = &bench.broker.records(&format!("{TOPIC}.dlq"))[0];
    assert_eq!(letter.value.as_deref(), Some(event(1, CREATED, r#""poison""#).as_bytes()));
    let expected = [
        ("millrace-format", "1"),
        ("millrace-origin-topic", TOPIC),
        ("millrace-origin-partition", "0"),
        ("millrace-origin-offset", "0"),
        ("millrace-pipeline", GROUP),
        ("millrace-class", "reject"),
        ("millrace-module", "picky"),
        ("millrace-attempts", "1"),
        ("millrace-first-failed-at", "1800000000000"),
    ];
    for (name, value) in expected {
        assert_eq!(letter.header(name), Some(value.as_bytes()), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_until_the_sink_is_back_and_narrows_what_it_refuses() {
    let bench = Bench::new(1, 10);
    bench.broker.append(TOPIC, 0, (0..10).map(|i| event(i, CREATED, &format!(r#""n{i}""#))));
    bench.sink.arm("n3", Fault::Retry(4));
    bench.sink.arm("n3", Fault::Hang(1));
    bench.sink.arm("n7", Fault::Reject);
    let summary = bench.run(bench.pipeline(vec![]), Mode::UntilEnd).await.unwrap();
    assert_eq!(summary.dead_letters, 1);
    let written = bench.sink.written();
    assert_eq!(written.len(), 9, "{written:?}");
    assert_eq!(bench.dead_letters(), [("sink:memory".to_owned(), "memory: refused".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_fatal_sink_stops_the_pipeline_and_commits_nothing_of_its_batch() {
    let bench = Bench::new(1, 1);
    bench.broker.append(TOPIC, 0, (0..10).map(|i| event(i, CREATED, &format!(r#""n{i}""#))));
    bench.sink.arm("n5", Fault::Fatal);
    let error = bench.run(bench.pipeline(vec![]), Mode::UntilEnd).await.unwrap_err();
    assert_eq!(error.to_string(), "memory: broken");
    assert_eq!(bench.broker.committed(GROUP, TOPIC, 0), None);
}

#[tokio::test(start_paused = true)]
async fn large_sets_come_page_by_page_and_small_ones_from_the_cache() {
    let bench = Bench::new(1, 100);
    let store = MemoryLookup::with_set("followers:a", (0..25).map(|i| format!("f{i:02}")));
    store.put("followers:b", ["x".to_owned()]);
    let event = |id, user: &str| event(id, CREATED, &format!(r#"{{"u":"{user}","p":"p{id}"}}"#));
    bench.broker.append(TOPIC, 0, [event(1, "a"), event(2, "b"), event(3, "b"), event(4, "nobody")]);
    let lookup = StepPart::Lookup(Arc::new(followers(&store, 10)));
    bench.run(bench.pipeline(vec![lookup]), Mode::UntilEnd).await.unwrap();
    let sizes: Vec<usize> = bench
        .sink
        .written()
        .iter()
        .map(|json| {
            serde_json::from_str::<serde_json::Value>(json).unwrap()["followers"].as_array().unwrap().len()
        })
        .collect();
    assert_eq!(sizes, [10, 1, 1, 0, 10, 5]);
    let reads: Vec<String> = store.reads().into_iter().map(|read| read.key).collect();
    assert_eq!(reads, ["followers:a", "followers:b", "followers:nobody", "followers:a", "followers:a"]);
}

#[tokio::test(start_paused = true)]
async fn a_create_after_its_delete_is_dropped_by_the_guard() {
    let bench = Bench::new(1, 100);
    let store = MemoryLookup::with_set("followers:a", ["f".to_owned()]);
    let payload = |p: &str| format!(r#"{{"u":"a","p":"{p}"}}"#);
    let events = [
        event(1, DELETED, &payload("p1")),
        event(2, CREATED, &payload("p1")),
        event(3, CREATED, &payload("p2")),
    ];
    bench.broker.append(TOPIC, 0, events);
    let lookup = StepPart::Lookup(Arc::new(followers(&store, 10)));
    bench.run(bench.pipeline(vec![lookup]), Mode::UntilEnd).await.unwrap();
    let ids: Vec<String> = bench
        .sink
        .written()
        .iter()
        .map(|json| {
            serde_json::from_str::<serde_json::Value>(json).unwrap()["eventId"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids, ["1", "3"]);
}

#[tokio::test(start_paused = true)]
async fn records_that_were_removed_unread_stop_the_pipeline_by_name() {
    let bench = Bench::new(1, 1);
    bench.broker.append(TOPIC, 0, (0..10).map(|i| event(i, CREATED, "{}")));
    bench.broker.set_committed(GROUP, TOPIC, 0, 2);
    bench.broker.expire(TOPIC, 0, 5);
    let error = bench.run(bench.pipeline(vec![]), Mode::UntilEnd).await.unwrap_err();
    assert!(error.to_string().contains("records 2 to 4 of events/0 were removed"), "{error}");
    let lenient = Pipeline { on_gap: OnGap::Continue, ..bench.pipeline(vec![]) };
    bench.run(lenient, Mode::UntilEnd).await.unwrap();
    assert_eq!(bench.sink.written().len(), 5);
    assert!(bench.metrics.render().contains(r#"millrace_records_lost_total{pipeline="p"} 3"#));
}

#[tokio::test(start_paused = true)]
async fn shutdown_finishes_what_is_in_flight_and_commits_it() {
    let bench = Bench::new(1, 1);
    bench.broker.append(TOPIC, 0, (0..5).map(|i| event(i, CREATED, "{}")));
    let running = bench.run(bench.pipeline(vec![]), Mode::Forever);
    let stop = async {
        bench.sink.wait_for(5).await;
        bench.shutdown.cancel();
    };
    let (end, ()) = tokio::join!(running, stop);
    end.unwrap();
    assert_eq!(bench.broker.committed(GROUP, TOPIC, 0), Some(5));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_without_a_lease() {
    let bench = Bench::new(1, 1);
    bench.broker.append(TOPIC, 0, (0..5).map(|i| event(i, CREATED, "{}")));
    let lease = Arc::new(Lease::new(Duration::from_secs(1)));
    tokio::time::advance(Duration::from_secs(2)).await;
    bench.broker.set_lease(lease.clone());
    let running = bench.run(bench.pipeline(vec![]), Mode::Forever);
    let watch = async {
        // Paused time: this hour passes as soon as nobody has anything to do but wait for the lease.
        tokio::time::timeout(Duration::from_secs(3_600), bench.sink.wait_for(1)).await.unwrap_err();
        lease.renew(Duration::from_secs(3_600));
        bench.sink.wait_for(5).await;
        bench.shutdown.cancel();
    };
    let (end, ()) = tokio::join!(running, watch);
    end.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failure_elsewhere_is_not_forgotten_while_a_partition_is_handed_over() {
    let bench = Bench::new(2, 1);
    bench.broker.append(TOPIC, 0, [event(1, CREATED, r#""slow""#)]);
    bench.broker.append(TOPIC, 1, [event(2, CREATED, r#""fine""#), event(3, CREATED, r#""bad""#)]);
    bench.sink.arm("slow", Fault::Hang(1));
    bench.sink.arm("bad", Fault::Retry(3));
    bench.sink.arm("bad", Fault::Fatal);
    let running = bench.run(bench.pipeline(vec![]), Mode::Forever);
    let revoke = async {
        bench.sink.wait_for(1).await;
        bench.broker.revoke(TOPIC, 0).await.unwrap_err();
    };
    let both = async { tokio::join!(running, revoke) };
    let (end, ()) = tokio::time::timeout(Duration::from_secs(3_600), both).await.unwrap();
    assert_eq!(end.unwrap_err().to_string(), "memory: broken");
    assert_eq!(bench.broker.committed(GROUP, TOPIC, 0), None);
}

/// Breaks an invariant of its own.
struct Panics;

impl Step for Panics {
    #[expect(clippy::panic, reason = "this is what is tested")]
    fn apply(&mut self, _: Vec<Message>) -> Result<Outcome> {
        panic!("a bug")
    }
}

impl StepFactory for Panics {
    fn open(&self, _: &StepContext) -> Result<Box<dyn Step>> {
        Ok(Box::new(Panics))
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_worker_ends_the_pipeline() {
    let bench = Bench::new(1, 1);
    bench.broker.append(TOPIC, 0, [event(1, CREATED, "{}")]);
    let about = ModuleAbout { module: "panics".into(), digest: "00".into() };
    let step = StepPart::fixed("panics".into(), Arc::new(Panics), about);
    let running = bench.run(bench.pipeline(vec![step]), Mode::Forever);
    let end = tokio::time::timeout(Duration::from_secs(3_600), running).await.unwrap();
    assert_eq!(end.unwrap_err().to_string(), "worker of events/0: ended by a panic");
    assert_eq!(bench.broker.committed(GROUP, TOPIC, 0), None);
}

/// Breaks an invariant of its own before anything is read.
struct PanicsAtTheStart;

#[async_trait]
impl Sink for PanicsAtTheStart {
    #[expect(clippy::panic, reason = "this is what is tested")]
    async fn prepare(&self) -> Result<()> {
        panic!("a bug")
    }

    fn encode(&self, _: &[Message]) -> Encoded {
        Encoded::default()
    }

    async fn send(&self, _: &[Call]) -> Vec<Answer> {
        Vec::new()
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_pipeline_is_told_under_its_name_and_stops_no_other() {
    let bench = Bench::new(1, 1);
    bench.broker.append(TOPIC, 0, [event(1, CREATED, "{}")]);
    let mut broken = Pipeline { name: "broken".into(), ..bench.pipeline(vec![]) };
    broken.sinks[0].sink = Arc::new(PanicsAtTheStart);
    let pipelines = vec![Arc::new(broken), Arc::new(bench.pipeline(vec![]))];
    let (health, clock) = (Health::default(), Clock::fixed(1_800_000_000_000));
    let running = run_fleet(pipelines, Mode::UntilEnd, &bench.metrics, &health, &clock, &bench.shutdown);
    let report = running.await;
    assert_eq!(report.summaries.len(), 1);
    let failures: Vec<_> = report.failures.iter().map(|(name, error)| (&**name, error.to_string())).collect();
    assert_eq!(failures, [("broken", "pipeline broken: ended by a panic".to_owned())]);
    let failed = PipelineState::Failed("pipeline broken: ended by a panic".into());
    assert_eq!(health.states()["broken"], failed);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_cannot_be_read_costs_only_its_record() {
    let bench = Bench::new(1, 100);
    let store = MemoryLookup::with_set("user:a", [r#"{"name":"A"}"#.to_owned()]);
    store.refuse("user:b");
    let event = |id, user: &str| event(id, CREATED, &format!(r#"{{"u":"{user}"}}"#));
    bench.broker.append(TOPIC, 0, [event(1, "a"), event(2, "b"), event(3, "nobody"), event(4, "a")]);
    let lookup = LookupStep {
        id: "user".into(),
        kind: LookupKind::Document { key: Template::parse("user:{payload.u}").unwrap() },
        into: "user".into(),
        guard: None,
        ..followers(&store, 10)
    };
    let steps = vec![StepPart::Lookup(Arc::new(lookup))];
    let summary = bench.run(bench.pipeline(steps), Mode::UntilEnd).await.unwrap();
    assert_eq!(summary, Summary { records: 4, skipped: 0, dead_letters: 1 });
    let users: Vec<serde_json::Value> = bench
        .sink
        .written()
        .iter()
        .map(|json| serde_json::from_str::<serde_json::Value>(json).unwrap()["user"].clone())
        .collect();
    let a = serde_json::json!({ "name": "A" });
    assert_eq!(users, [a.clone(), serde_json::Value::Null, a]);
    assert_eq!(bench.dead_letters()[0].0, "lookup:user");
}

fn pause() -> Pause {
    Pause { by: HeldBy::Operator, reason: "reindexing".into(), since_ms: 7 }
}

/// Time goes on only when nothing else can happen, so what has not happened after a minute never will.
async fn a_minute() {
    tokio::time::timeout(Duration::from_secs(60), std::future::pending::<()>()).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_pause_ends_what_is_in_flight_and_holds_the_rest() {
    let bench = Bench::new(1, 10);
    let limits = Limits { batch_records_max: 10, ..Limits::default() };
    let pipeline = Pipeline { limits, ..bench.pipeline(Vec::new()) };
    let (steering, health) = (pipeline.steering.clone(), Health::default());
    let clock = Clock::fixed(1);
    let run = run_pipeline(
        Arc::new(pipeline),
        Mode::Forever,
        bench.metrics.clone(),
        health.clone(),
        clock,
        bench.shutdown.clone(),
    );
    let running = tokio::spawn(run);
    let state = || health.states().get(GROUP).cloned();
    // The first batch is in the sink, the second one waits behind it.
    bench.sink.arm("n0", Fault::Hang(1));
    bench.broker.append(TOPIC, 0, (0..20).map(|i| event(i, CREATED, &format!(r#""n{i}""#))));
    while !matches!(state(), Some(PipelineState::Retrying(_))) {
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    steering.pause(pause());
    bench.sink.wait_for(10).await;
    a_minute().await;
    assert_eq!(bench.sink.written().len(), 10, "the batch in flight ended, none began");
    assert_eq!(bench.broker.committed(GROUP, TOPIC, 0), Some(10), "and it is committed");
    assert_eq!(state(), Some(PipelineState::Paused(pause())));
    assert!(!health.ready());
    steering.resume();
    bench.sink.wait_for(20).await;
    a_minute().await;
    assert_eq!(state(), Some(PipelineState::Running));
    assert_eq!(bench.broker.committed(GROUP, TOPIC, 0), Some(20));
    bench.shutdown.cancel();
    running.await.unwrap().unwrap();
}

/// Knows of a pause at the second time it is asked.
struct Late(Steering, AtomicBool);

#[async_trait]
impl Gate for Late {
    async fn ready(&self) -> Result<()> {
        if !self.1.swap(true, Ordering::Relaxed) {
            return Err(Error::retry("control topic", "away"));
        }
        self.0.pause(pause());
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_starts_paused_takes_nothing_in() {
    let bench = Bench::new(2, 10);
    bench.broker.append(TOPIC, 0, [event(1, CREATED, "{}")]);
    let steering = Steering::default();
    let gate = Arc::new(Late(steering.clone(), AtomicBool::default()));
    let pipeline = Pipeline { steering: steering.clone().behind(gate), ..bench.pipeline(Vec::new()) };
    let run = bench.run(pipeline, Mode::Forever);
    let watch = async {
        a_minute().await;
        assert!(bench.sink.written().is_empty());
        assert_eq!(bench.broker.committed(GROUP, TOPIC, 0), None);
        steering.resume();
        bench.sink.wait_for(1).await;
        bench.shutdown.cancel();
    };
    let (end, ()) = tokio::join!(run, watch);
    assert_eq!(end.unwrap().records, 1);
}

#[tokio::test(start_paused = true)]
async fn a_paused_run_until_the_end_ends_with_the_reason() {
    let bench = Bench::new(1, 10);
    bench.broker.append(TOPIC, 0, [event(1, CREATED, "{}")]);
    let pipeline = bench.pipeline(Vec::new());
    pipeline.steering.pause(pause());
    let error = bench.run(pipeline, Mode::UntilEnd).await.unwrap_err();
    let expected = format!("paused by operator: reindexing; 'millrace resume {GROUP}' lets it go on");
    assert_eq!(error.chain(), expected);
    assert!(bench.sink.written().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_a_partition_was_retried_for_is_over_when_it_is_gone() {
    let bench = Bench::new(2, 1);
    bench.broker.append(TOPIC, 0, [event(1, CREATED, r#""slow""#)]);
    bench.sink.arm("slow", Fault::Retry(1_000_000));
    let (health, clock) = (Health::default(), Clock::fixed(1_800_000_000_000));
    let pipeline = Arc::new(bench.pipeline(vec![]));
    let (metrics, shutdown) = (bench.metrics.clone(), bench.shutdown.clone());
    let running = run_pipeline(pipeline, Mode::Forever, metrics, health.clone(), clock, shutdown);
    let revoke = async {
        let is_retrying = || matches!(health.states().get(GROUP), Some(PipelineState::Retrying(_)));
        while !is_retrying() {
            tokio::task::yield_now().await;
        }
        bench.broker.revoke(TOPIC, 0).await.unwrap_err();
        assert_eq!(health.states()[GROUP], PipelineState::Running);
        bench.shutdown.cancel();
    };
    let both = async { tokio::join!(running, revoke) };
    let (end, ()) = tokio::time::timeout(Duration::from_secs(3_600), both).await.unwrap();
    end.unwrap();
}
