//! What the demo shows while it runs: a line that changes on a terminal, plain lines where it is piped.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use millrace_runtime::Metrics;
use tokio::time::{Duration, Instant};

use crate::report::{grouped, say};

/// How often a plain line is printed.
const LINE_INTERVAL: Duration = Duration::from_secs(3);

/// The view. Everything it says goes to standard error.
pub struct Live {
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Instant,
    last: (Instant, u64),
    rate: u64,
}

impl Live {
    pub fn start() -> Self {
        let now = Instant::now();
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("  {spinner} {msg}");
            bar.set_style(style.expect("invariant: the template is valid"));
            bar
        });
        Live { bar, started: now, last_line: now, last: (now, 0), rate: 0 }
    }

    /// A line that stays.
    pub fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => say(line),
        }
    }

    /// The state of now. Cheap: to be called often.
    pub fn update(&mut self, doing: &str, produced: u64, metrics: &Metrics) {
        let now = Instant::now();
        let effects = effects(metrics);
        let since = now.duration_since(self.last.0);
        if since >= Duration::from_millis(500) {
            self.rate = ((effects - self.last.1) as f64 / since.as_secs_f64()) as u64;
            self.last = (now, effects);
        }
        let p99 = metrics.latency_quantile("home-feed", 0.99);
        let p99 = p99.map_or_else(|| "-".to_owned(), |seconds| format!("{:.0} ms", seconds * 1_000.0));
        let line = format!(
            "{:>3.0} s  {doing}: {} events in, {} effects, {} effects/s, feed p99 <= {p99}",
            now.duration_since(self.started).as_secs_f64(),
            grouped(produced),
            grouped(effects),
            grouped(self.rate),
        );
        match &self.bar {
            Some(bar) => {
                bar.set_message(line);
                bar.tick();
            }
            None if now.duration_since(self.last_line) >= LINE_INTERVAL => {
                self.last_line = now;
                say(&format!("  {line}"));
            }
            None => {}
        }
    }

    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What all sinks of the reference pipelines have acknowledged.
pub fn effects(metrics: &Metrics) -> u64 {
    metrics.outputs_total()
}
