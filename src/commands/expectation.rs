//! What golden cases are expected to come to: compared with what was seen, or written anew, and told case by case.

use std::{
    fs,
    io::{Write, stdout},
    path::Path,
};

use serde_json::{Value, json};

use crate::report::{Failure, counted, say};

/// What became of a case.
pub enum Verdict {
    Passed,
    Updated,
    Differs(String),
}

/// Compares what was seen with what the file expects; with `update`, it is what is expected from now on.
pub fn judge(path: &Path, seen: &Value, update: bool) -> Result<Verdict, Failure> {
    if update {
        let mut text = serde_json::to_string_pretty(seen)?;
        text.push('\n');
        fs::write(path, text)?;
        return Ok(Verdict::Updated);
    }
    let expected = fs::read_to_string(path)
        .map_err(|error| Failure::input(format!("{}: {error}; write it with --update", path.display())))?;
    let expected: Value = serde_json::from_str(&expected)
        .map_err(|error| Failure::input(format!("{}: not JSON: {error}", path.display())))?;
    Ok(if expected == *seen { Verdict::Passed } else { Verdict::Differs(difference(&expected, seen)?) })
}

/// The cases of a run, told as they end.
pub struct Tally {
    as_json: bool,
    total: u64,
    failed: u64,
}

impl Tally {
    pub fn new(total: usize, as_json: bool) -> Self {
        Tally { as_json, total: total as u64, failed: 0 }
    }

    /// Tells how a case ended.
    pub fn note(&mut self, name: &str, verdict: Verdict) -> Result<(), Failure> {
        let word = match &verdict {
            Verdict::Passed => "ok",
            Verdict::Updated => "updated",
            Verdict::Differs(_) => "FAILED",
        };
        let mut out = stdout().lock();
        if self.as_json {
            writeln!(out, "{}", json!({ "case": name, "result": word.to_lowercase() }))?;
        } else {
            writeln!(out, "{word:<8} {name}")?;
        }
        if let Verdict::Differs(difference) = verdict {
            self.failed += 1;
            say(&difference);
        }
        Ok(())
    }

    /// # Errors
    /// When a case differs.
    pub fn conclude(self) -> Result<(), Failure> {
        if self.failed == 0 {
            return Ok(());
        }
        let advice = "look at the difference, then take it with --update";
        Err(Failure::run(format!("{} of {} failed; {advice}", self.failed, counted(self.total, "case"))))
    }
}

/// The lines that differ, of both as pretty JSON.
fn difference(expected: &Value, seen: &Value) -> Result<String, Failure> {
    const LINES_MAX: usize = 60;
    let (expected, seen) = (serde_json::to_string_pretty(expected)?, serde_json::to_string_pretty(seen)?);
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), seen.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = (old.len() - head).min(new.len() - head);
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let mut lines: Vec<String> = vec![format!("  first difference in line {}:", head + 1)];
    lines.extend(old[head..old.len() - tail].iter().map(|line| format!("  - {line}")));
    lines.extend(new[head..new.len() - tail].iter().map(|line| format!("  + {line}")));
    if lines.len() > LINES_MAX {
        let more = lines.len() - LINES_MAX;
        lines.truncate(LINES_MAX);
        lines.push(format!("  … {more} more lines"));
    }
    Ok(lines.join("\n"))
}
