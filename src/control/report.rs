//! What a process tells of its pipelines, and when: at once when a state changes, soon when anything else does,
//! and every so often that it lives.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_control::{
    BreakerEntry, DifferingEntry, Entry, ErrorEntry, PaceEntry, ProcessEntry, TrialEntry, WorkerEntry,
    worker_key, worker_of_key,
};
use millrace_runtime::{
    Differing, Findings, Health, Metrics, Pipeline, PipelineState, Steering, StepPart, Tried, Versions,
};
use serde_json::Value;

/// How long a change that is no change of state may wait.
const CHANGED_MS: i64 = 2_000;

/// How often a process says that nothing has changed.
const SAME_MS: i64 = 10_000;

/// Entries of processes that have been gone for so long are removed.
const FORGET_MS: i64 = 3_600_000;

/// What a board is told by this process.
pub struct Reporter {
    /// Names the process on boards.
    id: String,
    process: ProcessEntry,
    health: Health,
    metrics: Metrics,
    told: BTreeMap<Arc<str>, WorkerEntry>,
    about: BTreeMap<Arc<str>, About>,
    /// What was done up to when each was told last.
    done: BTreeMap<Arc<str>, Done>,
}

/// What a lane runs.
#[derive(Clone, Default)]
pub struct About {
    /// What is applied that it is of.
    pub generation: Option<u64>,
    /// The modules of its steps, by the step's id.
    pub steps: Vec<(Arc<str>, Versions)>,
    /// It is the main lane, which tells of versions on trial: they are the same in all lanes.
    is_main: bool,
}

impl About {
    /// Of a lane.
    pub fn new(generation: Option<u64>, lane: &Pipeline) -> Self {
        let of = |step: &StepPart| match step {
            StepPart::Module { id, versions, .. } => Some((id.clone(), versions.clone())),
            StepPart::Lookup(_) => None,
        };
        let steps = lane.steps.iter().filter_map(of).collect();
        About { generation, steps, is_main: lane.lane.is_none() }
    }

    fn modules(&self) -> BTreeMap<String, String> {
        let module = |(id, versions): &(Arc<str>, Versions)| {
            (id.to_string(), versions.wanted().about.digest.to_string())
        };
        self.steps.iter().map(module).collect()
    }

    fn versions(&self) -> BTreeMap<String, String> {
        let version = |(id, versions): &(Arc<str>, Versions)| {
            let module = versions.wanted().about.module.to_string();
            // Others have no version but the program's, or that of a file.
            module.contains('@').then(|| (id.to_string(), module))
        };
        self.steps.iter().filter_map(version).collect()
    }

    fn refused(&self) -> BTreeMap<String, String> {
        let refused = |(id, versions): &(Arc<str>, Versions)| {
            let refused = versions.refused()?;
            Some((id.to_string(), format!("{}: {}", refused.about.module, refused.reason)))
        };
        self.steps.iter().filter_map(refused).collect()
    }

    fn trials(&self) -> BTreeMap<String, TrialEntry> {
        let tried = |(id, versions): &(Arc<str>, Versions)| {
            Some((id.to_string(), trial(versions.wanted().trial.as_ref()?)))
        };
        self.steps.iter().filter(|_| self.is_main).filter_map(tried).collect()
    }
}

fn trial(tried: &Tried) -> TrialEntry {
    let Findings { records, rejected, differing, first, off } = tried.findings();
    let record = |one: Differing| DifferingEntry {
        record: format!("{}/{}/{}", one.topic, one.partition, one.offset),
        difference: one.difference.name().to_owned(),
    };
    TrialEntry {
        manner: tried.manner.name().to_owned(),
        module: tried.about.module.to_string(),
        records,
        rejected,
        differing,
        first: first.into_iter().map(record).collect(),
        off,
    }
}

/// What a lane has done since the process began.
#[derive(Clone, Default)]
struct Done {
    at_ms: i64,
    records: u64,
    outputs: u64,
    latency_us: BTreeMap<u64, u64>,
}

/// Writes: keys with their new values, or none to remove them.
pub type News = Vec<(String, Option<Value>)>;

impl Reporter {
    /// Nothing was told yet.
    pub fn new(health: Health, metrics: Metrics) -> Self {
        let id = format!("{:08x}", rand::random::<u32>());
        let (told, about, done) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Reporter { id, process: this_process(), health, metrics, told, about, done }
    }

