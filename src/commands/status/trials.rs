//! Versions on trial, over all processes that run a pipeline.

use std::{collections::BTreeMap, fmt::Write};

use millrace_control::{DifferingEntry, TrialEntry, WorkerEntry};
use serde_json::{Value, json};

use crate::report::{counted, grouped};

/// Differing records that a line names.
const NAMED_MAX: usize = 3;

/// So many of them are kept of all processes together.
const FIRST_MAX: usize = 10;

/// A version on trial, as all processes together see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialLook {
    step: String,
    seen: TrialEntry,
}

impl TrialLook {
    /// All of them: more than one of a step in the middle of a change.
    pub fn all(workers: &[WorkerEntry]) -> Vec<Self> {
        let mut all: BTreeMap<(&str, &str, &str), TrialLook> = BTreeMap::new();
        for (step, entry) in workers.iter().flat_map(|worker| &worker.trials) {
            let look = all.entry((step, &entry.manner, &entry.module)).or_insert_with(|| {
                let (manner, module) = (entry.manner.clone(), entry.module.clone());
                TrialLook { step: step.clone(), seen: TrialEntry { manner, module, ..TrialEntry::default() } }
            });
            look.add(entry);
        }
        all.into_values().collect()
    }

    fn add(&mut self, entry: &TrialEntry) {
        let seen = &mut self.seen;
        seen.records += entry.records;
        seen.rejected += entry.rejected;
        seen.differing += entry.differing;
        let room = FIRST_MAX.saturating_sub(seen.first.len());
        seen.first.extend(entry.first.iter().take(room).cloned());
        seen.off.extend(entry.off.iter().map(|(partition, why)| (*partition, why.clone())));
    }

    /// For people.
    pub fn line(&self) -> String {
        let TrialEntry { manner, module, records, rejected, differing, first, off } = &self.seen;
        let mut line = format!(
            "step {}: {manner} {module}: {}, {} rejected",
            self.step,
            counted(*records, "record"),
            grouped(*rejected)
        );
        if manner == "shadow" {
            let _ = write!(line, ", {} differ", grouped(*differing));
            let name = |one: &DifferingEntry| format!("{} ({})", one.record, one.difference);
            let named: Vec<String> = first.iter().take(NAMED_MAX).map(name).collect();
            if !named.is_empty() {
                let _ = write!(line, ", first {}", named.join(", "));
            }
        }
        if let Some((partition, why)) = off.first_key_value() {
            let others = off.len() - 1;
            let _ = write!(line, "; switched off on partition {partition}");
            if others > 0 {
                let _ = write!(line, " and {}", counted(others as u64, "other"));
            }
            let _ = write!(line, ": {why}");
        }
        line
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let TrialEntry { manner, module, records, rejected, differing, first, off } = &self.seen;
        json!({
            "step": self.step, "trial": manner, "module": module,
            "records": records, "rejected": rejected, "differing": differing, "first": first, "off": off,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(trial: TrialEntry) -> WorkerEntry {
        WorkerEntry { trials: BTreeMap::from([("own".to_owned(), trial)]), ..WorkerEntry::default() }
    }

    fn shadow(records: u64, first: &[(&str, &str)]) -> TrialEntry {
        let entry = |(record, difference): &(&str, &str)| DifferingEntry {
            record: (*record).to_owned(),
            difference: (*difference).to_owned(),
        };
        TrialEntry {
            manner: "shadow".to_owned(),
            module: "own@1.1.0".to_owned(),
            records,
            differing: first.len() as u64,
            first: first.iter().map(entry).collect(),
            ..TrialEntry::default()
        }
    }

    #[test]
    fn processes_are_added_up() {
        let off = BTreeMap::from([(1, "too slow".to_owned()), (3, "too slow".to_owned())]);
        let workers = [
            worker(shadow(1_200, &[("in/0/5", "value"), ("in/0/9", "count")])),
            worker(TrialEntry { rejected: 2, off, ..shadow(1, &[("in/1/0", "rejected")]) }),
        ];
        let all = TrialLook::all(&workers);
        let lines: Vec<String> = all.iter().map(TrialLook::line).collect();
        assert_eq!(
            lines,
            [
                "step own: shadow own@1.1.0: 1,201 records, 2 rejected, 3 differ, first in/0/5 (value), in/0/9 (count), in/1/0 (rejected); switched off on partition 1 and 1 other: too slow"
            ]
        );
        assert_eq!(all[0].json()["first"][2], json!({ "record": "in/1/0", "difference": "rejected" }));
    }

    #[test]
    fn a_canary_is_counted_and_not_compared() {
        let canary = TrialEntry { manner: "canary".to_owned(), rejected: 1, ..shadow(7, &[]) };
        let lines: Vec<String> = TrialLook::all(&[worker(canary)]).iter().map(TrialLook::line).collect();
        assert_eq!(lines, ["step own: canary own@1.1.0: 7 records, 1 rejected"]);
    }
}
