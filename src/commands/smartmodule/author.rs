//! What a module's author has written, as files: its `SmartModule.toml` and its code.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use millrace_registry::Sheet;

use crate::{args::Pair, report::Failure};

/// The file that describes a module.
pub const SHEET: &str = "SmartModule.toml";

/// Bytes of a module that are read: more than any host accepts.
const WASM_BYTES_MAX: u64 = 64 << 20;

/// Reads the sheet of a crate; none where there is no such file.
pub fn sheet(folder: &Path) -> Result<Option<Sheet>, Failure> {
    let path = folder.join(SHEET);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::input(format!("{}: {error}", path.display()))),
        Ok(text) => text,
    };
    let sheet = Sheet::parse(&text);
    sheet
        .map(Some)
        .map_err(|error| Failure::input(format!("{}: {}", path.display(), error.to_string().trim_end())))
}

/// The name of the module of a crate.
pub fn name_of(folder: &Path) -> Result<String, Failure> {
    let missing = || {
        Failure::input(format!(
            "{}: no {SHEET} here; name the folder of a SmartModule, or make one with 'millrace smartmodule new NAME'",
            folder.display()
        ))
    };
    sheet(folder)?.and_then(|sheet| sheet.name).ok_or_else(missing)
}

/// Where `build` puts the module of a crate.
pub fn built(folder: &Path) -> Result<PathBuf, Failure> {
    Ok(folder.join(format!("{}.wasm", name_of(folder)?)))
}

/// The bytes of a module.
pub fn wasm(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut wasm = Vec::new();
    File::open(path)
        .and_then(|file| file.take(WASM_BYTES_MAX).read_to_end(&mut wasm))
        .map_err(|error| Failure::input(format!("{}: {error}", path.display())))?;
    Ok(wasm)
}

/// Parameters as they were typed.
pub fn params(pairs: &[Pair]) -> BTreeMap<String, String> {
    pairs.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect()
}