    /// Notes what lanes run.
    pub fn note(&mut self, lanes: &BTreeMap<Arc<str>, About>) {
        self.about.extend(lanes.iter().map(|(lane, about)| (lane.clone(), about.clone())));
    }

    /// Removes lanes that this process does not run any more.
    pub fn forget(&mut self, lanes: &[Arc<str>]) -> News {
        for lane in lanes {
            self.told.remove(lane);
            self.done.remove(lane);
            self.about.remove(lane);
        }
        lanes.iter().map(|lane| (worker_key(&self.id, lane), None)).collect()
    }

    /// What is to be told now of these pipelines.
    pub fn due(&mut self, pipelines: &BTreeSet<Arc<str>>, now_ms: i64) -> News {
        let mut news = News::new();
        for (name, entry) in self.now(pipelines, now_ms) {
            let due = self.told.get(&name).is_none_or(|told| {
                let age_ms = now_ms.saturating_sub(told.at_ms);
                let same = WorkerEntry { at_ms: told.at_ms, ..entry.clone() } == *told;
                // A clock that went back must not silence the process.
                told.state != entry.state || age_ms < 0 || age_ms >= if same { SAME_MS } else { CHANGED_MS }
            });
            if due {
                news.push((worker_key(&self.id, &name), Some(json(&entry))));
                self.done.insert(name.clone(), self.done(&name, now_ms));
                self.told.insert(name, entry);
            }
        }
        news
    }

    /// What was told last did not arrive: it is due again.
    pub fn untold(&mut self) {
        for told in self.told.values_mut() {
            told.at_ms = 0;
        }
    }

    /// What is told at the end: pipelines that failed are left to be seen, all others removed. One that is held
    /// has not failed, whatever its run said.
    pub fn last_words(&mut self, pipelines: &BTreeMap<Arc<str>, Steering>, now_ms: i64) -> News {
        let names = pipelines.keys().cloned().collect();
        let last = self.now(&names, now_ms).into_iter().map(|(name, entry)| {
            let held = pipelines.get(&name).is_some_and(|steering| steering.paused().is_some());
            let failed = entry.state == "failed" && !held;
            let entry = failed.then(|| json(&WorkerEntry { ended: true, ..entry }));
            (worker_key(&self.id, &name), entry)
        });
        last.collect()
    }

    /// Removes what is out of date: what processes have left that are long gone, and the failures of these
    /// pipelines, which run again.
    pub fn outdated(
        &self,
        pipelines: &BTreeSet<Arc<str>>,
        entries: &BTreeMap<String, Entry>,
        now_ms: i64,
    ) -> News {
        let mut news = News::new();
        for (key, entry) in entries {
            let Some((_, name)) = worker_of_key(key) else { continue };
            // What cannot be read is of a newer program, whose matter it is.
            let Ok(worker) = entry.read::<WorkerEntry>() else { continue };
            let forgotten = worker.at_ms < now_ms.saturating_sub(FORGET_MS);
            if forgotten || (worker.ended && pipelines.contains(name)) {
                news.push((key.clone(), None));
            }
        }
        news
    }

    fn done(&self, lane: &str, now_ms: i64) -> Done {
        Done {
            at_ms: now_ms,
            records: self.metrics.records_in(lane),
            outputs: self.metrics.outputs_of(lane),
            latency_us: self.metrics.latencies(lane),
        }
    }

    /// What was done since it was told last; none where nothing was.
    fn pace(&self, lane: &str, now_ms: i64) -> Option<PaceEntry> {
        let (before, now) = (self.done.get(lane)?, self.done(lane, now_ms));
        let over_ms = u64::try_from(now.at_ms - before.at_ms).ok().filter(|over_ms| *over_ms > 0)?;
        let since = |(bound, count): (&u64, &u64)| {
            let more = count - before.latency_us.get(bound).copied().unwrap_or(0).min(*count);
            (more > 0).then_some((*bound, more))
        };
        let pace = PaceEntry {
            over_ms,
            records: now.records.saturating_sub(before.records),
            outputs: now.outputs.saturating_sub(before.outputs),
            latency_us: now.latency_us.iter().filter_map(since).collect(),
        };
        (pace.records > 0 || pace.outputs > 0).then_some(pace)
    }

