//! What is counted of a step while it runs a version of its module.

use millrace_core::{Outcome, StepUsage};
use prometheus::{Counter, Histogram, IntCounter, IntGauge};
use tokio::time::Duration;

use super::Context;
use crate::pipeline::ModuleAbout;

/// Found once, since they are counted with every portion.
pub(super) struct Meters {
    records_in: IntCounter,
    records_out: IntCounter,
    rejected: IntCounter,
    seconds: Counter,
    portion_seconds: Histogram,
    memory_bytes: IntGauge,
    recycles: IntCounter,
    pub(super) quarantines: IntCounter,
    /// Of the recycles, what is counted already.
    recycled: u64,
}

impl Meters {
    pub(super) fn of(context: &Context, id: &str, about: &ModuleAbout) -> Self {
        let (metrics, pipeline) = (&context.metrics, &*context.pipeline.name);
        let (modules, labels) = (&metrics.modules, [pipeline, id, &*about.module]);
        Meters {
            records_in: modules.records_in.with_label_values(&labels),
            records_out: modules.records_out.with_label_values(&labels),
            rejected: modules.rejected.with_label_values(&labels),
            seconds: modules.seconds.with_label_values(&labels),
            portion_seconds: metrics.step_seconds.with_label_values(&[pipeline, id]),
            memory_bytes: modules.memory_bytes.with_label_values(&labels),
            recycles: modules.recycles.with_label_values(&labels),
            quarantines: modules.quarantines.with_label_values(&labels),
            recycled: 0,
        }
    }

    /// The step has had a portion of messages.
    pub(super) fn note(&mut self, given: usize, outcome: &Outcome, took: Duration, usage: StepUsage) {
        self.records_in.inc_by(given as u64);
        self.records_out.inc_by(outcome.passed.len() as u64);
        self.rejected.inc_by(outcome.rejected.len() as u64);
        self.seconds.inc_by(took.as_secs_f64());
        self.portion_seconds.observe(took.as_secs_f64());
        // Workers share the gauge. One that was overtaken between looking and setting looks again at its next portion.
        let memory_bytes = i64::try_from(usage.memory_bytes).unwrap_or(i64::MAX);
        if self.memory_bytes.get() < memory_bytes {
            self.memory_bytes.set(memory_bytes);
        }
        self.recycles.inc_by(usage.recycles.saturating_sub(self.recycled));
        self.recycled = usage.recycles;
    }
}
