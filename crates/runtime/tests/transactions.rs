//! The runtime's transactions against the broker in memory, under paused time: outputs, dead letters, states and
//! progress are one.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use millrace_core::{
    Error, LookBack, Message, Outcome, Rejected, Result, Sink, SinkId, Start, Step, StepContext, StepFactory,
    Subscription, TopicSpec,
};
use millrace_runtime::{
    Breaker, BreakerPolicy, Clock, DeadLetterQueue, Decode, Format, Health, Limits, Metrics, Mode,
    ModuleAbout, OnGap, Pipeline, RetryPolicy, SinkPart, Steering, StepPart, Summary, TopicSink,
    run_pipeline,
};
use millrace_testkit::memory::{CommitFault, Fault, MemoryBroker, MemorySink};
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

/// Adds numbers up: each output is the sum so far. Rejects what is no number, drops zeros.
#[derive(Default)]
struct Sum(u64);

impl Step for Sum {
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for message in batch {
            match std::str::from_utf8(&message.value).unwrap().parse::<u64>() {
                Ok(0) => {}
                Ok(number) => {
                    self.0 += number;
                    let sum = self.0.to_string().into();
                    outcome.passed.push(Message::derived(message.origin, message.key, sum));
                }
                Err(_) => {
                    let error = Error::reject("sum", "no number");
                    outcome.rejected.push(Rejected { origin: message.origin, error, refused: true });
                }
            }
        }
        Ok(outcome)
    }

    fn snapshot(&self) -> Option<Bytes> {
        Some(if self.0 == 0 { Bytes::new() } else { self.0.to_string().into() })
    }

    fn restore(&mut self, state: Bytes) -> Result<()> {
        self.0 = std::str::from_utf8(&state).unwrap().parse().unwrap();
        Ok(())
    }
}

/// Drops what it has seen, also in its history of three.
#[derive(Default)]
struct Distinct(Vec<Bytes>, Arc<Mutex<Vec<usize>>>);

impl Step for Distinct {
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for message in batch {
            if !self.0.contains(&message.value) {
                self.0.push(message.value.clone());
                outcome.passed.push(message);
            }
        }
        Ok(outcome)
    }

    fn look_back(&self) -> Option<LookBack> {
        Some(LookBack { records_max: 3, age_max: None })
    }

    fn prime(&mut self, history: Vec<Message>) -> Result<()> {
        self.1.lock().unwrap().push(history.len());
        self.0.extend(history.into_iter().map(|message| message.value));
        Ok(())
    }
}

/// Passes all, and notes how many came at a time.
struct Sizes(Arc<Mutex<Vec<usize>>>);

impl Step for Sizes {
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome> {
        self.0.lock().unwrap().push(batch.len());
        Ok(Outcome { passed: batch, ..Outcome::default() })
    }
}

struct Make<F>(F);

impl<F: Fn() -> Box<dyn Step> + Send + Sync> StepFactory for Make<F> {
    fn open(&self, _: &StepContext) -> Result<Box<dyn Step>> {
        Ok((self.0)())
    }
}

fn step(make: impl Fn() -> Box<dyn Step> + Send + Sync + 'static) -> StepPart {
    let about = ModuleAbout { module: "m".into(), digest: "00".into() };
    StepPart::fixed("m".into(), Arc::new(Make(make)), about)
}

fn sum() -> StepPart {
    step(|| Box::new(Sum::default()))
}

struct Bench {
    broker: MemoryBroker,
    /// Written beside the topic, without the transaction.
    beside: Arc<MemorySink>,
}

impl Bench {
    async fn new(numbers: impl IntoIterator<Item = &'static str>) -> Self {
        let broker = MemoryBroker::with_topic("in", 1);
        for name in ["out", "in.dlq"] {
            millrace_core::Admin::create_topic(&broker, &spec(name)).await.unwrap();
        }
        broker.append("in", 0, numbers);
        Bench { broker, beside: MemorySink::new(10) }
    }

