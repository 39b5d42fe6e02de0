//! A run from its beginning to its end: processes come and go while events are appended, then everything is mended,
//! and what is left is looked at.

use std::sync::Arc;

use millrace_core::Result;
use millrace_runtime::{
    Clock, Health, HeldBy, Metrics, Mode, Pause, PipelineState, Steering, Summary, run_pipeline,
};
use millrace_testkit::sim::{Faults, Log, Process, System, World};
use tokio::{
    task::JoinHandle,
    time::{Duration, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    input::{self, Appendeds, CONTENT, SOCIAL},
    oracle,
    pipelines::{Breakers, Lane, OUT, Shelf, Systems, pipeline, topic},
    setup::Setup,
};

/// Mended systems and a running process have done everything within this time, or never will.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is still under way when all is mended has arrived after this.
const AFTERMATH_MS: u64 = 6_000;

/// How far a clock may be off.
const CLOCK_JUMP_MS_MAX: u64 = 3 * 86_400_000;

/// A simulated process and its pipelines.
struct Running {
    process: Process,
    shutdown: CancellationToken,
    runs: Vec<(Lane, JoinHandle<Result<Summary>>)>,
    steerings: Vec<Steering>,
    health: Health,
    metrics: Metrics,
}

struct Scene {
    world: World,
    setup: Setup,
    systems: Systems,
    running: Vec<Running>,
    /// Told to end, and to be seen ending well.
    ending: Vec<Running>,
    started: usize,
}

/// Lives through the seed's run. What must not happen is told to the world.
pub async fn live(world: &World) {
    let setup = Setup::of(world);
    world.note(|| format!("{setup:?}"));
    let systems = Systems { log: Log::new(world), feeds: Shelf::new("feeds"), search: Shelf::new("search") };
    for name in [CONTENT, SOCIAL] {
        systems.log.create(&topic(name, setup.partitions));
    }
    systems.log.create(&topic(OUT, 2));
    for user in 0..input::USERS {
        let mut kept = systems.feeds.kept.lock().unwrap();
        kept.preload_members(&format!("followers:u{user}"), input::preloaded(user));
    }
    let events = input::events(world, &setup);
    let appended = Appendeds::default();
    world.set_faults(setup.faults);
    let producer = tokio::spawn(input::append(
        world.clone(),
        systems.log.clone(),
        events,
        setup.chaos_ms,
        appended.clone(),
    ));
    let mut scene =
        Scene { world: world.clone(), setup, systems, running: Vec::new(), ending: Vec::new(), started: 0 };
    scene.start(Mode::Forever);
    scene.chaos().await;
    producer.await.unwrap();
    scene.mend().await;
    let appended = appended.lock().unwrap();
    oracle::check(world, &scene.setup, &scene.systems, &appended);
}

impl Scene {
    fn start(&mut self, mode: Mode) {
        self.started += 1;
        let process = Process::new(&format!("p{}", self.started));
        self.world.note(|| format!("{}: starts, {mode:?}", process.name()));
        let shutdown = CancellationToken::new();
        let clock = Clock::told_by({
            let (world, process) = (self.world.clone(), process.clone());
            move || world.now_ms() + process.ahead_ms()
        });
        let (metrics, health) = (Metrics::new(), Health::default());
        let breakers = Breakers::new(&self.world, &self.setup);
        let mut steerings = Vec::new();
        let run = |lane: Lane| {
            let pipeline = pipeline(&self.world, &self.setup, &self.systems, (&process, &breakers), lane);
            steerings.push(pipeline.steering.clone());
            let run = run_pipeline(
                Arc::new(pipeline),
                mode,
                metrics.clone(),
                health.clone(),
                clock.clone(),
                shutdown.clone(),
            );
            (lane, tokio::spawn(run))
        };
        let runs = self.setup.lanes().into_iter().map(run).collect();
        self.running.push(Running { process, shutdown, runs, steerings, health, metrics });
    }

    /// Lets things happen for as long as the seed says.
    async fn chaos(&mut self) {
        let until = self.world.now_ms() + i64::try_from(self.setup.chaos_ms).unwrap();
        while self.world.now_ms() < until {
            self.world.wait(1 + self.world.below(600)).await;
            self.happen();
        }
    }

    fn happen(&mut self) {
        let weights = self.setup.weights;
        let mut dice = self.world.below(1_000);
        let mut is = |weight: u64| {
            let hit = dice < weight;
            dice = dice.wrapping_sub(weight);
            hit
        };
        if is(weights.start) {
            if self.running.len() < self.setup.processes_max {
                self.start(Mode::Forever);
            }
        } else if is(weights.shutdown) {
            self.shut_down_one();
        } else if is(weights.crash) {
            self.crash_one();
        } else if is(weights.stop) {
            self.stop_one();
        } else if is(weights.outage) {
            self.take_one_away();
        } else if is(weights.rebalance) {
            let lanes = self.setup.lanes();
            let lane = lanes[self.world.index(lanes.len())];
            let partition = self.world.below(u64::from(self.setup.partitions));
            self.systems.log.disturb(&lane.group(), i32::try_from(partition).unwrap());
        } else if is(weights.pause) {
            self.pause_one();
        } else if is(weights.clock) {
            self.set_one_clock();
        }
    }

    fn take_one(&mut self) -> Option<Running> {
        if self.running.is_empty() {
            return None;
        }
        Some(self.running.swap_remove(self.world.index(self.running.len())))
    }

    fn shut_down_one(&mut self) {
        let Some(one) = self.take_one() else { return };
        self.world.note(|| format!("{}: is told to end", one.process.name()));
        one.shutdown.cancel();
        if self.world.chance(0.3) {
            self.crash(one);
        } else {
            self.ending.push(one);
        }
    }

    fn crash_one(&mut self) {
        if let Some(one) = self.take_one() {
            self.crash(one);
        }
    }

    /// Some time from now, wherever it is then.
    fn crash(&self, one: Running) {
        let (world, ms) = (self.world.clone(), self.world.below(100));
        tokio::spawn(async move {
            world.wait(ms).await;
            world.note(|| format!("{}: crashes", one.process.name()));
            one.process.kill();
            one.runs.iter().for_each(|(_, run)| run.abort());
        });
    }

    fn stop_one(&self) {
        if self.running.is_empty() {
            return;
        }
        let process = self.running[self.world.index(self.running.len())].process.clone();
        let (world, ms) = (self.world.clone(), 100 + self.world.below(5_000));
        tokio::spawn(async move {
            world.note(|| format!("{}: is stopped for {ms} ms", process.name()));
            process.stop();
            world.wait(ms).await;
            world.note(|| format!("{}: wakes", process.name()));
            process.wake();
        });
    }

    /// Holds a pipeline, or lets it go.
    fn pause_one(&self) {
        let all: Vec<&Steering> = self.running.iter().flat_map(|one| &one.steerings).collect();
        if all.is_empty() {
            return;
        }
        let steering = all[self.world.index(all.len())];
        if steering.paused().is_some() {
            self.world.note(|| "a pipeline is resumed".to_owned());
            steering.resume();
        } else {
            self.world.note(|| "a pipeline is paused".to_owned());
            let (by, since_ms) = (HeldBy::Operator, self.world.now_ms());
            steering.pause(Pause { by, reason: "by the seed".to_owned(), since_ms });
        }
    }

    /// As somebody does who looks after it.
    fn resume_all(&self) {
        self.running.iter().flat_map(|one| &one.steerings).for_each(Steering::resume);
    }

    /// The time of day of a process jumps, by up to days and either way; it may jump back later.
    fn set_one_clock(&self) {
        if self.running.is_empty() {
            return;
        }
        let process = &self.running[self.world.index(self.running.len())].process;
        let ms = i64::try_from(self.world.below(CLOCK_JUMP_MS_MAX)).unwrap();
        let ms = self.world.pick(&[ms, -ms, 0]);
        self.world.note(|| format!("{}: its clock is {ms} ms ahead", process.name()));
        process.set_ahead_ms(ms);
    }

    fn take_one_away(&self) {
        let systems: [&System; 3] =
            [self.systems.log.system(), &self.systems.feeds.system, &self.systems.search.system];
        let system = systems[self.world.index(3)];
        let (ms, stalls) = (100 + self.world.below(2_500), self.world.chance(0.5));
        self.world.note(|| format!("{}: away for {ms} ms, stalls {stalls}", system.name()));
        system.take_away(ms, stalls);
    }

    /// Nothing goes wrong any more; everything there is must be done, and everybody must end well.
    async fn mend(&mut self) {
        self.world.note(|| "everything is mended".to_owned());
        self.resume_all();
        self.world.set_faults(Faults { latency_ms_max: 3, fetch_ms_max: 5, ..Faults::default() });
        if self.setup.until_end {
            self.start(Mode::UntilEnd);
            let last = self.running.pop().unwrap();
            if !self.ended(last, "until the end").await {
                return;
            }
        } else if self.running.is_empty() || self.world.chance(0.3) {
            self.start(Mode::Forever);
        }
        let lanes = self.setup.lanes();
        let done = async {
            while !lanes.iter().all(|lane| oracle::is_committed(&self.systems.log, *lane)) {
                self.resume_all();
                self.world.wait(20).await;
            }
        };
        if timeout(PATIENCE, done).await.is_err() {
            self.world.violation("what is in the log was never all done".to_owned());
        }
        self.world.wait(AFTERMATH_MS).await;
        // Who woke last may have paused since.
        self.resume_all();
        self.world.wait(AFTERMATH_MS).await;
        for one in std::mem::take(&mut self.running) {
            self.at_rest(&one);
            self.world.note(|| format!("{}: is told to end", one.process.name()));
            one.shutdown.cancel();
            self.ended(one, "told to end").await;
        }
        for one in std::mem::take(&mut self.ending) {
            self.ended(one, "told to end before").await;
        }
    }

    /// What a process says of itself when there is nothing to do.
    fn at_rest(&self, one: &Running) {
        let name = one.process.name();
        for (pipeline, state) in one.health.states() {
            if state != PipelineState::Running {
                self.world.violation(format!("{pipeline} of {name} is at rest, and says {state:?}"));
            }
        }
        let metrics = one.metrics.render();
        for line in metrics.lines().filter(|line| line.starts_with("millrace_in_flight_bytes{")) {
            if !line.ends_with(" 0") {
                self.world.violation(format!("{name} is at rest, and holds {line}"));
            }
        }
    }

    async fn ended(&self, one: Running, why: &str) -> bool {
        let mut well = true;
        for (lane, run) in one.runs {
            let name = format!("{} of {}, {why},", lane.name(), one.process.name());
            let problem = match timeout(PATIENCE, run).await {
                Err(_) => "does not end".to_owned(),
                Ok(Err(panic)) => format!("panicked: {panic}"),
                Ok(Ok(Err(error))) => format!("failed: {}", error.chain()),
                Ok(Ok(Ok(_))) => continue,
            };
            self.world.violation(format!("{name} {problem}"));
            well = false;
        }
        well
    }
}
