//! What is counted, for `/metrics`: one registry per process, labelled by pipeline and by step or sink.

use std::collections::BTreeMap;

use prometheus::{
    CounterVec, Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::trial::TrialCounters;

/// The metrics of a process.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    pub(crate) records_in: IntCounterVec,
    pub(crate) records_skipped: IntCounterVec,
    pub(crate) outputs: IntCounterVec,
    pub(crate) dead_letters: IntCounterVec,
    pub(crate) retries: IntCounterVec,
    pub(crate) breaker_state: IntGaugeVec,
    pub(crate) breaker_opened: IntCounterVec,
    pub(crate) lost: IntCounterVec,
    pub(crate) lag: IntGaugeVec,
    pub(crate) in_flight_bytes: IntGaugeVec,
    pub(crate) last_commit: GaugeVec,
    pub(crate) version_turns: IntCounterVec,
    pub(crate) trials: TrialCounters,
    pub(crate) step_seconds: HistogramVec,
    pub(crate) modules: ModuleMetrics,
    pub(crate) sink_seconds: HistogramVec,
    pub(crate) end_to_end_seconds: HistogramVec,
}

/// What is counted of the steps that are modules, by pipeline, step and version.
#[derive(Clone)]
pub(crate) struct ModuleMetrics {
    pub(crate) records_in: IntCounterVec,
    pub(crate) records_out: IntCounterVec,
    pub(crate) rejected: IntCounterVec,
    pub(crate) seconds: CounterVec,
    pub(crate) memory_bytes: IntGaugeVec,
    pub(crate) recycles: IntCounterVec,
    pub(crate) quarantines: IntCounterVec,
}

/// From half a millisecond to half a minute, in steps of about two.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0];

impl Metrics {
    /// A new registry with everything in it at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels);
            register(&registry, vec)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let histogram = |name: &str, help: &str, labels: &[&str]| {
            let opts = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            register(&registry, HistogramVec::new(opts, labels))
        };
        Metrics {
            records_in: counter("millrace_records_in_total", "records read", &["pipeline"]),
            records_skipped: counter(
                "millrace_records_skipped_total",
                "records of event types the pipeline does not list",
                &["pipeline"],
            ),
            outputs: counter(
                "millrace_records_out_total",
                "outputs a sink acknowledged",
                &["pipeline", "sink"],
            ),
            dead_letters: counter("millrace_dead_letters_total", "records rejected", &["pipeline", "place"]),
            retries: counter("millrace_retries_total", "calls tried again", &["pipeline", "place"]),
            breaker_state: gauge(
                "millrace_breaker_state",
                "of a system's breaker: 0 closed, 1 half-open, 2 open",
                &["endpoint"],
            ),
            breaker_opened: counter(
                "millrace_breaker_opened_total",
                "how often a system's breaker opened",
                &["endpoint"],
            ),
            lost: counter(
                "millrace_records_lost_total",
                "records that retention removed before they were read",
                &["pipeline"],
            ),
            lag: gauge("millrace_consumer_lag", "records not yet done", &["pipeline", "topic", "partition"]),
            in_flight_bytes: gauge("millrace_in_flight_bytes", "bytes read and not yet done", &["pipeline"]),
            last_commit: register(
                &registry,
                GaugeVec::new(
                    Opts::new("millrace_last_commit_timestamp_seconds", "when progress was committed last"),
                    &["pipeline"],
                ),
            ),
            version_turns: counter(
                "millrace_module_turns_total",
                "how often a partition took up another version of a step's module",
                &["pipeline", "step"],
            ),
            trials: TrialCounters::new(&counter),
            step_seconds: histogram(
                "millrace_step_seconds",
                "time of a step per batch",
                &["pipeline", "step"],
            ),
            modules: ModuleMetrics::new(&registry),
            sink_seconds: histogram("millrace_sink_seconds", "time of a send", &["pipeline", "sink"]),
            end_to_end_seconds: histogram(
                "millrace_end_to_end_seconds",
                "from a record's append to its effects",
                &["pipeline"],
            ),
            registry,
        }
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Writing into memory fails only for metrics that are not consistent; those are left out.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Records read by a pipeline so far.
    pub fn records_in(&self, pipeline: &str) -> u64 {
        self.records_in.with_label_values(&[pipeline]).get()
    }

    /// Outputs that a pipeline's sink acknowledged so far.
    pub fn outputs(&self, pipeline: &str, sink: &str) -> u64 {
        self.outputs.with_label_values(&[pipeline, sink]).get()
    }

