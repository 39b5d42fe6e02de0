//! A Rust that can compile for WebAssembly: the one in use, another one that rustup has, or one that
//! `scripts/wasm-toolchain` has made of Debian's packages.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::report::Failure;

/// What modules are compiled for.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// How cargo is called so that it has the target.
#[derive(Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// As it is.
    Usual,
    /// One of rustup's.
    Rustup(String),
    /// Cargo as it is, with this compiler.
    Compiler(PathBuf),
}

impl Toolchain {
    /// The first that has the target.
    pub async fn find() -> Result<Self, Failure> {
        let Some(sysroot) = answer("rustc", &["--print", "sysroot"]).await else {
            return Err(Failure::environment("no Rust here: install it from https://rustup.rs"));
        };
        if has_target(Path::new(&sysroot)) {
            return Ok(Toolchain::Usual);
        }
        for line in answer("rustup", &["toolchain", "list"]).await.unwrap_or_default().lines() {
            let Some(name) = line.split_whitespace().next() else { continue };
            let other = answer("rustc", &[&format!("+{name}"), "--print", "sysroot"]).await;
            if other.is_some_and(|sysroot| has_target(Path::new(&sysroot))) {
                return Ok(Toolchain::Rustup(name.to_owned()));
            }
        }
        made_by_script().map(Toolchain::Compiler).ok_or_else(|| {
            Failure::environment(format!(
                "this Rust cannot compile for WebAssembly: 'rustup target add {TARGET}' adds what is missing \
                 (where that cannot be downloaded, on Debian: scripts/wasm-toolchain of Millrace's repository)"
            ))
        })
    }

    /// A call of cargo.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new("cargo");
        match self {
            Toolchain::Usual => {}
            Toolchain::Rustup(name) => {
                command.arg(format!("+{name}"));
            }
            Toolchain::Compiler(rustc) => {
                command.env("RUSTC", rustc);
            }
        }
        command
    }
}

/// What a program prints; none if it is not there or fails.
async fn answer(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn has_target(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir()
}

/// The compiler that the script has left in the user's cache, the newest if there are several.
fn made_by_script() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let entries =
        fs::read_dir(cache.join("millrace")).ok()?.filter_map(|entry| Some(entry.ok()?.file_name()));
    let is_toolchain = |name: &OsString| name.to_string_lossy().starts_with("rust-web-");
    let mut made: Vec<_> =
        entries.filter(is_toolchain).map(|name| cache.join("millrace").join(name)).collect();
    made.sort();
    made.into_iter().rev().map(|folder| folder.join("rustc")).find(|rustc| rustc.is_file())
}
