//! Where the applied state lies, and what it says: the pipeline file in force, for whoever does not name a file.

pub mod apply;
pub mod follow;
pub mod left;
pub mod observe;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use millrace_config::{ModuleSource, PipelinePlan, Plan, SystemPlan, TrialPlan};
use millrace_control::{Applied, AppliedEntry, Board, Chain, chain};
use millrace_core::{Broker, settings::Problem};
use millrace_registry::ModuleRegistry;
use millrace_state::{FileState, address};

use crate::{
    args::FileArgs,
    assemble::Systems,
    plan::{self, mistakes},
    registry,
    report::Failure,
};

/// Names the broker of the state.
const VARIABLE: &str = "MILLRACE_STATE";

/// The broker that the state lies on.
pub struct StateBroker {
    /// What the file calls it; the variable's name where that names it.
    pub name: String,
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// Deployed modules.
    pub modules: Arc<dyn ModuleRegistry>,
    /// Its control topic.
    pub topic: String,
    /// The folder, where it is the embedded log.
    pub dir: Option<PathBuf>,
}

/// An applied file, as this process would run it.
pub struct Loaded {
    /// Where it stands in the history.
    pub generation: u64,
    /// What it means with the variables of this process.
    pub plan: Plan,
    /// The file itself.
    pub file: FileState,
}

impl StateBroker {
    /// The one that the environment names; none where it names none.
    pub fn of_environment() -> Result<Option<Self>, Failure> {
        let Some(text) = plan::variable(VARIABLE).filter(|text| !text.is_empty()) else { return Ok(None) };
        let wrong = |why: &str| Failure::input(format!("{VARIABLE}: {why}"));
        let found = address(&text).map_err(|why| wrong(&why))?;
        let system = millrace_config::broker(VARIABLE, &found.kind, &found.settings, &registry::catalog());
        let system = system.map_err(|problems| {
            wrong(&problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; "))
        })?;
        Ok(Some(Self::of_system(registry::open_broker(&system)?, &system)?))
    }

    /// The one of a file.
    pub fn of_plan(systems: &mut Systems, plan: &Plan) -> Result<Self, Failure> {
        let broker = systems.broker(plan, &plan.state)?;
        Self::of_system(broker, &plan.brokers[&plan.state])
    }

    /// That of the file that is named, or the one that the environment names.
    pub fn of(args: &FileArgs) -> Result<Self, Failure> {
        if is_meant(args) {
            return Self::of_environment()?.ok_or_else(unnamed);
        }
        let plan = plan::load(args)?;
        let system = &plan.brokers[&plan.state];
        Self::of_system(registry::open_broker(system)?, system)
    }

    fn of_system(broker: Arc<dyn Broker>, system: &SystemPlan) -> Result<Self, Failure> {
        let modules = registry::module_registry(broker.clone(), system)?;
        let dir = (system.kind_name == "embedded").then(|| system.settings.file("dir")).flatten();
        let topic = registry::control_topic(system)?;
        Ok(StateBroker { name: system.name.clone(), broker, modules, topic, dir })
    }

    /// All that was applied.
    pub async fn chain(&self) -> Result<Chain, Failure> {
        Ok(chain(Board::look_in_order(&*self.broker, &self.topic).await?))
    }
}

/// Whether the applied file is meant: none is named, and the environment says where the state lies.
pub fn is_meant(args: &FileArgs) -> bool {
    let unnamed = args.pipelines.is_none() && args.embedded.is_none();
    unnamed && plan::variable(VARIABLE).is_some_and(|text| !text.is_empty())
}

fn unnamed() -> Failure {
    Failure::input(format!("{VARIABLE} names no broker"))
}

/// The plan of the file that is named, or of the applied one.
pub async fn load(args: &FileArgs) -> Result<Plan, Failure> {
    if !is_meant(args) {
        return plan::load(args);
    }
    let state = StateBroker::of_environment()?.ok_or_else(unnamed)?;
    let chain = state.chain().await?;
    let applied = chain.in_force()?.ok_or_else(|| Failure::environment("nothing is applied yet"))?;
    Ok(read(applied, state.dir.as_deref()).map_err(|problems| unreadable(applied, &problems))?.plan)
}

/// What an applied file means here. Paths in it are relative to this process's folder.
///
/// # Errors
/// What is wrong with it here: variables that are not set, above all.
pub fn read(applied: &Applied, dir: Option<&Path>) -> Result<Loaded, Vec<Problem>> {
    let AppliedEntry { generation, text, embedded, modules, .. } = &applied.entry;
    let (name, here, catalog) = (name_of(applied), Path::new("."), registry::catalog());
    let plan = match dir.filter(|_| *embedded) {
        None => millrace_config::load(&name, text, here, &plan::variable, &catalog)?,
        Some(dir) => millrace_config::load_embedded(&name, text, here, &plan::variable, &catalog, dir)?,
    };
    let file = FileState::new(text.clone(), modules.clone(), *embedded)?;
    Ok(Loaded { generation: *generation, plan, file })
}

/// The failure of [`read`].
pub fn unreadable(applied: &Applied, problems: &[Problem]) -> Failure {
    mistakes(problems, &name_of(applied), &applied.entry.text)
}

fn name_of(applied: &Applied) -> String {
    format!("generation {}", applied.entry.generation)
}

/// The modules that a file uses, resolved: by the name that the file uses.
pub struct Modules {
    /// Their SHA-256.
    pub digests: BTreeMap<String, String>,
    /// Those that lie in files, which other machines do not have.
    pub files: Vec<String>,
}

/// Resolves the modules of a plan.
pub async fn modules(systems: &mut Systems, plan: &Plan) -> Result<Modules, Failure> {
    let mut modules = Modules { digests: BTreeMap::new(), files: Vec::new() };
    for module in plan.pipelines.values().flat_map(PipelinePlan::modules) {
        for (name, reference) in module.trial.iter().map(TrialPlan::named) {
            let digest = systems.deployed(plan, reference).await?.digest;
            modules.digests.insert(name, digest);
        }
        if modules.digests.contains_key(&module.module) {
            continue;
        }
        let digest = match &module.source {
            ModuleSource::Shipped => millrace_state::digest(registry::shipped_module(&module.module)),
            ModuleSource::File(path) => {
                modules.files.push(module.module.clone());
                let bytes = std::fs::read(path);
                let wasm = bytes.map_err(|error| {
                    Failure::input(format!(
                        "module {}: cannot read {}: {error}",
                        module.module,
                        path.display()
                    ))
                })?;
                millrace_state::digest(&wasm)
            }
            ModuleSource::Registry(reference) => systems.deployed(plan, reference).await?.digest,
        };
        modules.digests.insert(module.module.clone(), digest);
    }
    Ok(modules)
}
