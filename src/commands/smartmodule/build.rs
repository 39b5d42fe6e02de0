//! `millrace smartmodule build`: compiles a crate and looks whether the result is a SmartModule.

use std::{
    fs,
    io::{Write, stdout},
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::{Value, json};

use super::{
    author,
    toolchain::{TARGET, Toolchain},
};
use crate::{
    args::BuildArgs,
    registry,
    report::{Failure, grouped},
};

pub async fn run(args: &BuildArgs) -> Result<(), Failure> {
    let built = author::built(&args.folder)?;
    let compiled = compile(&args.folder).await?;
    let wasm = author::wasm(&compiled)?;
    let info = registry::engine()?.inspect(&built.display().to_string(), &wasm)?;
    fs::write(&built, &wasm).map_err(|error| Failure::run(format!("{}: {error}", built.display())))?;
    let mut out = stdout().lock();
    if args.json {
        let line = json!({
            "file": built, "kind": info.kind.name(), "size_bytes": wasm.len(), "sha256": info.sha256,
        });
        writeln!(out, "{line}")?;
    } else {
        let (kind, size) = (info.kind.name(), grouped(wasm.len() as u64));
        writeln!(out, "{}: {kind}, {size} bytes", built.display())?;
    }
    Ok(())
}

/// Calls cargo, which says itself what is wrong; gives the file that it has made.
async fn compile(folder: &Path) -> Result<PathBuf, Failure> {
    let output = Toolchain::find()
        .await?
        .cargo()
        .args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .map_err(|error| Failure::environment(format!("cargo cannot be called: {error}")))?;
    if !output.status.success() {
        return Err(Failure::run("the crate does not compile"));
    }
    let messages = output.stdout.split(|byte| *byte == b'\n');
    let made = messages.filter_map(artifact).next_back();
    made.ok_or_else(|| {
        Failure::input(
            "the crate makes no module: its Cargo.toml needs '[lib]' with 'crate-type = [\"cdylib\"]'",
        )
    })
}

/// The module that one of cargo's messages speaks of.
fn artifact(message: &[u8]) -> Option<PathBuf> {
    let message: Value = serde_json::from_slice(message).ok()?;
    let files = message.get("filenames")?.as_array()?.iter().filter_map(Value::as_str);
    files.map(PathBuf::from).find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
}
