//! Everything is killed and stopped at random while a social network goes on: in the end nothing is lost and nothing
//! shows twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    thread::{Scope, ScopedJoinHandle},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::{
    clock, faults,
    input::{Network, Tap},
    laboratory::Server,
    processes::{Metrics, Process, send},
    say, seed,
    stage::{READERS, Stage},
};

const PEOPLE: u32 = 40;
const PROCESSES: usize = 3;
/// The input is let through while a fault waits for its moment.
const EVENTS_PER_SECOND: u32 = 500;
const EVENTS_PER_FAULT: u64 = 200;
const EVENTS_PER_LOOK: u64 = 5;
/// How far a fault may come before others, while their servers are coming back: those that take long to start set the
/// pace, and the others do not wait for them.
const LOOK_AHEAD: usize = 12;
/// How long a fault waits for records in flight. When there are none by then, it comes all the same and is counted.
const IN_FLIGHT_WITHIN: Duration = Duration::from_secs(60);

/// From so many kills of a target on, it is the long form.
const LONG_FORM: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Millrace,
    Server(Server),
}

const TARGETS: [Target; 4] = [
    Target::Millrace,
    Target::Server(Server::Kafka),
    Target::Server(Server::Redis),
    Target::Server(Server::Elasticsearch),
];

impl Target {
    /// Whether what a pipeline has in flight is in this target's hands.
    fn concerns(self, pipeline: &str) -> bool {
        match self {
            Target::Millrace | Target::Server(Server::Kafka) => true,
            Target::Server(Server::Redis) => {
                ["follows", "home-feed", "post-summaries", "notifications"].contains(&pipeline)
            }
            Target::Server(Server::Elasticsearch) => {
                ["post-search", "users", "notifications"].contains(&pipeline)
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Millrace => f.write_str("millrace"),
            Target::Server(server) => f.write_str(server.name()),
        }
    }
}

/// One fault: after `gap`, kill or freeze, for `away`.
struct Fault {
    target: Target,
    kill: bool,
    gap: Duration,
    away: Duration,
}

/// `kills` of each target and a fifth as many freezes, shuffled.
fn schedule(kills: usize, rng: &mut SmallRng) -> Vec<Fault> {
    let mut faults = Vec::new();
    for target in TARGETS {
        for number in 0..kills + kills.div_ceil(5) {
            let kill = number < kills;
            // A frozen process loses its session, 6 s, and wakes up as a zombie.
            let away = if kill {
                0..1_000
            } else if target == Target::Millrace {
                5_000..9_000
            } else {
                500..4_000
            };
            faults.push(Fault {
                target,
                kill,
                gap: Duration::from_millis(rng.random_range(0..600)),
                away: Duration::from_millis(rng.random_range(away)),
            });
        }
    }
    faults.shuffle(rng);
    faults
}

/// What was in the target's hands at one time.
#[derive(Default)]
struct InFlight {
    bytes: f64,
    pipelines: BTreeSet<String>,
}

impl InFlight {
    fn note(&mut self, target: Target, metrics: &Metrics) {
        let name = |labels: &str| labels.trim_start_matches("pipeline=\"").trim_end_matches('"').to_owned();
        for (labels, bytes) in metrics.of("millrace_in_flight_bytes") {
            if bytes > 0.0 && target.concerns(&name(labels)) {
                self.bytes += bytes;
                self.pipelines.insert(name(labels));
            }
        }
    }
}

/// A place for a process, which is started again when it was killed.
struct Slot<'scope> {
    process: Process,
    thawing: Option<ScopedJoinHandle<'scope, ()>>,
}

/// The trial under way.
struct Trial<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    stage: &'env Stage,
    tap: &'env Tap,
    slots: Vec<Slot<'scope>>,
    started: usize,
    recovering: BTreeMap<Server, ScopedJoinHandle<'scope, ()>>,
    /// Of each target, the kills and those that hit with records in flight.
    kills: BTreeMap<Target, (usize, usize)>,
    /// When anything was committed last, in seconds since 1970.
    last_commit: f64,
    /// Processes that ended though nobody had killed them.
    quitters: Vec<String>,
}

