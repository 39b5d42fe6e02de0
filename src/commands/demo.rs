//! `millrace demo`: history first, then a day of events at a steady rate, then the rest, then a report.

use std::{
    io::{Write, stdout},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use millrace_config::Plan;
use millrace_core::{Broker, Error, NewRecord, Producer, Record, SourceEvent, Start, Subscription};
use millrace_runtime::{Clock, Health, Metrics, Mode, Pipeline, run_fleet};
use rand::{SeedableRng, rngs::SmallRng};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    args::DemoArgs,
    assemble::Systems,
    demo::{self, Day, Event, Live, Network, Report},
    plan,
    registry::{self, EmbeddedViews},
    report::{Failure, counted},
    signals::Signals,
};

/// The file the demo runs: the one a user starts from.
const PIPELINES: &str = include_str!("../../pipelines.yaml");
const PEOPLE: u32 = 1_000;
const FOLLOWS: u32 = 30;
/// Events are generated in steps of this length.
const STEP: Duration = Duration::from_millis(50);
const EVENTS_PER_SECOND: u64 = 800;
const QUERY: &str = "coffee";

pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    let (dir, temporary) = folder(args.keep.as_deref())?;
    let signals = Signals::listen()?;
    let shutdown = CancellationToken::new();
    let report = signals.guard(&shutdown, play(&args, &dir, &shutdown)).await?;
    // The temporary folder is removed here, not when a second signal ends the process.
    drop(temporary);
    let Some(report) = report? else { return Ok(()) };
    let text = if args.json { format!("{}\n", report.json()) } else { report.text() };
    stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// The folder to keep, which must be new or empty, or a temporary one.
fn folder(keep: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
    let Some(dir) = keep else {
        let dir = tempfile::Builder::new().prefix("millrace-demo-").tempdir()?;
        return Ok((dir.path().to_owned(), Some(dir)));
    };
    std::fs::create_dir_all(dir).map_err(|e| Failure::input(format!("{}: {e}", dir.display())))?;
    if std::fs::read_dir(dir)?.next().is_some() {
        return Err(Failure::input(format!("{}: is not empty; choose a new folder", dir.display())));
    }
    Ok((dir.to_owned(), None))
}

/// None: a signal came before there was anything to report.
async fn play(args: &DemoArgs, dir: &Path, shutdown: &CancellationToken) -> Result<Option<Report>, Failure> {
    let catalog = registry::catalog();
    let plan = millrace_config::load_embedded(
        "pipelines.yaml",
        PIPELINES,
        Path::new("."),
        &plan::variable,
        &catalog,
        dir,
    );
    let plan = plan.expect("invariant: the shipped pipelines are checked by the tests");
    let mut systems = Systems::new()?;
    let mut pipelines = Vec::new();
    let mut broker = None;
    for topic in plan.topics.keys() {
        let (of_topic, spec) = systems.topic(&plan, topic)?;
        of_topic.admin().create_topic(&spec).await?;
        broker = Some(of_topic);
    }
    for pipeline in plan.pipelines.values() {
        pipelines.extend(systems.lanes(&plan, pipeline).await?.into_iter().map(Arc::new));
    }
    let broker = broker.expect("invariant: the shipped pipelines declare topics");
    let stage =
        Stage { plan, pipelines, broker, metrics: Metrics::new(), store: EmbeddedViews::open(dir).await? };
    stage.play(args, dir, shutdown).await
}

/// What is on stage: the pipelines, the log they read and the views they write.
struct Stage {
    plan: Plan,
    pipelines: Vec<Arc<Pipeline>>,
    broker: Arc<dyn Broker>,
    metrics: Metrics,
    store: EmbeddedViews,
}

impl Stage {
    async fn play(
        &self,
        args: &DemoArgs,
        dir: &Path,
        shutdown: &CancellationToken,
    ) -> Result<Option<Report>, Failure> {
        let mut rng = SmallRng::seed_from_u64(args.seed);
        let network = Network::generate(PEOPLE, FOLLOWS, &mut rng);
        let mut day = Day::new(network, args.seed, Clock::system().now_ms());
        let mut live = Live::start();
        let producer = self.broker.producer().await?;
        live.note(
            "Millrace demo: no server, no network; the log and the views are SQLite files in one folder.",
        );
        let history = day.history();
        let users = counted(u64::from(PEOPLE), "person").replace("persons", "people");
        live.note(&format!(
            "{users} and {} first, so that there is somebody to read:",
            counted(day.generated.follows, "follow")
        ));
        produce(&*producer, history).await?;
        self.run(Mode::UntilEnd, shutdown, async { self.watch(&mut live, "history").await }).await?;
        let before = demo::effects(&self.metrics);
        let began = Instant::now();
        let stop = shutdown.child_token();
        let generating = async {
            let end = self.generate(args, &mut day, &*producer, &mut live, shutdown).await;
            stop.cancel();
            end
        };
        self.run(Mode::Forever, &stop, generating).await?;
        self.run(Mode::UntilEnd, shutdown, async { self.watch(&mut live, "the rest").await }).await?;
        if shutdown.is_cancelled() {
            return Ok(None);
        }
        let took = began.elapsed();
        live.finish();
        let effects = demo::effects(&self.metrics) - before;
        self.report(&day, took, effects, args.keep.is_some().then(|| dir.to_owned())).await.map(Some)
    }

