//! How fast a pipeline is, over all processes that run it.

use std::collections::BTreeMap;

use millrace_control::{PaceEntry, WorkerEntry};
use serde_json::{Value, json};

use crate::report::grouped;

/// What all workers did lately.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pace {
    /// Of all together.
    pub records_per_s: f64,
    pub outputs_per_s: f64,
    /// Of batches, how many took up to so many µs.
    latency_us: BTreeMap<u64, u64>,
}

impl Pace {
    /// None where nothing was done.
    pub fn of(workers: &[WorkerEntry]) -> Option<Self> {
        let mut pace: Option<Pace> = None;
        for told in workers.iter().filter_map(|worker| worker.pace.as_ref()) {
            pace.get_or_insert_default().add(told);
        }
        pace
    }

    fn add(&mut self, told: &PaceEntry) {
        let seconds = told.over_ms.max(1) as f64 / 1_000.0;
        self.records_per_s += told.records as f64 / seconds;
        self.outputs_per_s += told.outputs as f64 / seconds;
        for (bound, count) in &told.latency_us {
            let sum = self.latency_us.entry(*bound).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// A bound in ms that `share` of the batches stayed below; none where none is known.
    pub fn latency_ms(&self, share: f64) -> Option<f64> {
        let total: u64 = self.latency_us.values().fold(0, |sum, count| sum.saturating_add(*count));
        let wanted = total as f64 * share;
        let mut sum = 0;
        let found = self.latency_us.iter().find(|(_, count)| {
            sum += *count;
            total > 0 && sum as f64 >= wanted
        });
        found.filter(|(bound, _)| **bound < u64::MAX).map(|(bound, _)| *bound as f64 / 1_000.0)
    }

    /// For people.
    pub fn line(&self) -> String {
        let whole = |rate: f64| grouped(rate.round().max(0.0) as u64);
        let mut line =
            format!("{} records/s, {} outputs/s", whole(self.records_per_s), whole(self.outputs_per_s));
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let bound = self.latency_ms(share).map_or("beyond 30 s".to_owned(), |ms| format!("≤ {ms} ms"));
            if !self.latency_us.is_empty() {
                line.push_str(&format!(", {name} {bound}"));
            }
        }
        line
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "records_per_s": self.records_per_s, "outputs_per_s": self.outputs_per_s,
            "p50_ms": self.latency_ms(0.5), "p99_ms": self.latency_ms(0.99),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(over_ms: u64, records: u64, latency_us: &[(u64, u64)]) -> WorkerEntry {
        let latency_us = latency_us.iter().copied().collect();
        let pace = PaceEntry { over_ms, records, outputs: records * 2, latency_us };
        WorkerEntry { pace: Some(pace), ..WorkerEntry::default() }
    }

    #[test]
    fn workers_are_added_up() {
        assert_eq!(Pace::of(&[WorkerEntry::default()]), None);
        let pace = Pace::of(&[
            worker(2_000, 1_000, &[(2_000, 98), (u64::MAX, 1)]),
            worker(10_000, 100, &[(500, 1)]),
        ]);
        let pace = pace.expect("two have one");
        assert_eq!((pace.records_per_s, pace.outputs_per_s), (510.0, 1_020.0));
        assert_eq!(
            (pace.latency_ms(0.0), pace.latency_ms(0.5), pace.latency_ms(0.99)),
            (Some(0.5), Some(2.0), Some(2.0))
        );
        assert_eq!(pace.latency_ms(1.0), None, "beyond the last bound");
        assert_eq!(pace.line(), "510 records/s, 1,020 outputs/s, p50 ≤ 2 ms, p99 ≤ 2 ms");
    }
}
