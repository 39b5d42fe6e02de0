//! What a module costs: it is run on given messages for a while, in one instance, as a pipeline runs it.

use millrace_core::{Message, Result, Step};
use tokio::time::{Duration, Instant};

use crate::{program::ModuleFactory, step::ModuleStep};

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Records that went in.
    pub records: u64,
    /// Messages that came out.
    pub passed: u64,
    /// Records that it refused or failed on.
    pub rejected: u64,
    /// How long a record takes, in microseconds.
    pub micros_per_record: f64,
    /// The instance's memory when it was opened, in bytes.
    pub opened_bytes: usize,
    /// The most memory that an instance has had after a call, in bytes.
    pub memory_bytes: usize,
}

impl ModuleFactory {
    /// Runs the module on `batch` again and again for about this long, once at least.
    ///
    /// # Errors
    /// Fatal: it cannot be opened, or fails on too many records.
    pub fn measure(&self, batch: &[Message], about: Duration) -> Result<Measured> {
        let mut step = ModuleStep::open(self.program.clone())?;
        let opened_bytes = bytes(&step);
        let mut seen = Measured { opened_bytes, ..Measured::default() };
        let began = Instant::now();
        let mut took = Duration::ZERO;
        while seen.records == 0 || began.elapsed() < about {
            let batch = batch.to_vec();
            if batch.is_empty() {
                break;
            }
            seen.records += batch.len() as u64;
            let call = Instant::now();
            let outcome = step.apply(batch)?;
            took += call.elapsed();
            seen.passed += outcome.passed.len() as u64;
            seen.rejected += outcome.rejected.len() as u64;
        }
        seen.memory_bytes = bytes(&step);
        seen.micros_per_record = took.as_secs_f64() * 1e6 / (seen.records.max(1) as f64);
        Ok(seen)
    }
}

/// The most memory that an instance has had so far.
fn bytes(step: &ModuleStep) -> usize {
    usize::try_from(step.usage().memory_bytes).unwrap_or(usize::MAX)
}
