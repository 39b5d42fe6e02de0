//! Waiting until no process reads as the groups of a pipeline any more, as far as processes tell of themselves. A
//! cluster knows better: it refuses to set the progress of a group with members.

use std::collections::BTreeMap;

use millrace_control::{Board, Entry, STALE_AFTER_MS, WorkerEntry, lane_of, worker_of_key};
use millrace_core::{Broker, Class, Error, Result};
use millrace_runtime::Clock;
use tokio::time::{Duration, Instant, sleep};

/// How often it is looked again.
const REST: Duration = Duration::from_millis(300);

/// Does work that needs groups without members, again and again until it is done or the time is over.
pub async fn when_left(
    (broker, control): (&dyn Broker, &str),
    pipeline: &str,
    limit: Duration,
    work: impl AsyncFn() -> Result<()>,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let holders = holders(&Board::look(broker, control).await?, pipeline, Clock::system().now_ms());
        let refused = match holders.first() {
            None => match work().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            Some(holder) => Error::retry(
                format!("pipeline {pipeline}"),
                format!(
                    "{holder} still has it: it ends it if it is of this version and runs on, else end the process"
                ),
            ),
        };
        if Instant::now() >= deadline {
            let why = format!("its groups were not free within {} ms", limit.as_millis());
            return Err(
                Error::new(Class::Fatal, format!("pipeline {pipeline}"), why).with_source(refused.chain())
            );
        }
        sleep(REST).await;
    }
}

/// The processes that have a lane of the pipeline and have not ended it.
pub fn holders(entries: &BTreeMap<String, Entry>, pipeline: &str, now_ms: i64) -> Vec<String> {
    let holder = |(key, entry): (&String, &Entry)| {
        let (_, name) = worker_of_key(key)?;
        lane_of(name, pipeline)?;
        let worker: WorkerEntry = entry.read().ok()?;
        let live = !worker.ended && now_ms - worker.at_ms <= STALE_AFTER_MS;
        let has = live && !matches!(worker.state.as_str(), "stopped" | "failed");
        has.then(|| format!("process {} on {}", worker.process.pid, worker.process.host))
    };
    entries.iter().filter_map(holder).collect()
}
