//! Runs what is in force: starts, changes and ends pipelines so that they are those of the file, and leaves alone
//! what has not changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_config::{ModulePlan, PipelinePlan};
use millrace_core::Error;
use millrace_runtime::{Clock, Fleet, FleetReport, Health, Metrics, Mode, Pipeline, PipelineState, StepPart};
use millrace_state::dependencies;
use tokio_util::sync::CancellationToken;

use super::Loaded;
use crate::{
    assemble::Systems,
    control::{About, Boards},
    registry::RunLocks,
    report::{Failure, say},
};

/// The pipelines of this process, as the file in force has them.
pub struct Follower {
    systems: Systems,
    boards: Boards,
    fleet: Fleet,
    health: Health,
    locks: RunLocks,
    /// Only these; all where none is named.
    only: Vec<String>,
    /// How the opened systems were declared.
    declared: BTreeMap<(&'static str, String), String>,
    running: BTreeMap<String, Running>,
}

/// A pipeline that was started.
struct Running {
    /// Names all that it depends on, but for the versions of deployed modules.
    dependencies: String,
    /// The modules of its steps, by the names of the file, with their digests.
    modules: BTreeMap<String, String>,
    lanes: BTreeMap<Arc<str>, About>,
}

/// A pipeline that is ready to take the place of a former one.
struct Built {
    name: String,
    broker: String,
    dependencies: String,
    modules: BTreeMap<String, String>,
    lanes: Vec<Pipeline>,
}

impl Follower {
    /// Runs nothing yet.
    pub fn new(
        only: Vec<String>,
        metrics: Metrics,
        health: Health,
        shutdown: CancellationToken,
    ) -> Result<Self, Failure> {
        let (systems, clock) = (Systems::new()?, Clock::system());
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(systems.following().run()));
        Ok(Follower {
            boards: Boards::new(health.clone(), metrics.clone(), clock.clone(), systems.following()),
            systems,
            fleet: Fleet::new(Mode::Forever, metrics, health.clone(), clock, shutdown),
            health,
            locks: RunLocks::default(),
            only,
            declared: BTreeMap::new(),
            running: BTreeMap::new(),
        })
    }

    /// Makes the pipelines those of this file. New ones are ready before the old ones are drained; one that cannot be
    /// made leaves its former self running, and is told of; `again` tries those once more, and only those.
    ///
    /// # Errors
    /// When another process runs on an embedded log of the file: then nothing has changed.
    pub async fn adopt(&mut self, loaded: &Loaded, again: bool) -> Result<Vec<Error>, Failure> {
        self.locks.take(&loaded.plan)?;
        let systems = loaded.file.systems();
        let outdated = self.declared.iter().filter(|(system, text)| systems.get(*system) != Some(text));
        self.systems.forget(outdated.map(|(system, _)| system));
        self.declared = systems;
        self.systems.pin(&loaded.file.modules);
        let (built, troubles) = self.build(loaded, again).await;
        let only = self.only.clone();
        let wanted = |name: &String| {
            loaded.plan.pipelines.contains_key(name) && (only.is_empty() || only.contains(name))
        };
        let mut ending: BTreeSet<String> =
            self.running.keys().filter(|name| !wanted(name)).cloned().collect();
        ending.extend(built.iter().map(|built| built.name.clone()));
        self.end(&ending).await;
        for lane in self.health.states().into_keys() {
            let name = lane.split('/').next().unwrap_or(&lane).to_owned();
            // One that could never be made has a state and nothing to end.
            if !wanted(&name) {
                self.health.forget(&lane);
            }
        }
        for built in built {
            self.begin(loaded, built)?;
        }
        let mut abouts = BTreeMap::new();
        for (lane, about) in self.running.values_mut().flat_map(|running| &mut running.lanes) {
            about.generation = Some(loaded.generation);
            abouts.insert(lane.clone(), about.clone());
        }
        self.boards.note(&abouts);
        Ok(troubles)
    }