impl<'scope, 'env> Trial<'scope, 'env> {
    fn begin(scope: &'scope Scope<'scope, 'env>, stage: &'env Stage, tap: &'env Tap) -> Self {
        let mut trial = Trial {
            scope,
            stage,
            tap,
            slots: Vec::new(),
            started: 0,
            recovering: BTreeMap::new(),
            kills: BTreeMap::new(),
            last_commit: now_seconds(),
            quitters: Vec::new(),
        };
        for _ in 0..PROCESSES {
            let process = trial.process().ready();
            trial.slots.push(Slot { process, thawing: None });
        }
        trial
    }

    fn process(&mut self) -> Process {
        self.started += 1;
        Process::start(&self.stage.millrace, &format!("run-{}", self.started), &[])
    }

    /// Starts again those that ended by themselves, which none should.
    fn supervise(&mut self) {
        for at in 0..self.slots.len() {
            if let Some(status) = self.slots[at].process.ended() {
                self.quitters.push(format!("{status}:\n{}", self.slots[at].process.last_words()));
                self.slots[at].process = self.process();
            }
        }
    }

    /// Which of these comes next: the first whose target is there, or the first.
    fn next(&self, faults: &[Fault]) -> usize {
        let is_there = |fault: &Fault| match fault.target {
            Target::Millrace => true,
            Target::Server(server) => self.recovering.get(&server).is_none_or(ScopedJoinHandle::is_finished),
        };
        faults.iter().take(LOOK_AHEAD).position(is_there).unwrap_or_default()
    }

    fn inflict(&mut self, number: usize, fault: &Fault) {
        clock::pause(fault.gap);
        self.supervise();
        if let Target::Server(server) = fault.target
            && let Some(recovering) = self.recovering.remove(&server)
        {
            recovering.join().expect("the server is back");
        }
        let (slot, in_flight) = self.moment(fault.target);
        let what = if fault.kill { "kill" } else { "freeze" };
        say(&format!(
            "{number}: {what} {}, {} bytes in flight in {}, last commit {:.1} s before",
            fault.target,
            in_flight.bytes,
            in_flight.pipelines.into_iter().collect::<Vec<_>>().join(" "),
            now_seconds() - self.last_commit,
        ));
        match fault.target {
            Target::Millrace if fault.kill => {
                let next = self.process();
                std::mem::replace(&mut self.slots[slot].process, next).kill();
            }
            Target::Millrace => self.freeze(slot, fault.away),
            Target::Server(server) => {
                let (lab, kill, away) = (&self.stage.lab, fault.kill, fault.away);
                let work = move || {
                    let started = Instant::now();
                    if kill {
                        lab.kill(server, away);
                    } else {
                        lab.freeze(server, away);
                    }
                    say(&format!(
                        "{} answers again after {:.1} s",
                        server.name(),
                        started.elapsed().as_secs_f64()
                    ));
                };
                self.recovering.insert(server, self.scope.spawn(work));
            }
        }
        if fault.kill {
            let (kills, hits) = self.kills.entry(fault.target).or_default();
            *kills += 1;
            *hits += usize::from(in_flight.bytes > 0.0);
        }
    }

    fn freeze(&mut self, slot: usize, time: Duration) {
        let pid = self.slots[slot].process.pid();
        send(pid, Signal::STOP);
        let thaw = move || {
            clock::pause(time);
            send(pid, Signal::CONT);
        };
        self.slots[slot].thawing = Some(self.scope.spawn(thaw));
    }

