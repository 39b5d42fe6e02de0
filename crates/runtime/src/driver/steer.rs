//! What a pause means for a running pipeline: it stays in its group and holds all its partitions. The workers
//! see the pause themselves, end the batch they have, and wait.

use millrace_core::{Error, Result, TopicPartition};

use super::Driver;
use crate::steering::Pause;

impl Driver {
    /// Does what the steering says now.
    ///
    /// # Errors
    /// Fatal when a run until the end is held: it would not end.
    pub(super) fn steer(&mut self, until_end: bool) -> Result<()> {
        let pause = self.pipeline.steering.paused();
        self.health.hold(&self.pipeline.name, pause.clone());
        let name = &*self.pipeline.name;
        match pause {
            None if !self.held => {}
            None => {
                tracing::info!(pipeline = name, "resumed");
                self.held = false;
                let free: Vec<TopicPartition> = self
                    .partitions
                    .iter()
                    .filter(|(_, entry)| !entry.paused)
                    .map(|(partition, _)| partition.clone())
                    .collect();
                self.control.resume(&free);
            }
            Some(pause) if until_end => return Err(is_paused(self.pipeline.configured_name(), &pause)),
            Some(pause) => {
                tracing::warn!(pipeline = name, by = pause.by.name(), reason = pause.reason, "paused");
                self.held = true;
                let all: Vec<TopicPartition> = self.partitions.keys().cloned().collect();
                self.control.pause(&all);
            }
        }
        Ok(())
    }
}

fn is_paused(pipeline: &str, pause: &Pause) -> Error {
    let why = format!("{}; 'millrace resume {pipeline}' lets it go on", pause.reason);
    Error::fatal(format!("paused by {}", pause.by.name()), why)
}
