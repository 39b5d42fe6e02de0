//! `millrace smartmodule inspect`: what a module is, and what a record costs in it.

use std::{
    io::{Write, stdout},
    path::Path,
};

use bytes::Bytes;
use millrace_core::ModuleReference;
use millrace_engine::{Measured, ModuleInfo, ModuleOptions};
use millrace_registry::{Manifest, Param};
use serde_json::{Value, json};
use tokio::time::Duration;

use super::{
    author, lines,
    list::{moment, shown},
};
use crate::{
    args::InspectArgs,
    registry,
    report::{Failure, grouped},
    state::StateBroker,
};

/// Records made up for modules that nobody has given any for.
const GENERATED: usize = 1_000;
/// How long a module is measured.
const ABOUT: Duration = Duration::from_millis(500);

/// A module and where it was found.
struct Found {
    name: String,
    wasm: Bytes,
    manifest: Option<Manifest>,
    params: Vec<Param>,
}

pub async fn run(args: &InspectArgs) -> Result<(), Failure> {
    let found = find(args).await?;
    let engine = registry::engine()?;
    let info = engine.inspect(&found.name, &found.wasm).map_err(|error| Failure::input(error.chain()))?;
    let options = ModuleOptions { params: author::params(&args.params), ..ModuleOptions::default() };
    let batch = match &args.input {
        Some(file) => lines::read(file)?,
        None => lines::generated(GENERATED),
    };
    // A module whose parameters are not known can be looked at all the same.
    let measured = engine
        .load(&found.name, &found.wasm, &options)
        .and_then(|factory| factory.measure(&batch, ABOUT))
        .map_err(|error| error.chain());
    let mut out = stdout().lock();
    if args.at.json {
        writeln!(out, "{}", json_of(&found, &info, &measured))?;
        return Ok(());
    }
    out.write_all(text_of(&found, &info, &measured, args.input.is_some()).as_bytes())?;
    Ok(())
}

/// The file, or what the registry has under the reference.
async fn find(args: &InspectArgs) -> Result<Found, Failure> {
    let path = Path::new(&args.module);
    if path.extension().is_some_and(|extension| extension == "wasm") || path.is_file() {
        let wasm = author::wasm(path)?.into();
        let sheet = author::sheet(path.parent().unwrap_or(Path::new(".")))?.unwrap_or_default();
        return Ok(Found { name: args.module.clone(), wasm, manifest: None, params: sheet.params });
    }
    let reference = args.module.parse::<ModuleReference>();
    let reference = reference.map_err(|error| Failure::input(format!("'{}': {error}", args.module)))?;
    let registry = StateBroker::of(&args.at)?.modules;
    let shelf = registry.list().await?;
    let manifest = shelf.resolve(&reference).map_err(|error| Failure::input(error.chain()))?.clone();
    let wasm = registry.fetch(&manifest).await?;
    Ok(Found { name: manifest.label(), wasm, params: manifest.params.clone(), manifest: Some(manifest) })
}

fn json_of(found: &Found, info: &ModuleInfo, measured: &Result<Measured, String>) -> Value {
    let measured = match measured {
        Err(why) => json!({ "error": why }),
        Ok(seen) => json!({
            "records": seen.records, "passed": seen.passed, "rejected": seen.rejected,
            "micros_per_record": seen.micros_per_record,
            "opened_memory_bytes": seen.opened_bytes, "memory_bytes": seen.memory_bytes,
        }),
    };
    json!({
        "module": found.name, "info": info, "params": found.params, "deployed": found.manifest, "measured": measured,
    })
}

fn text_of(found: &Found, info: &ModuleInfo, measured: &Result<Measured, String>, given: bool) -> String {
    let mut rows = vec![
        ("module", found.name.clone()),
        ("kind", info.kind.name().to_owned()),
        ("size", format!("{} bytes", grouped(info.size_bytes as u64))),
        ("sha256", info.sha256.clone()),
        ("imports", info.imports.join(", ")),
        ("exports", info.exports.join(", ")),
    ];
    for param in &found.params {
        let need = if param.optional { "optional" } else { "needed" };
        let about = param.description.as_deref().map_or(String::new(), |text| format!(": {}", shown(text)));
        rows.push(("parameter", format!("{} ({need}){about}", shown(&param.name))));
    }
    if let Some(manifest) = &found.manifest {
        rows.extend(manifest.description.iter().map(|text| ("about", shown(text))));
        let at = moment(manifest.deployed_at_ms);
        rows.push(("deployed", format!("{at} by {}", shown(&manifest.deployed_by))));
        let stored = grouped(manifest.stored_bytes);
        rows.push(("stored", format!("{stored} bytes in {} pieces", manifest.chunks)));
        let signature = manifest.signature.as_ref().map(|signature| shown(&signature.key));
        rows.push(("signed", signature.map_or("no".to_owned(), |key| format!("with the key {key}"))));
    }
    match measured {
        Err(why) => rows.push(("measured", format!("not: {why}"))),
        Ok(seen) => {
            let records = grouped(seen.records);
            let of = if given { "given" } else { "generated" };
            let memory = (grouped(seen.opened_bytes as u64), grouped(seen.memory_bytes as u64));
            rows.push(("memory", format!("{} bytes when opened, {} at most", memory.0, memory.1)));
            rows.push((
                "measured",
                format!("{:.2} µs a record, over {records} {of} records", seen.micros_per_record),
            ));
            let (passed, rejected) = (grouped(seen.passed), grouped(seen.rejected));
            rows.push(("", format!("{passed} results, {rejected} records refused")));
        }
    }
    rows.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect()
}
