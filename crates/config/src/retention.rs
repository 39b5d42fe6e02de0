//! How long an event can come again, and whether everything that remembers it remembers it that long.

use std::collections::HashMap;

use indexmap::IndexMap;
use millrace_core::settings::Problems;
use tokio::time::Duration;

use crate::{
    plan::{PipelinePlan, TopicPlan},
    world::Later,
};

/// A record outlives its topic's retention until its segment is closed: topics are created with segments of at
/// most a day.
const SEGMENT: Duration = Duration::from_secs(86_400);

/// Pipelines that share a topic of dead letters agree on it: the longest retention, the largest record.
pub(crate) fn agree_on_dead_letters(
    pipelines: &mut IndexMap<String, PipelinePlan>,
    topics: &IndexMap<String, TopicPlan>,
) {
    let mut agreed: HashMap<String, (Option<u64>, usize, u32)> = HashMap::new();
    for pipeline in pipelines.values() {
        let spec = &pipeline.dead_letters;
        let entry = agreed.entry(spec.name.clone()).or_insert((
            spec.retention_ms,
            spec.record_bytes_max,
            spec.partitions,
        ));
        entry.0 = entry.0.max(spec.retention_ms);
        entry.1 = entry.1.max(spec.record_bytes_max);
        entry.2 = entry.2.max(spec.partitions);
    }
    for pipeline in pipelines.values_mut() {
        let spec = &mut pipeline.dead_letters;
        if let Some(agreed) = agreed.get(&spec.name).filter(|_| !topics.contains_key(&spec.name)) {
            (spec.retention_ms, spec.record_bytes_max, spec.partitions) = *agreed;
        }
    }
}

/// Checks everything that remembers events against the time for which they can come again.
pub(crate) fn check_ledgers(
    later: &Later,
    pipelines: &IndexMap<String, PipelinePlan>,
    topics: &IndexMap<String, TopicPlan>,
    problems: &mut Problems,
) {
    for ledger in &later.ledgers {
        let Some(pipeline) = pipelines.get(&ledger.pipeline) else { continue };
        let Some(topic) = topics.get(&pipeline.from.topic) else { continue };
        let retention = Duration::from_millis(topic.spec.retention_ms.unwrap_or_default());
        let dead_letters = Duration::from_millis(pipeline.dead_letters.retention_ms.unwrap_or_default());
        let needed = retention.saturating_add(SEGMENT).saturating_add(dead_letters);
        if ledger.lives < needed {
            let message = format!(
                "events are remembered for {}, but can come again for {}: {} in '{}', {} in its last segment, {} as dead letters",
                show(ledger.lives),
                show(needed),
                show(retention),
                pipeline.from.topic,
                show(SEGMENT),
                show(dead_letters),
            );
            let advice = format!("'{}: {}' or more, or shorter retentions", ledger.key, show(needed));
            problems.suggest(ledger.at, &ledger.path, message, advice);
        }
    }
}

/// Notes in each pipeline how long its events are remembered.
pub(crate) fn note_ledgers(later: &Later, pipelines: &mut IndexMap<String, PipelinePlan>) {
    for ledger in &later.ledgers {
        if let Some(pipeline) = pipelines.get_mut(&ledger.pipeline) {
            let shortest = pipeline.remembers.map_or(ledger.lives, |lives| lives.min(ledger.lives));
            pipeline.remembers = Some(shortest);
        }
    }
}

/// A time span in the largest unit that gives a whole number.
fn show(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let fitting = units.into_iter().find(|(unit_ms, _)| ms > 0 && ms.is_multiple_of(*unit_ms));
    fitting.map_or_else(|| format!("{ms}ms"), |(unit_ms, unit)| format!("{}{unit}", ms / unit_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_shown_in_the_unit_that_fits() {
        let shown = |secs| show(Duration::from_secs(secs));
        assert_eq!([shown(604_800), shown(3_600), shown(90), shown(0)], ["7d", "1h", "90s", "0ms"]);
    }
}
