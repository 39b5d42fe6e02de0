//! From the file that was typed to the plan: reads it, checks it, shows every mistake.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use millrace_config::{FILE_BYTES_MAX, Plan};
use millrace_core::settings::Problem;
use serde_json::json;

use crate::{args::FileArgs, registry, report::Failure};

/// The file where none is named.
const FILE: &str = "pipelines.yaml";

/// A pipeline file and what became of it.
pub struct Checked {
    /// Its path as typed.
    pub name: String,
    /// Its text.
    pub text: String,
    /// The plan, or every mistake in it.
    pub plan: Result<Plan, Vec<Problem>>,
}

/// Reads and checks the file.
pub fn check(args: &FileArgs) -> Result<Checked, Failure> {
    let path = args.pipelines.as_deref().unwrap_or(Path::new(FILE));
    let name = path.display().to_string();
    let text = read(path).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "; name another file with -f",
            _ => "",
        };
        Failure::input(format!("{name}: {error}{advice}"))
    })?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let catalog = registry::catalog();
    let plan = match &args.embedded {
        None => millrace_config::load(&name, &text, folder, &variable, &catalog),
        Some(dir) => millrace_config::load_embedded(&name, &text, folder, &variable, &catalog, dir),
    };
    Ok(Checked { name, text, plan })
}

/// The file's text, and of one that is too large no more than shows it.
fn read(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    if text.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("is larger than the {FILE_BYTES_MAX} bytes that are allowed")));
    }
    String::from_utf8(text).map_err(|_| io::Error::other("is not UTF-8 text"))
}

/// Reads and checks the file; its mistakes are the failure.
pub fn load(args: &FileArgs) -> Result<Plan, Failure> {
    load_with_text(args).map(|(plan, _)| plan)
}

/// As [`load`], with the text of the file.
pub fn load_with_text(args: &FileArgs) -> Result<(Plan, String), Failure> {
    let Checked { name, text, plan } = check(args)?;
    match plan {
        Ok(plan) => Ok((plan, text)),
        Err(problems) => Err(mistakes(&problems, &name, &text)),
    }
}

/// The mistakes of a file as a failure.
pub fn mistakes(problems: &[Problem], name: &str, text: &str) -> Failure {
    Failure::input(millrace_config::render(problems, name, text).trim_end())
}

/// A problem as `--json` prints it.
pub fn problem_json(file: &str, problem: &Problem) -> serde_json::Value {
    json!({
        "file": file, "line": problem.at.line, "column": problem.at.column, "path": problem.path,
        "message": problem.message, "suggestion": problem.suggestion,
    })
}

/// Where variables of the file come from.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
