//! The goal of `--until-end`: what the log held when the run began.

use std::collections::BTreeMap;

use millrace_core::{Admin, Error, PartitionSpan, Result};

/// The end offset of each partition, as of the start of the run.
#[derive(Debug)]
pub(crate) struct Goal {
    ends: BTreeMap<i32, PartitionSpan>,
}

impl Goal {
    /// Takes the ends now.
    pub(crate) async fn of(admin: &dyn Admin, topic: &str) -> Result<Self> {
        let info = admin.topic(topic).await?.ok_or_else(|| Error::missing_topic("run", topic))?;
        Ok(Goal { ends: info.partitions })
    }

    /// Whether progress covers the goal in every partition, whoever made it. Partitions that held nothing
    /// need no progress.
    pub(crate) fn reached(&self, progress: impl Fn(i32) -> Option<i64>) -> bool {
        self.ends
            .iter()
            .filter(|(_, span)| span.start < span.end)
            .all(|(partition, span)| progress(*partition).is_some_and(|next| next >= span.end))
    }

    /// How many records the goal spans from `progress` on.
    pub(crate) fn records(&self) -> u64 {
        self.ends.values().map(|span| span.end.saturating_sub(span.start).max(0).cast_unsigned()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_partitions_need_no_progress() {
        let span = |start, end| PartitionSpan { start, end };
        let goal = Goal { ends: BTreeMap::from([(0, span(0, 10)), (1, span(0, 0)), (2, span(7, 7))]) };
        assert!(!goal.reached(|_| None));
        assert!(!goal.reached(|p| (p == 0).then_some(9)));
        assert!(goal.reached(|p| (p == 0).then_some(10)));
        assert_eq!(goal.records(), 10);
    }
}
