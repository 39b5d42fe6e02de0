//! What all parts of a simulation share: the seed's generator, the clock, the faults, the trace.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    task::yield_now,
    time::{Duration, Instant, sleep},
};

/// The time of day at which every simulation begins, ms since 1970.
const BEGINNING_MS: i64 = 1_767_225_600_000;

/// Tells runs apart without keeping their trace: FNV-1a.
const FINGERPRINT_START: u64 = 0xcbf2_9ce4_8422_2325;

/// How often things go wrong, from 0 to 1 per request, and how long they take.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// The longest that an ordinary request or answer is under way.
    pub latency_ms_max: u64,
    /// Requests that are refused at once, without effect.
    pub refused: f64,
    /// Requests that vanish, without effect and without answer.
    pub lost: f64,
    /// Requests that take effect, at any time up to `late_ms_max`, and are never answered.
    pub unanswered: f64,
    /// Requests that take effect late and are answered after that.
    pub late: f64,
    /// The latest that they do.
    pub late_ms_max: u64,
    /// Batches of calls of which only some take effect.
    pub partial: f64,
    /// Polls of a source that fail.
    pub source_errors: f64,
    /// The longest that fetching the next batch takes.
    pub fetch_ms_max: u64,
}

/// A bug on purpose: each of them loses, repeats or revives something in some interleaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The source commits what it has handed out, as a client's auto-commit does.
    CommitsBeforeAcknowledgement,
    /// A sink answers that it is done when it has only begun.
    AcknowledgesBeforeEffect,
    /// A counter asks its ledger, moves, and writes its ledger: three steps instead of one.
    LedgerApart,
    /// Two sinks that count the same event share an identity.
    LedgerWithoutSink,
    /// A timeline looks for the tombstone first and adds then.
    TombstoneBefore,
    /// A lookup asks for its guard before it reads the pages, not after each of them.
    GuardAskedOnce,
    /// A former owner's commits are taken.
    CommitsAfterRevoke,
    /// A worker stores the states of its steps before it commits, not with it.
    StatesApart,
    /// An index writes what it merged although the document has changed since it was read.
    MergeUnconditional,
}

/// The world of one seed. Cloning shares it.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    started: Instant,
    plant: Option<Plant>,
    state: Mutex<State>,
}

struct State {
    rng: SmallRng,
    faults: Faults,
    trace: Option<String>,
    fingerprint: u64,
    violations: Vec<String>,
}

impl World {
    /// A world for a seed; begins now, by tokio's clock. Only a traced one keeps what happened.
    pub fn new(seed: u64, plant: Option<Plant>, traced: bool) -> Self {
        World(Arc::new(Inner {
            started: Instant::now(),
            plant,
            state: Mutex::new(State {
                rng: SmallRng::seed_from_u64(seed),
                faults: Faults::default(),
                trace: traced.then(String::new),
                fingerprint: FINGERPRINT_START,
                violations: Vec::new(),
            }),
        }))
    }

    /// Whether this bug was planted.
    pub fn has(&self, plant: Plant) -> bool {
        self.0.plant == Some(plant)
    }

    /// Milliseconds since 1970, by the simulated clock.
    pub fn now_ms(&self) -> i64 {
        BEGINNING_MS + i64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// The faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// The faults as they are.
    pub fn faults(&self) -> Faults {
        self.lock().faults
    }

    /// True with this probability.
    pub fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && self.lock().rng.random_bool(probability.min(1.0))
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.lock().rng.random_range(0..bound) }
    }

    /// A place in a list of this length, which is not empty.
    pub fn index(&self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// One of a few things.
    pub fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// Lets simulated time pass.
    pub async fn wait(&self, ms: u64) {
        if ms == 0 {
            yield_now().await;
        } else {
            sleep(Duration::from_millis(ms)).await;
        }
    }

    /// As long as an ordinary message is under way, often no time at all.
    pub async fn latency(&self) {
        let bound = self.faults().latency_ms_max + 1;
        let ms = if self.chance(0.4) { 0 } else { self.below(bound) };
        self.wait(ms).await;
    }

    /// Adds a line to the trace.
    pub fn note(&self, line: impl FnOnce() -> String) {
        let at = self.now_ms() - BEGINNING_MS;
        let mut state = self.lock();
        let draw: u64 = state.rng.clone().random();
        for byte in at.to_be_bytes().into_iter().chain(draw.to_be_bytes()) {
            state.fingerprint = (state.fingerprint ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(trace) = &mut state.trace {
            writeln!(trace, "{at:>7} {}", line()).expect("invariant: a string takes any text");
        }
    }

    /// Says that something happened that never may.
    pub fn violation(&self, what: String) {
        self.note(|| format!("VIOLATION {what}"));
        self.lock().violations.push(what);
    }

    /// What happened that never may.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// What happened, if it was kept.
    pub fn trace(&self) -> String {
        self.lock().trace.clone().unwrap_or_default()
    }

    /// A number that two runs share only if the same things were noted at the same times after the same draws.
    pub fn fingerprint(&self) -> u64 {
        self.lock().fingerprint
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("invariant: nobody panics while holding the world's lock")
    }
}
