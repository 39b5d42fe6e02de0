//! `millrace smartmodule rollback`: moves `latest` of a module back, or to a version.

use std::io::{Write, stdout};

use serde_json::json;

use crate::{args::RollbackArgs, report::Failure, state::StateBroker};

pub async fn run(args: &RollbackArgs) -> Result<(), Failure> {
    let registry = StateBroker::of(&args.at)?.modules;
    let moved = match &args.to {
        Some(version) => registry.point(&args.name, version).await?,
        None => registry.roll_back(&args.name).await?,
    };
    let from = moved.from.map(|version| version.to_string());
    let mut out = stdout().lock();
    if args.at.json {
        writeln!(out, "{}", json!({ "name": args.name, "from": from, "to": moved.to.to_string() }))?;
        return Ok(());
    }
    let from = from.as_deref().unwrap_or("nothing");
    writeln!(
        out,
        "{}: latest is {}, it was {from}; pipelines that follow it take it up",
        args.name, moved.to
    )?;
    Ok(())
}
