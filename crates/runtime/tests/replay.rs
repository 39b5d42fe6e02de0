//! A replay against doubles in memory, under paused time: what is settled, what becomes a letter again, and when it
//! gives up.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

use std::{collections::HashSet, sync::Arc};

use millrace_core::{Class, SinkId, Start, Subscription, TopicSpec};
use millrace_runtime::{
    Breaker, BreakerPolicy, Clock, DeadLetterQueue, Decode, Entry, Format, Health, Letter, LetterLog, Limits,
    Metrics, Mode, OnGap, Outcome, Pipeline, Replay, Resolution, RetryPolicy, SinkPart, Steering, read_again,
    run_pipeline,
};
use millrace_testkit::memory::{Fault, MemoryBroker, MemorySink};
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

const TOPIC: &str = "events";
const LETTERS: &str = "events.dlq";
const CREATED: &str = "test.thing.created.v1";

fn event(id: u32, text: &str) -> String {
    format!(r#"{{"eventId":"{id}","eventType":"{CREATED}","payload":{{"text":"{text}"}}}}"#)
}

fn breaker(endpoint: &str) -> Breaker {
    Breaker::new(endpoint, BreakerPolicy::default(), 1)
}

struct Bench {
    broker: MemoryBroker,
    sink: Arc<MemorySink>,
}

impl Bench {
    /// A topic whose records the sink has refused.
    async fn with_letters(partitions: u32, count: u32) -> Self {
        let bench = Bench { broker: MemoryBroker::with_topic(TOPIC, partitions), sink: MemorySink::new(4) };
        for number in 0..count {
            let partition = (number % partitions).cast_signed();
            bench.broker.append(TOPIC, partition, [event(number, "poison")]);
        }
        bench.sink.arm("poison", Fault::Reject);
        let (metrics, health) = (Metrics::new(), Health::default());
        let pipeline = Arc::new(bench.pipeline());
        run_pipeline(pipeline, Mode::UntilEnd, metrics, health, Clock::fixed(7), CancellationToken::new())
            .await
            .unwrap();
        assert_eq!(bench.letters().await.len(), count as usize);
        bench
    }

    /// The same, with a sink that takes everything.
    async fn mended(partitions: u32, count: u32) -> Self {
        let bench = Bench::with_letters(partitions, count).await;
        Bench { sink: MemorySink::new(4), ..bench }
    }

    fn pipeline(&self) -> Pipeline {
        let spec = TopicSpec {
            name: LETTERS.into(),
            partitions: 2,
            retention_ms: None,
            retention_bytes: None,
            record_bytes_max: 1 << 20,
            replication: None,
            compact: false,
        };
        let broker = Arc::new(self.broker.clone());
        Pipeline {
            name: "p".into(),
            lane: None,
            broker: broker.clone(),
            breaker: breaker("broker"),
            subscription: Subscription {
                topic: TOPIC.into(),
                group: Some("p".into()),
                partitions: None,
                start: Start::Beginning,
                prefetch_bytes_max: 1 << 20,
                batch_records_max: 10,
            },
            decode: Decode { format: Format::Json, events: Some(HashSet::from([CREATED.into()])) },
            on_gap: OnGap::Stop,
            steps: Vec::new(),
            sinks: vec![SinkPart {
                id: SinkId { pipeline: "p".into(), sink: "memory".into() },
                sink: self.sink.clone(),
                timeout: Duration::from_secs(5),
                breaker: breaker("sink"),
                ledger: None,
                retry: RetryPolicy::default(),
            }],
            dead_letters: Arc::new(DeadLetterQueue::new("p".into(), spec, broker.clone(), broker)),
            writes_topics: Vec::new(),
            limits: Limits { batch_records_max: 3, ..Limits::default() },
            retry: RetryPolicy::default(),
            steering: Steering::default(),
            version_log: None,
            transactions: false,
        }
    }

    async fn log(&self) -> LetterLog {
        let mut log = LetterLog::open(Arc::new(self.broker.clone()), LETTERS).await.unwrap().unwrap();
        log.fold(None, |read, total| assert!(read <= total)).await.unwrap();
        log
    }

    /// The open letters.
    async fn letters(&self) -> Vec<Letter> {
        let log = self.log().await;
        let mut scan = log.scan(None).await.unwrap();
        let mut letters = Vec::new();
        while let Some(records) = scan.next().await.unwrap() {
            for record in records {
                if let Entry::Letter(letter) = Entry::read(&record).unwrap()
                    && log.outcome(letter.id).is_none()
                {
                    letters.push(*letter);
                }
            }
        }
        letters
    }

    async fn replay(&self, shutdown: &CancellationToken) -> Replay {
        let retry_for = Duration::from_secs(60);
        let pipeline = Arc::new(self.pipeline());
        Replay::open(pipeline, Clock::fixed(9), shutdown.clone(), retry_for).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn records_are_run_in_their_order_and_once() {
    let bench = Bench::mended(2, 8).await;
    let mut letters = bench.letters().await;
    // A letter that was written twice, as after a crash before the commit.
    letters.push(letters[0].clone());
    letters.reverse();
    let replayed = bench.replay(&CancellationToken::new()).await.run(letters).await.unwrap();
    assert_eq!((replayed.done.len(), replayed.again.len()), (9, 0));
    let order: Vec<u32> = [0, 2, 4, 6, 1, 3, 5, 7].into();
    let expected: Vec<String> = order.into_iter().map(|number| event(number, "poison")).collect();
    assert_eq!(bench.sink.written(), expected);
}

#[tokio::test(start_paused = true)]
async fn what_fails_again_keeps_its_history() {
    let bench = Bench::with_letters(1, 2).await;
    let letters = bench.letters().await;
    let replayed = bench.replay(&CancellationToken::new()).await.run(letters.clone()).await.unwrap();
    assert_eq!((replayed.done.len(), replayed.again.len()), (0, 2));
    assert!(replayed.again[0].1.starts_with("sink:memory: "), "{:?}", replayed.again);
    let resolution =
        |(id, _): &(_, String)| Resolution { id: *id, outcome: Outcome::Replaced, by: None, at_ms: 9 };
    let resolutions: Vec<Resolution> = replayed.again.iter().map(resolution).collect();
    bench.log().await.resolve(&resolutions).await.unwrap();
    let anew = bench.letters().await;
    assert_eq!(anew.len(), 2);
    for (old, new) in letters.iter().zip(&anew) {
        assert_eq!((new.attempts, new.replays, new.first_failed_ms, new.last_failed_ms), (2, 1, 7, 9));
        assert_eq!(old.record, new.record);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_ends_the_replay() {
    let bench = Bench::mended(1, 1).await;
    bench.sink.arm("poison", Fault::Retry(u32::MAX));
    let error = bench.replay(&CancellationToken::new()).await.run(bench.letters().await).await.unwrap_err();
    assert_eq!(error.class(), Class::Retry, "{error}");
    assert_eq!(bench.letters().await.len(), 1);
    // One that comes back in time does not.
    let bench = Bench::mended(1, 1).await;
    bench.sink.arm("poison", Fault::Retry(3));
    let replayed = bench.replay(&CancellationToken::new()).await.run(bench.letters().await).await.unwrap();
    assert_eq!((replayed.done.len(), bench.sink.written().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_signal_ends_it_at_the_next_wait() {
    let bench = Bench::mended(1, 1).await;
    bench.sink.arm("poison", Fault::Retry(u32::MAX));
    let shutdown = CancellationToken::new();
    let replay = bench.replay(&shutdown).await;
    shutdown.cancel();
    let error = replay.run(bench.letters().await).await.unwrap_err();
    assert!(error.to_string().contains("stopped before the end"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_record_is_read_again_while_it_is_there() {
    let bench = Bench::with_letters(1, 2).await;
    let letters = bench.letters().await;
    let record = read_again(&bench.broker, &letters[1]).await.unwrap().unwrap();
    assert_eq!((record.offset, record.value.as_deref()), (1, Some(event(1, "poison").as_bytes())));
    bench.broker.expire(TOPIC, 0, 1);
    assert!(read_again(&bench.broker, &letters[0]).await.unwrap().is_none());
}
