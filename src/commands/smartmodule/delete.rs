//! `millrace smartmodule delete`: removes a version that no pipeline uses, of the file or of what is applied.

use std::io::{Write, stdout};

use millrace_config::Plan;
use millrace_control::AppliedEntry;
use millrace_core::{ModuleReference, Version, VersionChoice};
use serde_json::json;

use crate::{
    args::DeleteArgs,
    plan,
    report::Failure,
    state::{self, StateBroker},
};

pub async fn run(args: &DeleteArgs) -> Result<(), Failure> {
    let VersionChoice::Exact(version) = &args.module.version else {
        return Err(Failure::input("name the version to delete: NAME@1.2.0"));
    };
    let name = &args.module.name;
    let state = StateBroker::of(&args.at)?;
    let shelf = state.modules.list().await?;
    let versions = shelf.modules.get(name);
    let mut users = Vec::new();
    if !state::is_meant(&args.at) {
        let is_latest = versions.is_some_and(|versions| versions.latest.as_ref() == Some(version));
        users.extend(users_in(&plan::load(&args.at)?, name, version, is_latest));
    }
    let digest = versions.and_then(|versions| versions.all.get(version)).map(|manifest| &manifest.digest);
    if let Some(applied) = state.chain().await?.in_force()? {
        let AppliedEntry { generation, modules, .. } = &applied.entry;
        // By its code: that is what an applied file holds on to.
        let names = modules.iter().filter(|(_, used)| Some(*used) == digest);
        users.extend(
            names.map(|(module, _)| format!("{module} in generation {generation}, which is in force")),
        );
    }
    if !users.is_empty() {
        return Err(Failure::run(format!(
            "{} is used by {}: change that first",
            args.module,
            users.join(", ")
        )));
    }
    let gone = state.modules.delete(name, version).await?;
    let mut out = stdout().lock();
    if args.at.json {
        writeln!(out, "{}", json!({ "deleted": gone }))?;
    } else {
        writeln!(out, "{}: deleted", gone.label())?;
    }
    Ok(())
}

/// The steps that would lack this version, as `pipeline.step`.
fn users_in(plan: &Plan, name: &str, version: &Version, is_latest: bool) -> Vec<String> {
    let uses = |reference: &ModuleReference| match &reference.version {
        _ if reference.name != name => false,
        VersionChoice::Exact(used) => used == version,
        VersionChoice::Latest => is_latest,
    };
    let steps =
        plan.pipelines.values().flat_map(|pipeline| pipeline.modules().map(move |step| (pipeline, step)));
    let used = steps.filter(|(_, step)| step.deployed().any(|(_, reference)| uses(reference)));
    used.map(|(pipeline, step)| format!("{}.{}", pipeline.name, step.id)).collect()
}
