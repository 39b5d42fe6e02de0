//! What `/metrics` says of versions on trial.

use prometheus::IntCounterVec;

/// By pipeline, step, module and manner.
const LABELS: [&str; 4] = ["pipeline", "step", "module", "trial"];

/// The counters of all versions on trial.
#[derive(Clone)]
pub(crate) struct TrialCounters {
    records: IntCounterVec,
    rejected: IntCounterVec,
    differing: IntCounterVec,
}

/// What is to be added to them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) records: u64,
    pub(super) rejected: u64,
    pub(super) differing: u64,
}

impl TrialCounters {
    /// Counters that `counter` registers, by name, help and labels.
    pub(crate) fn new(counter: &dyn Fn(&str, &str, &[&str]) -> IntCounterVec) -> Self {
        TrialCounters {
            records: counter(
                "millrace_trial_records_total",
                "records that a version on trial was given",
                &LABELS,
            ),
            rejected: counter(
                "millrace_trial_rejected_total",
                "records that a version on trial rejected",
                &LABELS,
            ),
            differing: counter(
                "millrace_trial_differing_total",
                "records that a shadow has other results of",
                &LABELS,
            ),
        }
    }

    pub(super) fn add(&self, labels: [&str; 4], counts: Counts) {
        let Counts { records, rejected, differing } = counts;
        for (counter, count) in
            [(&self.records, records), (&self.rejected, rejected), (&self.differing, differing)]
        {
            if count > 0 {
                counter.with_label_values(&labels).inc_by(count);
            }
        }
    }
}