    /// Runs the pipelines beside `other`, which may never end.
    async fn run(
        &self,
        mode: Mode,
        shutdown: &CancellationToken,
        other: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Failure> {
        let (health, clock) = (Health::default(), Clock::system());
        let fleet = run_fleet(self.pipelines.clone(), mode, &self.metrics, &health, &clock, shutdown);
        tokio::pin!(fleet, other);
        let report = tokio::select! {
            report = &mut fleet => report,
            end = &mut other => {
                end?;
                fleet.await
            }
        };
        match report.failures.into_iter().next() {
            None => Ok(()),
            Some((_, error)) => Err(Failure::from(error)),
        }
    }

    /// Keeps the view moving until it is dropped.
    async fn watch(&self, live: &mut Live, doing: &str) -> Result<(), Error> {
        let mut tick = interval(Duration::from_millis(100));
        loop {
            tick.tick().await;
            live.update(doing, self.records(), &self.metrics);
        }
    }

    /// A steady stream of events.
    async fn generate(
        &self,
        args: &DemoArgs,
        day: &mut Day,
        producer: &dyn Producer,
        live: &mut Live,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        live.note(&format!("Now {EVENTS_PER_SECOND} events a second for {} s: posts, edits, deletes, likes, redeliveries, and some that are broken.", args.seconds));
        let mut tick = interval(STEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let steps = args.seconds * 1_000 / STEP.as_millis() as u64;
        let per_step = EVENTS_PER_SECOND * STEP.as_millis() as u64 / 1_000;
        for _ in 0..steps {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = tick.tick() => {}
            }
            let mut events = Vec::new();
            for _ in 0..per_step {
                day.next(&mut events);
            }
            produce(producer, events).await?;
            live.update("live", self.records(), &self.metrics);
        }
        Ok(())
    }

    fn records(&self) -> u64 {
        self.plan.pipelines.keys().map(|name| self.metrics.records_in(name)).sum()
    }

    async fn report(
        &self,
        day: &Day,
        took: Duration,
        effects: u64,
        kept: Option<PathBuf>,
    ) -> Result<Report, Failure> {
        let reader = demo::user(day.network().keenest_reader());
        let found = self.store.search("posts", QUERY, 1_000_000).await?;
        let unread = self.store.counters_top(5).await?;
        let letters = self.dead_letters().await?;
        let ms = |share| self.metrics.latency_quantile("home-feed", share).map(|seconds| seconds * 1_000.0);
        Ok(Report {
            generated: day.generated,
            seconds: took.as_secs_f64(),
            effects,
            effects_per_second: (effects as f64 / took.as_secs_f64()) as u64,
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            feed: demo::feed(&self.store, &reader, 5).await?,
            reader,
            query: QUERY.to_owned(),
            hits_total: found.len() as u64,
            hits: found.iter().take(3).map(demo::Post::of).collect(),
            unread,
            dead_letters: demo::reasons(&letters),
            kept,
        })
    }

    async fn dead_letters(&self) -> Result<Vec<Record>, Error> {
        let mut letters = Vec::new();
        let mut topics: Vec<&str> =
            self.plan.pipelines.values().map(|p| p.dead_letters.name.as_str()).collect();
        topics.sort_unstable();
        topics.dedup();
        for topic in topics {
            if self.broker.admin().topic(topic).await?.is_some() {
                letters.extend(read_all(&*self.broker, topic).await?);
            }
        }
        Ok(letters)
    }
}

/// Appends events, per topic in their order.
async fn produce(producer: &dyn Producer, events: Vec<Event>) -> Result<(), Error> {
    let mut by_topic: std::collections::BTreeMap<&str, Vec<NewRecord>> = std::collections::BTreeMap::new();
    for event in events {
        let (key, value) = (Some(Bytes::from(event.key)), Some(Bytes::from(event.value)));
        by_topic.entry(event.topic).or_default().push(NewRecord { key, value, ..NewRecord::default() });
    }
    for (topic, records) in by_topic {
        for answer in producer.send(topic, records).await {
            answer?;
        }
    }
    Ok(())
}

/// Every record a topic holds now.
async fn read_all(broker: &dyn Broker, topic: &str) -> Result<Vec<Record>, Error> {
    let subscription = Subscription {
        topic: topic.to_owned(),
        group: None,
        partitions: None,
        start: Start::Beginning,
        prefetch_bytes_max: 8 << 20,
        batch_records_max: 1_000,
    };
    let partitions = broker.admin().topic(topic).await?.map_or(0, |info| info.partitions.len());
    let mut source = broker.subscribe(subscription).await?;
    let (mut records, mut ended) = (Vec::new(), 0);
    while ended < partitions {
        match source.next().await? {
            Some(SourceEvent::Batch(batch)) => records.extend(batch.records),
            Some(SourceEvent::CaughtUp { .. }) => ended += 1,
            Some(_) => {}
            None => break,
        }
    }
    Ok(records)
}
