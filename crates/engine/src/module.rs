//! What a module is, as its imports and exports tell, and whether that is a SmartModule.

use std::fmt::Write;

use serde::Serialize;
use wasmtime::{ExternType, FuncType, Module, ValType};

use crate::{
    abi::{COPY_RECORDS, Kind, PROVENANCE, VERSION},
    instrument::is_added,
    wasi,
};

/// Names listed in an error or in [`ModuleInfo`].
const NAMES_MAX: usize = 100;

/// What is known of a module without running it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModuleInfo {
    /// What it does with records.
    pub kind: Kind,
    /// Whether it takes parameters.
    pub init: bool,
    /// Whether it can be shown the records before the first.
    pub look_back: bool,
    /// Whether the outputs of its `array_map` tell which record each was made of, so that records can share a call.
    pub provenance: bool,
    /// What it asks of the host, as `namespace.name`.
    pub imports: Vec<String>,
    /// What it offers, by name.
    pub exports: Vec<String>,
    /// SHA-256 of the module, in hex.
    pub sha256: String,
    /// Its size in bytes.
    pub size_bytes: usize,
}

impl ModuleInfo {
    /// Looks at a compiled module; fails with everything that keeps it from being a SmartModule, on one line.
    pub(crate) fn of(module: &Module, sha256: String, size_bytes: usize) -> Result<Self, String> {
        let mut problems = Vec::new();
        check_imports(module, &mut problems);
        check_exports(module, &mut problems);
        let kind = Kind::ALL.into_iter().find(|kind| module.get_export(kind.name()).is_some());
        let Some(kind) = kind.filter(|_| problems.is_empty()) else {
            if kind.is_none() {
                let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
                problems.push(format!("it exports no transform ({})", names.join(", ")));
            }
            return Err(problems.join("; "));
        };
        Ok(ModuleInfo {
            kind,
            init: module.get_export("init").is_some(),
            look_back: module.get_export("look_back").is_some(),
            provenance: kind == Kind::ArrayMap && module.get_export(PROVENANCE).is_some(),
            imports: module
                .imports()
                .take(NAMES_MAX)
                .map(|import| format!("{}.{}", shown(import.module()), shown(import.name())))
                .collect(),
            exports: module
                .exports()
                .filter(|export| !is_added(export.name()))
                .take(NAMES_MAX)
                .map(|export| shown(export.name()))
                .collect(),
            sha256,
            size_bytes,
        })
    }
}

/// What is wrong with bytes that are not even a module, in words that help.
pub(crate) fn refuse_other_formats(wasm: &[u8]) -> Result<(), &'static str> {
    match wasm {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', _, 0, 1, 0, ..] => Err(
            "is a WebAssembly component; a SmartModule is a core module, built for wasm32-unknown-unknown or wasm32-wasip1",
        ),
        [b'(', ..] => Err("is WebAssembly text; a compiled module is needed"),
        _ => Err("is not a WebAssembly module"),
    }
}

fn check_imports(module: &Module, problems: &mut Vec<String>) {
    let mut unknown = Vec::new();
    let mut answers = false;
    for import in module.imports() {
        match import.ty() {
            ExternType::Func(ty) if import.name() == COPY_RECORDS => {
                answers = true;
                if !has_signature(&ty, 2, 0) {
                    problems.push(format!("its import {COPY_RECORDS} is not (i32, i32)"));
                }
            }
            ExternType::Func(_) if import.module() == wasi::NAMESPACE => {}
            _ => unknown.push(format!("{}.{}", shown(import.module()), shown(import.name()))),
        }
    }
    if !unknown.is_empty() {
        let mut problem = "it imports what this host does not have: ".to_owned();
        problem.push_str(&unknown[..unknown.len().min(5)].join(", "));
        if unknown.len() > 5 {
            write!(problem, " and {} more", unknown.len() - 5).expect("invariant: a string takes all");
        }
        problems.push(problem);
    }
    if !answers {
        problems.push(format!("it does not import {COPY_RECORDS}, so it cannot answer"));
    }
}

fn check_exports(module: &Module, problems: &mut Vec<String>) {
    match module.get_export("memory") {
        Some(ExternType::Memory(memory)) if !memory.is_64() && !memory.is_shared() => {}
        Some(_) => problems.push("its export memory is not a plain 32-bit memory".to_owned()),
        None => problems.push("it does not export memory".to_owned()),
    }
    match module.get_export("alloc") {
        Some(ExternType::Func(ty)) if has_signature(&ty, 1, 1) => {}
        Some(_) => problems.push("its export alloc is not (i32) -> i32".to_owned()),
        None => problems.push("it does not export alloc".to_owned()),
    }
    let calls = Kind::ALL.into_iter().map(Kind::name).chain(["init", "look_back"]);
    for name in calls {
        match module.get_export(name) {
            None => {}
            Some(ExternType::Func(ty)) if has_signature(&ty, 3, 1) => {}
            Some(ExternType::Func(ty)) if has_signature(&ty, 2, 1) => problems.push(format!(
                "its export {name} takes no version: it speaks an older ABI, this host speaks version {VERSION}"
            )),
            Some(_) => problems.push(format!("its export {name} is not (i32, i32, i32) -> i32")),
        }
    }
}

fn has_signature(ty: &FuncType, params: usize, results: usize) -> bool {
    ty.params().len() == params
        && ty.results().len() == results
        && ty.params().chain(ty.results()).all(|value| matches!(value, ValType::I32))
}

/// A name of the module's choice, fit to be printed.
pub(crate) fn shown(name: &str) -> String {
    const CHARS_MAX: usize = 60;
    name.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect()
}