    fn pipeline(&self, step: StepPart) -> Pipeline {
        let broker = Arc::new(self.broker.clone());
        let id = |sink: &str| SinkId { pipeline: "p".into(), sink: sink.into() };
        let out = TopicSink::new("out".into(), None, broker.clone()).joining();
        let breaker = Breaker::new("memory", BreakerPolicy::default(), 1);
        let part = |sink: &str, system: Arc<dyn Sink>| SinkPart {
            id: id(sink),
            sink: system,
            timeout: Duration::from_secs(5),
            breaker: breaker.clone(),
            ledger: None,
            retry: RetryPolicy::default(),
        };
        Pipeline {
            name: "p".into(),
            lane: None,
            broker: broker.clone(),
            breaker: breaker.clone(),
            subscription: Subscription {
                topic: "in".into(),
                group: Some("p".into()),
                partitions: None,
                start: Start::Beginning,
                prefetch_bytes_max: 1 << 20,
                batch_records_max: 2,
            },
            decode: Decode { format: Format::Bytes, events: None },
            on_gap: OnGap::Stop,
            steps: vec![step],
            sinks: vec![part("out", Arc::new(out)), part("beside", self.beside.clone())],
            dead_letters: Arc::new(DeadLetterQueue::new("p".into(), spec("in.dlq"), broker.clone(), broker)),
            writes_topics: Vec::new(),
            transactions: true,
            steering: Steering::default(),
            version_log: None,
            limits: Limits { batch_records_max: 2, ..Limits::default() },
            retry: RetryPolicy::default(),
        }
    }

    async fn run(&self, step: StepPart) -> Result<Summary> {
        let clock = Clock::fixed(1_800_000_000_000);
        let (metrics, health, shutdown) = (Metrics::new(), Health::default(), CancellationToken::new());
        run_pipeline(Arc::new(self.pipeline(step)), Mode::UntilEnd, metrics, health, clock, shutdown).await
    }

    fn values(&self, topic: &str) -> Vec<String> {
        let text = |bytes: Option<Bytes>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        self.broker.records(topic).into_iter().map(|record| text(record.value)).collect()
    }

    fn committed(&self) -> Option<i64> {
        self.broker.committed("p", "in", 0)
    }
}

fn spec(name: &str) -> TopicSpec {
    TopicSpec {
        name: name.to_owned(),
        partitions: 1,
        retention_ms: None,
        retention_bytes: None,
        record_bytes_max: 1 << 20,
        replication: None,
        compact: false,
    }
}

#[tokio::test(start_paused = true)]
async fn an_aggregate_goes_on_where_the_last_run_ended() {
    let bench = Bench::new(["1", "2", "3"]).await;
    bench.run(sum()).await.unwrap();
    bench.broker.append("in", 0, ["4", "5"]);
    bench.run(sum()).await.unwrap();
    assert_eq!(bench.values("out"), ["1", "3", "6", "10", "15"]);
    assert_eq!(bench.committed(), Some(5));
}

#[tokio::test(start_paused = true)]
async fn an_aborted_batch_runs_again_from_the_states_it_began_with() {
    let bench = Bench::new(["1", "2", "x", "3", "4"]).await;
    bench.broker.arm_commits([CommitFault::Abort, CommitFault::Abort]);
    let summary = bench.run(sum()).await.unwrap();
    assert_eq!(summary, Summary { records: 5, skipped: 0, dead_letters: 1 }, "each is counted once");
    assert_eq!(bench.values("out"), ["1", "3", "6", "10"], "and each is there once");
    assert_eq!(bench.values("in.dlq"), ["x"]);
    assert_eq!(bench.beside.written().len(), 8, "what is not in the transaction is repeated");
}

