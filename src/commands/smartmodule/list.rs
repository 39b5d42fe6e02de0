//! `millrace smartmodule list`: what is deployed.

use std::io::{Write, stdout};

use jiff::Timestamp;
use millrace_core::Version;
use millrace_registry::Versions;
use serde_json::{Value, json};

use crate::{
    args::ListArgs,
    report::{Failure, grouped},
    state::StateBroker,
};

pub async fn run(args: &ListArgs) -> Result<(), Failure> {
    let state = StateBroker::of(&args.at)?;
    let mut shelf = state.modules.list().await?;
    if let Some(name) = &args.name {
        if !shelf.modules.contains_key(name) {
            return Err(Failure::input(format!("module {name}: {}", shelf.no_module(name))));
        }
        shelf.modules.retain(|known, _| known == name);
    }
    let mut out = stdout().lock();
    if args.at.json {
        let list: Vec<Value> = shelf.modules.iter().map(|(name, versions)| json_of(name, versions)).collect();
        writeln!(out, "{}", Value::from(list))?;
        return Ok(());
    }
    if shelf.modules.is_empty() {
        writeln!(out, "nothing is deployed on the broker '{}'", state.name)?;
        return Ok(());
    }
    writeln!(out, "{:<32} {:<8} {:<10} {:>10}  {:<20} BY", "MODULE", "", "KIND", "BYTES", "DEPLOYED")?;
    for (name, versions) in &shelf.modules {
        for version in &versions.unreadable {
            writeln!(out, "{:<32} deployed by a newer program", format!("{name}@{version}"))?;
        }
        for (version, manifest) in versions.all.iter().rev() {
            let latest = if versions.latest.as_ref() == Some(version) { "latest" } else { "" };
            let signed =
                manifest.signature.as_ref().map_or(String::new(), |s| format!(", signed {}", shown(&s.key)));
            writeln!(
                out,
                "{:<32} {latest:<8} {:<10} {:>10}  {:<20} {}{signed}",
                manifest.label(),
                shown(&manifest.kind),
                grouped(manifest.size_bytes),
                moment(manifest.deployed_at_ms),
                shown(&manifest.deployed_by)
            )?;
        }
    }
    Ok(())
}

fn json_of(name: &str, versions: &Versions) -> Value {
    let all: Vec<Value> = versions.all.values().rev().map(|manifest| json!(manifest)).collect();
    let text = Version::to_string;
    let (latest, unreadable) = (versions.latest.as_ref().map(text), versions.unreadable.iter().map(text));
    json!({ "name": name, "latest": latest, "versions": all, "unreadable": unreadable.collect::<Vec<_>>() })
}

/// A time to the second.
pub fn moment(ms: i64) -> String {
    match Timestamp::from_second(ms.div_euclid(1_000)) {
        Ok(at) => at.to_string(),
        Err(_) => format!("{ms} ms"),
    }
}

/// A text of somebody else, with nothing in it that a terminal would act upon.
pub fn shown(text: &str) -> String {
    text.chars()
        .take(200)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}