    /// Waits for a moment with records in flight. For millrace: in the hands of one process, and of which.
    fn moment(&mut self, target: Target) -> (usize, InFlight) {
        let end = Instant::now() + IN_FLIGHT_WITHIN;
        self.tap.open(EVENTS_PER_FAULT);
        loop {
            self.tap.open(EVENTS_PER_LOOK);
            let mut all = InFlight::default();
            for (at, slot) in self.slots.iter_mut().enumerate() {
                if slot.thawing.take_if(|thawing| thawing.is_finished()).is_none() && slot.thawing.is_some() {
                    continue;
                }
                let Some(metrics) = slot.process.metrics() else { continue };
                let commits = metrics.of("millrace_last_commit_timestamp_seconds");
                self.last_commit = commits.fold(self.last_commit, |last, (_, at)| last.max(at));
                let mut own = InFlight::default();
                own.note(target, &metrics);
                if target == Target::Millrace && own.bytes > 0.0 {
                    return (at, own);
                }
                all.note(target, &metrics);
            }
            if Instant::now() >= end || (target != Target::Millrace && all.bytes > 0.0) {
                return (self.awake(), all);
            }
            clock::pause(Duration::from_millis(5));
        }
    }

    fn awake(&self) -> usize {
        self.slots.iter().position(|slot| slot.thawing.is_none()).expect("not all are frozen")
    }

    /// Everything is back and done; all processes end as asked.
    fn conclude(self, input: ScopedJoinHandle<'scope, ()>) {
        for (server, recovering) in self.recovering {
            recovering.join().unwrap_or_else(|_| panic!("{} is back", server.name()));
        }
        self.tap.close();
        input.join().expect("everything is appended");
        let mut processes = Vec::new();
        for slot in self.slots {
            if let Some(thawing) = slot.thawing {
                thawing.join().expect("awake");
            }
            processes.push(slot.process);
        }
        say("all is back, draining");
        self.stage.drained(&READERS, || {
            let states = processes.iter().map(|process| process.get("/readyz").unwrap_or_default());
            states.collect::<Vec<_>>().join("\n")
        });
        for process in processes {
            let (status, log) = process.stop();
            assert!(status.success(), "{status} after SIGTERM:\n{log}");
        }
        assert!(self.quitters.is_empty(), "processes ended by themselves: {}", self.quitters.join("\n"));
        for number in 1..=self.started {
            let log = self.stage.millrace.path().join(format!("run-{number}.log"));
            let log = std::fs::read_to_string(log).expect("a log");
            let bad = log.lines().find(|l| l.contains("pipeline failed") || l.contains("panic"));
            assert!(bad.is_none(), "process {number}: {bad:?}");
        }
        for (target, (kills, hits)) in &self.kills {
            say(&format!("{target}: {kills} kills, {hits} of them with records in flight"));
            // A few kills are no sample: one of them may come when a machine is too busy to have anything in flight.
            let least = if *kills < LONG_FORM { kills.div_ceil(2) } else { (kills * 9).div_ceil(10) };
            assert!(*hits >= least, "{target}: only {hits} of {kills} kills had records in flight");
        }
    }
}

#[test]
fn nothing_is_lost_when_everything_is_killed() {
    let seed = seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut faults = schedule(faults(3), &mut rng);
    let stage = Stage::set("kills");
    let mut network = Network::new(PEOPLE, seed);
    stage.people(&network);
    let mut appender = stage.appender();
    let tap = Tap::default();
    say(&format!("{} faults, seed {seed}", faults.len()));
    std::thread::scope(|scope| {
        // A failure ends the input too, which the scope waits for.
        let _end = Ending(&tap);
        let mut trial = Trial::begin(scope, &stage, &tap);
        let (appender, network, tap) = (&mut appender, &mut network, &tap);
        let input = scope.spawn(|| appender.run(network, EVENTS_PER_SECOND, tap));
        for number in 1..=faults.len() {
            let fault = faults.remove(trial.next(&faults));
            trial.inflict(number, &fault);
        }
        trial.conclude(input);
    });
    stage.check(&network);
    say(&format!("{} events appended: nothing is lost, nothing is there twice", appender.sent()));
}

struct Ending<'a>(&'a Tap);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[expect(clippy::disallowed_methods, reason = "compared with what real processes measured")]
fn now_seconds() -> f64 {
    jiff::Timestamp::now().as_millisecond() as f64 / 1_000.0
}
