//! `millrace smartmodule deploy`: a version into the registry, after it was seen to run.

use std::{
    fs,
    io::{Write, stdout},
    path::Path,
};

use millrace_core::Version;
use millrace_engine::{ModuleInfo, ModuleOptions};
use millrace_registry::{Deployed, Manifest, NewModule, Sheet, SigningKey};
use millrace_runtime::Clock;
use serde_json::json;

use super::{author, list::moment};
use crate::{
    args::DeployArgs,
    registry,
    report::{Failure, grouped},
    state::StateBroker,
};

pub async fn run(args: &DeployArgs) -> Result<(), Failure> {
    let folder = args.wasm.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let sheet = author::sheet(folder)?.unwrap_or_default();
    let (name, version) = named(args, &sheet)?;
    let wasm = author::wasm(&args.wasm)?;
    let info = proven(args, &sheet, &format!("{name}@{version}"), &wasm)?;
    let signer = args.sign_key.as_deref().map(signing_key).transpose()?;
    let state = StateBroker::of(&args.at)?;
    let module = NewModule {
        name,
        version,
        kind: info.kind.name().to_owned(),
        wasm: &wasm,
        sheet,
        at_ms: Clock::system().now_ms(),
        by: somebody(),
        signer: signer.as_ref(),
        latest: !args.no_latest,
    };
    let deployed = state.modules.deploy(module).await?;
    print(&deployed, &state.name, args)
}

/// Name and version, as typed or as the sheet has them.
fn named(args: &DeployArgs, sheet: &Sheet) -> Result<(String, Version), Failure> {
    let missing = |option: &str| {
        Failure::input(format!(
            "{}: no {} beside it, so say '{option}' yourself",
            args.wasm.display(),
            author::SHEET
        ))
    };
    let name = args.name.clone().or_else(|| sheet.name.clone()).ok_or_else(|| missing("--name NAME"))?;
    let version = args.version.clone().or_else(|| sheet.version.clone());
    Ok((name, version.ok_or_else(|| missing("--version VERSION"))?))
}

/// Compiles the module, checks it and runs its init.
fn proven(args: &DeployArgs, sheet: &Sheet, label: &str, wasm: &[u8]) -> Result<ModuleInfo, Failure> {
    let options = ModuleOptions { params: author::params(&args.params), ..ModuleOptions::default() };
    let loaded = registry::engine()?.load(label, wasm, &options);
    let factory = loaded.map_err(|error| {
        let needed = sheet.params.iter().filter(|param| !param.optional);
        let lacking = needed.filter(|param| !options.params.contains_key(&param.name));
        let lacking: Vec<_> = lacking.map(|param| format!("--param {}=…", param.name)).collect();
        let advice = if lacking.is_empty() {
            String::new()
        } else {
            format!("; it needs parameters to be tried with: {}", lacking.join(" "))
        };
        Failure::input(format!("{}{advice}", error.chain()))
    })?;
    Ok(factory.info().clone())
}

fn signing_key(file: &Path) -> Result<SigningKey, Failure> {
    let wrong = |why: String| Failure::input(format!("{}: {why}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    SigningKey::from_pem(&text).map_err(|error| wrong(error.to_string()))
}

/// Who deploys, for people: the user and the machine.
fn somebody() -> String {
    const BYTES_MAX: usize = 200;
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned());
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut text: String = format!("{user}@{machine}").chars().filter(|c| !c.is_control()).collect();
    text.truncate(text.floor_char_boundary(BYTES_MAX));
    text
}

fn print(deployed: &Deployed, broker: &str, args: &DeployArgs) -> Result<(), Failure> {
    let (result, manifest) = match deployed {
        Deployed::New(manifest) => ("deployed", manifest),
        Deployed::Same(manifest) => ("same", manifest),
        Deployed::Taken(manifest) => return Err(taken(manifest)),
    };
    let mut out = stdout().lock();
    if args.at.json {
        let line = json!({ "result": result, "broker": broker, "module": manifest });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let Manifest { kind, size_bytes, stored_bytes, digest, .. } = manifest;
    let label = manifest.label();
    let (size, stored) = (grouped(*size_bytes), grouped(*stored_bytes));
    match deployed {
        Deployed::New(_) => {
            writeln!(
                out,
                "{label}: deployed to the broker '{broker}': {kind}, {size} bytes ({stored} stored), sha256 {digest}"
            )?;
        }
        Deployed::Same(_) | Deployed::Taken(_) => {
            writeln!(out, "{label}: is there already, with the same code")?;
        }
    }
    Ok(())
}

fn taken(manifest: &Manifest) -> Failure {
    Failure::run(format!(
        "{} is taken by other code: sha256 {}, deployed by {} at {}. A version never changes: deploy yours under another",
        manifest.label(),
        manifest.digest,
        manifest.deployed_by,
        moment(manifest.deployed_at_ms)
    ))
}
