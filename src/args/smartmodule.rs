//! What can be typed after `millrace smartmodule`.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Subcommand, ValueEnum};
use millrace_core::{ModuleReference, ModuleReferenceError, Version, is_module_name, parse_version};

use super::FileArgs;

#[derive(Debug, Subcommand)]
pub enum SmartmoduleCommand {
    /// Make a crate that builds, with tests that pass
    New(NewArgs),
    /// Compile a crate to NAME.wasm beside its SmartModule.toml
    Build(BuildArgs),
    /// Run golden cases: input records to what the compiled module makes of them
    Test(TestModuleArgs),
    /// Put a version of a module into the registry, if it can run
    Deploy(DeployArgs),
    /// List deployed modules and their versions
    List(ListArgs),
    /// Show what a module is, and measure it
    Inspect(InspectArgs),
    /// Make 'latest' of a module what it was before
    Rollback(RollbackArgs),
    /// Remove a version from the registry, unless a pipeline of the file uses it
    Delete(DeleteArgs),
}

/// What a new module does with records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NewKind {
    /// Keeps or drops each record
    Filter,
    /// Makes one record of each
    Map,
    /// Makes one record of each, or none
    FilterMap,
    /// Makes any number of records of each
    ArrayMap,
    /// Folds each record into an accumulator
    Aggregate,
}

#[derive(Args, Debug)]
pub struct NewArgs {
    /// The module's name: of the crate, too, and of its new folder
    #[arg(value_name = "NAME", value_parser = crate_name)]
    pub name: String,
    /// What it does with records
    #[arg(long, value_enum, default_value = "filter", value_name = "KIND")]
    pub kind: NewKind,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct BuildArgs {
    /// The crate's folder
    #[arg(value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct TestModuleArgs {
    /// The crate's folder; its cases are cases/<case>.input.ndjson with <case>.expected.json beside it
    #[arg(value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
    /// The compiled module, if not NAME.wasm in the crate's folder
    #[arg(long, value_name = "FILE")]
    pub wasm: Option<PathBuf>,
    /// Write what was seen as the new expectation
    #[arg(long)]
    pub update: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct DeployArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// The compiled module
    #[arg(value_name = "FILE.wasm")]
    pub wasm: PathBuf,
    /// Its name [default: that of the SmartModule.toml beside it]
    #[arg(long, value_name = "NAME", value_parser = module_name)]
    pub name: Option<String>,
    /// Its version; one that was deployed is never changed [default: that of the SmartModule.toml]
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    pub version: Option<Version>,
    /// A parameter to try its init with; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub params: Vec<Pair>,
    /// Sign it with the ed25519 private key of this file
    #[arg(long, value_name = "FILE")]
    pub sign_key: Option<PathBuf>,
    /// Leave 'latest' where it is
    #[arg(long)]
    pub no_latest: bool,
}

#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// Only this module
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

#[derive(Args, Debug)]
pub struct InspectArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// A deployed module as NAME@VERSION or NAME@latest, or a .wasm file
    #[arg(value_name = "MODULE")]
    pub module: String,
    /// A parameter of its init; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub params: Vec<Pair>,
    /// Measure it on the lines of this file instead of generated events
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct RollbackArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// The module
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The version that 'latest' shall name [default: the one it named before]
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    pub to: Option<Version>,
}

#[derive(Args, Debug)]
pub struct DeleteArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// The version, as NAME@VERSION
    #[arg(value_name = "NAME@VERSION", value_parser = ModuleReference::from_str)]
    pub module: ModuleReference,
}

/// A parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub name: String,
    pub value: String,
}

impl FromStr for Pair {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
        Ok(Pair { name: name.to_owned(), value: value.to_owned() })
    }
}

fn module_name(text: &str) -> Result<String, ModuleReferenceError> {
    if is_module_name(text) { Ok(text.to_owned()) } else { Err(ModuleReferenceError::Name) }
}

/// The name of a module that is a name for a crate as well.
fn crate_name(text: &str) -> Result<String, &'static str> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good =
        text.len() <= 64 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(legal);
    if good {
        Ok(text.to_owned())
    } else {
        Err("a name has lowercase letters, digits and '-', a letter first")
    }
}