    /// Opens what is new or has changed, and unless this is done again, what has failed meanwhile.
    async fn build(&mut self, loaded: &Loaded, again: bool) -> (Vec<Built>, Vec<Error>) {
        let (mut all, mut troubles) = (Vec::new(), Vec::new());
        for (name, planned) in &loaded.plan.pipelines {
            if !self.only.is_empty() && !self.only.contains(name) {
                continue;
            }
            let dependencies = dependencies(&loaded.file, planned);
            let modules = modules_of(loaded, planned);
            let running = self.running.get_mut(name);
            let goes_on = |running: &Running| again || running.lanes.keys().all(|lane| self.fleet.runs(lane));
            let is_running = running.is_some();
            if let Some(running) = running.filter(|r| r.dependencies == dependencies && goes_on(r)) {
                if running.modules != modules {
                    let steps = running.lanes.values().next().map(|about| about.steps.clone());
                    match self.systems.turn(&loaded.plan, planned, &steps.unwrap_or_default()).await {
                        Ok(()) => running.modules = modules,
                        Err(error) => troubles.push(error),
                    }
                }
                continue;
            }
            match self.systems.lanes(&loaded.plan, planned).await {
                Ok(lanes) => {
                    let broker = planned.from.broker.clone();
                    all.push(Built { name: name.clone(), broker, dependencies, modules, lanes });
                }
                Err(error) => {
                    if !is_running {
                        self.health.set(&name.as_str().into(), PipelineState::Failed(error.chain()));
                    }
                    troubles.push(error);
                }
            }
        }
        (all, troubles)
    }

    /// Drains and ends pipelines.
    async fn end(&mut self, names: &BTreeSet<String>) {
        let former = names.iter().filter_map(|name| self.running.remove(name));
        let lanes: BTreeSet<Arc<str>> = former.flat_map(|running| running.lanes.into_keys()).collect();
        self.fleet.stop(&lanes).await;
        self.boards.leave(&lanes).await;
        lanes.iter().for_each(|lane| self.health.forget(lane));
    }

    fn begin(&mut self, loaded: &Loaded, built: Built) -> Result<(), Failure> {
        let Built { name, broker, dependencies, modules, lanes } = built;
        let mut abouts = BTreeMap::new();
        for mut lane in lanes {
            abouts.insert(lane.name.clone(), About::new(Some(loaded.generation), &lane));
            warn_of_others(loaded, &lane);
            let control = self.systems.control(&loaded.plan, &broker)?;
            lane.steering = self.boards.steering(control, &broker, &lane.name);
            lane.version_log = self.boards.version_log(&broker);
            self.fleet.start(Arc::new(lane));
        }
        say(&format!("millrace: {name}: runs as in generation {}", loaded.generation));
        self.running.insert(name, Running { dependencies, modules, lanes: abouts });
        Ok(())
    }

    /// Waits until one of the pipelines has ended by itself; for ever where none runs. Cancel-safe.
    pub async fn ended(&mut self) {
        if self.fleet.ended().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the end of all.
    pub async fn finish(self) -> FleetReport {
        let report = self.fleet.finish().await;
        self.boards.close().await;
        report
    }
}

/// The modules of a pipeline, by the names of the file, as they were applied.
fn modules_of(loaded: &Loaded, pipeline: &PipelinePlan) -> BTreeMap<String, String> {
    let of = |module: &ModulePlan| {
        let digest = loaded.file.modules.get(&module.module)?;
        Some((module.module.clone(), digest.clone()))
    };
    pipeline.modules().filter_map(of).collect()
}

/// A program of another version may have other modules than the one that applied the file.
fn warn_of_others(loaded: &Loaded, lane: &Pipeline) {
    for step in &lane.steps {
        let StepPart::Module { versions, .. } = step else { continue };
        let about = &versions.wanted().about;
        let applied = loaded.file.modules.get(&*about.module);
        if applied.is_some_and(|digest| **digest != *about.digest) {
            tracing::warn!(
                pipeline = &*lane.name,
                module = &*about.module,
                "this program has another version of the module than the one that was applied; apply the file again with this program"
            );
        }
    }
}