#[tokio::test(start_paused = true)]
async fn a_commit_without_an_answer_is_asked_for_again_and_not_repeated() {
    let bench = Bench::new(["1", "2", "3"]).await;
    bench.broker.arm_commits([CommitFault::Away, CommitFault::DoneAndSilent, CommitFault::DoneAndSilent]);
    bench.run(sum()).await.unwrap();
    assert_eq!(bench.values("out"), ["1", "3", "6"]);
    assert_eq!(bench.beside.written().len(), 3, "the batches were not run again");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_visible_of_a_batch_that_a_sink_ends() {
    let bench = Bench::new(["1", "2"]).await;
    bench.beside.arm("3", Fault::Fatal);
    let error = bench.run(sum()).await.unwrap_err();
    assert_eq!(error.to_string(), "memory: broken");
    assert!(bench.values("out").is_empty());
    assert_eq!(bench.committed(), None);
}

#[tokio::test(start_paused = true)]
async fn what_leaves_nothing_is_committed_as_well() {
    let bench = Bench::new(["0", "0", "0"]).await;
    bench.run(sum()).await.unwrap();
    assert_eq!(bench.committed(), Some(3));
    bench.run(sum()).await.unwrap();
    assert!(bench.values("out").is_empty());
}

#[tokio::test(start_paused = true)]
async fn steps_with_a_history_see_it_again_after_an_abort() {
    let bench = Bench::new(["a", "b", "a", "c"]).await;
    let primed = Arc::new(Mutex::new(Vec::new()));
    let seen = primed.clone();
    let distinct = move || Box::new(Distinct(Vec::new(), seen.clone())) as Box<dyn Step>;
    bench.broker.arm_commits([CommitFault::Abort]);
    bench.run(step(distinct)).await.unwrap();
    assert_eq!(bench.values("out"), ["a", "b", "c"], "what the aborted run had seen is forgotten");
    let seen = primed.clone();
    bench.broker.append("in", 0, ["b", "d", "c"]);
    bench.run(step(move || Box::new(Distinct(Vec::new(), seen.clone())))).await.unwrap();
    assert_eq!(bench.values("out"), ["a", "b", "c", "d"], "and what lies before a restart is known");
    assert_eq!(primed.lock().unwrap().as_slice(), [0, 0, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_topic_elsewhere_is_written_beside_the_transaction() {
    let bench = Bench::new(["1", "2"]).await;
    let elsewhere = MemoryBroker::with_topic("out", 1);
    let mut pipeline = bench.pipeline(sum());
    pipeline.sinks[0].sink = Arc::new(TopicSink::new("out".into(), None, Arc::new(elsewhere.clone())));
    bench.broker.arm_commits([CommitFault::Abort]);
    let clock = Clock::fixed(1_800_000_000_000);
    let (metrics, health, shutdown) = (Metrics::new(), Health::default(), CancellationToken::new());
    run_pipeline(Arc::new(pipeline), Mode::UntilEnd, metrics, health, clock, shutdown).await.unwrap();
    assert_eq!(elsewhere.records("out").len(), 4, "at least once");
}

#[tokio::test(start_paused = true)]
async fn what_came_during_a_transaction_is_the_next_one_although_each_record_was_the_last() {
    let bench = Bench::new(["1"]).await;
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = sizes.clone();
    let mut pipeline = bench.pipeline(step(move || Box::new(Sizes(seen.clone()))));
    pipeline.limits.batch_records_max = 100;
    bench.beside.arm("1", Fault::Hang(1));
    let (metrics, health, shutdown) = (Metrics::new(), Health::default(), CancellationToken::new());
    let clock = Clock::fixed(1_800_000_000_000);
    let running = run_pipeline(Arc::new(pipeline), Mode::Forever, metrics, health, clock, shutdown.clone());
    let running = tokio::spawn(running);
    let mut quiet = tokio::time::interval(Duration::from_millis(1));
    quiet.tick().await;
    for number in ["2", "3", "4", "5", "6", "7", "8", "9"] {
        // Time goes on when everything waits: the last record was read, and so was the topic's end behind it.
        quiet.tick().await;
        bench.broker.append("in", 0, [number]);
    }
    bench.beside.wait_for(9).await;
    shutdown.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(sizes.lock().unwrap().as_slice(), [1, 8]);
    assert_eq!(bench.values("out"), ["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!(bench.committed(), Some(9));
}

#[tokio::test(start_paused = true)]
async fn states_are_asked_for_again_where_no_answer_comes() {
    let bench = Bench::new(["1", "2"]).await;
    bench.run(sum()).await.unwrap();
    bench.broker.append("in", 0, ["3"]);
    bench.broker.silence_restores(2);
    bench.run(sum()).await.unwrap();
    assert_eq!(bench.values("out"), ["1", "3", "6"]);
}