    /// Records of a pipeline that became dead letters so far.
    pub fn dead_letters(&self, pipeline: &str) -> u64 {
        use prometheus::core::Collector;
        let families = self.dead_letters.collect();
        let metrics = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
        metrics.filter(|metric| is_of(metric, pipeline)).map(|m| m.get_counter().get_value() as u64).sum()
    }

    /// Outputs that all sinks of all pipelines acknowledged so far.
    pub fn outputs_total(&self) -> u64 {
        use prometheus::core::Collector;
        let families = self.outputs.collect();
        families
            .iter()
            .flat_map(prometheus::proto::MetricFamily::get_metric)
            .map(|m| m.get_counter().get_value() as u64)
            .sum()
    }

    /// Outputs of a pipeline that its sinks acknowledged so far.
    pub fn outputs_of(&self, pipeline: &str) -> u64 {
        use prometheus::core::Collector;
        let families = self.outputs.collect();
        let metrics = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
        let of_pipeline = metrics.filter(|metric| is_of(metric, pipeline));
        of_pipeline.map(|metric| metric.get_counter().get_value() as u64).sum()
    }

    /// How many batches of a pipeline took how long from append to effect, so far: by the upper bound of the time in
    /// µs, each batch counted once.
    pub fn latencies(&self, pipeline: &str) -> BTreeMap<u64, u64> {
        use prometheus::core::Collector;
        let families = self.end_to_end_seconds.collect();
        let metrics = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
        let Some(metric) = metrics.into_iter().find(|metric| is_of(metric, pipeline)) else {
            return BTreeMap::new();
        };
        let mut before = 0;
        let buckets = metric.get_histogram().get_bucket().iter().map(|bucket| {
            let count = bucket.cumulative_count().saturating_sub(before);
            before = bucket.cumulative_count();
            ((bucket.upper_bound() * 1e6).min(1e15) as u64, count)
        });
        let mut counts: BTreeMap<u64, u64> = buckets.filter(|(_, count)| *count > 0).collect();
        let beyond = metric.get_histogram().get_sample_count().saturating_sub(before);
        if beyond > 0 {
            counts.insert(u64::MAX, beyond);
        }
        counts
    }

    /// The end-to-end latency below which `share` (0 to 1) of a pipeline's batches stayed, in seconds: the
    /// upper bound of its bucket. None before the first one.
    pub fn latency_quantile(&self, pipeline: &str, share: f64) -> Option<f64> {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == "millrace_end_to_end_seconds")?;
        let metric = family
            .get_metric()
            .iter()
            .find(|metric| metric.get_label().iter().any(|label| label.value() == pipeline))?;
        let histogram = metric.get_histogram();
        let wanted = histogram.get_sample_count() as f64 * share;
        let buckets = histogram.get_bucket();
        buckets
            .iter()
            .find(|b| b.cumulative_count() as f64 >= wanted)
            .map(prometheus::proto::Bucket::upper_bound)
    }
}

impl ModuleMetrics {
    fn new(registry: &Registry) -> Self {
        const LABELS: [&str; 3] = ["pipeline", "step", "module"];
        let counter =
            |name: &str, help: &str| register(registry, IntCounterVec::new(Opts::new(name, help), &LABELS));
        let seconds = Opts::new("millrace_module_seconds_total", "time that a module ran");
        let memory = Opts::new("millrace_module_memory_bytes", "the most memory that an instance has had");
        ModuleMetrics {
            records_in: counter("millrace_module_records_in_total", "records a module was given"),
            records_out: counter("millrace_module_records_out_total", "records a module made"),
            rejected: counter("millrace_module_rejected_total", "records a module refused or failed on"),
            seconds: register(registry, CounterVec::new(seconds, &LABELS)),
            memory_bytes: register(registry, IntGaugeVec::new(memory, &LABELS)),
            recycles: counter(
                "millrace_module_recycles_total",
                "instances that were replaced, since they had failed or grown",
            ),
            quarantines: counter(
                "millrace_module_quarantines_total",
                "how often a module failed on as many records in a row as its step allows",
            ),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn is_of(metric: &prometheus::proto::Metric, pipeline: &str) -> bool {
    metric.get_label().iter().any(|label| label.name() == "pipeline" && label.value() == pipeline)
}

fn register<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("invariant: metric names and labels are valid constants");
    registry.register(Box::new(collector.clone())).expect("invariant: each metric is registered once");
    collector
}
