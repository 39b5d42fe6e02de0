//! `millrace smartmodule delete`: removes a version that no pipeline of the file uses.

use std::io::{Write, stdout};

use millrace_config::{ModuleSource, Plan};
use millrace_core::{Version, VersionChoice};
use serde_json::json;

use crate::{args::DeleteArgs, modules, plan, report::Failure};

pub async fn run(args: &DeleteArgs) -> Result<(), Failure> {
    let VersionChoice::Exact(version) = &args.module.version else {
        return Err(Failure::input("name the version to delete: NAME@1.2.0"));
    };
    let name = &args.module.name;
    let plan = plan::load(&args.at)?;
    let registry = modules::open(&plan)?;
    let shelf = registry.list().await?;
    let is_latest = shelf.modules.get(name).is_some_and(|versions| versions.latest.as_ref() == Some(version));
    let users = users(&plan, name, version, is_latest);
    if !users.is_empty() {
        return Err(Failure::run(format!(
            "{} is used by {}: change that first",
            args.module,
            users.join(", ")
        )));
    }
    let gone = registry.delete(name, version).await?;
    let mut out = stdout().lock();
    if args.at.json {
        writeln!(out, "{}", json!({ "deleted": gone }))?;
    } else {
        writeln!(out, "{}: deleted", gone.label())?;
    }
    Ok(())
}

/// The steps that would lack this version, as `pipeline.step`.
fn users(plan: &Plan, name: &str, version: &Version, is_latest: bool) -> Vec<String> {
    let uses = |source: &ModuleSource| match source {
        ModuleSource::Registry(reference) if reference.name == name => match &reference.version {
            VersionChoice::Exact(used) => used == version,
            VersionChoice::Latest => is_latest,
        },
        _ => false,
    };
    let steps =
        plan.pipelines.values().flat_map(|pipeline| pipeline.modules().map(move |step| (pipeline, step)));
    let used = steps.filter(|(_, step)| uses(&step.source));
    used.map(|(pipeline, step)| format!("{}.{}", pipeline.name, step.id)).collect()
}