    fn now(&self, pipelines: &BTreeSet<Arc<str>>, now_ms: i64) -> Vec<(Arc<str>, WorkerEntry)> {
        let endpoints: BTreeMap<String, BreakerEntry> = self
            .health
            .endpoints()
            .iter()
            .map(|(name, endpoint)| (name.to_string(), breaker(endpoint)))
            .collect();
        let errors = self.health.last_errors();
        let states = self.health.states().into_iter();
        let ours = states.filter(|(name, _)| pipelines.contains(name));
        ours.map(|(name, state)| {
            let told = self.told.get(&name).filter(|told| told.state == state.name());
            let (by, since_ms) = match &state {
                PipelineState::Paused(pause) => (Some(pause.by.name().to_owned()), pause.since_ms),
                _ => (None, told.map_or(now_ms, |told| told.since_ms)),
            };
            let about = self.about.get(&name).cloned().unwrap_or_default();
            let entry = WorkerEntry {
                process: self.process.clone(),
                state: state.name().to_owned(),
                reason: state.reason().map(str::to_owned),
                by,
                since_ms,
                dead_letters: self.metrics.dead_letters(&name),
                generation: about.generation,
                modules: about.modules(),
                versions: about.versions(),
                refused: about.refused(),
                trials: about.trials(),
                pace: self.pace(&name, now_ms),
                endpoints: endpoints.clone(),
                last_error: errors.get(&name).map(|error| ErrorEntry {
                    place: error.place.clone(),
                    error: error.error.clone(),
                    at_ms: error.at_ms,
                    record: error.record.clone(),
                }),
                at_ms: now_ms,
                ended: false,
            };
            (name, entry)
        })
        .collect()
    }
}

/// This process, as it names itself on boards.
pub fn this_process() -> ProcessEntry {
    let system = rustix::system::uname();
    ProcessEntry {
        host: system.nodename().to_string_lossy().into_owned(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn breaker(endpoint: &millrace_runtime::Endpoint) -> BreakerEntry {
    BreakerEntry {
        state: endpoint.breaker.name().to_owned(),
        since_ms: endpoint.since_ms,
        failures: endpoint.failures,
        last_error: endpoint.last_error.clone(),
    }
}

fn json(entry: &WorkerEntry) -> Value {
    serde_json::to_value(entry).expect("invariant: an entry can be written as JSON")
}

#[cfg(test)]
mod tests {
    use millrace_runtime::{HeldBy, LastError, Pause};

    use super::*;

    #[test]
    fn a_change_is_told_soon_and_silence_is_broken() {
        let (health, pipeline) = (Health::default(), Arc::<str>::from("p"));
        let mut reporter = Reporter::new(health.clone(), Metrics::new());
        let ours = BTreeSet::from([pipeline.clone()]);
        assert!(reporter.due(&ours, 0).is_empty(), "nothing runs yet");
        health.set(&pipeline, PipelineState::Starting);
        let told: WorkerEntry =
            serde_json::from_value(reporter.due(&ours, 1_000)[0].1.clone().expect("an entry"))
                .expect("an entry");
        assert_eq!((told.state.as_str(), told.since_ms), ("starting", 1_000));
        assert!(reporter.due(&ours, 10_000).is_empty());
        assert_eq!(reporter.due(&ours, 11_000).len(), 1, "it lives");
        let error = LastError {
            place: "sink:x".into(),
            error: "away".into(),
            at_ms: 11_500,
            record: Some("t/0/1".into()),
        };
        health.note_error(&pipeline, error);
        assert!(reporter.due(&ours, 12_000).is_empty());
        assert_eq!(reporter.due(&ours, 13_000).len(), 1, "what changed is told within 2 s");
        assert_eq!(reporter.due(&ours, 5_000).len(), 1, "the clock went back");
    }

    #[test]
    fn failures_are_left_to_be_seen_and_pauses_are_none() {
        let (health, pipeline) = (Health::default(), Arc::<str>::from("p"));
        let mut reporter = Reporter::new(health.clone(), Metrics::new());
        let steering = Steering::default();
        let ours = BTreeMap::from([(pipeline.clone(), steering.clone())]);
        health.set(&pipeline, PipelineState::Stopped);
        assert_eq!(reporter.last_words(&ours, 1)[0].1, None);
        health.set(&pipeline, PipelineState::Failed("no mapping".into()));
        let left = reporter.last_words(&ours, 2)[0].1.clone().expect("an entry");
        assert_eq!((&left["ended"], &left["reason"]), (&Value::from(true), &Value::from("no mapping")));
        steering.pause(Pause { by: HeldBy::Operator, reason: String::new(), since_ms: 1 });
        assert_eq!(reporter.last_words(&ours, 3)[0].1, None);
    }
}
