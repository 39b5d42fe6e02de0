//! What happens when a system fails: tries, breakers.

use millrace_core::settings::Problems;

use crate::{
    part::Part,
    plan::{BreakerPlan, ExhaustedPolicy, RetryPlan},
    tables,
};

/// Reads a `retry`; what it does not give is the other's, or the table's default.
pub(crate) fn retry(part: &Part, other: Option<&RetryPlan>, problems: &mut Problems) -> RetryPlan {
    let mut given = |key: &str, of: fn(&RetryPlan) -> _, bounds| match other {
        Some(other) if !part.has(key) => of(other),
        _ => part.duration_within(key, bounds, problems),
    };
    let initial = given("initial", |other| other.initial, ("1ms", "1h"));
    let max = given("max", |other| other.max, ("1ms", "1d"));
    let own = other.is_none() || part.has("initial") || part.has("max");
    if max < initial && own {
        let key = if part.has("max") { "max" } else { "initial" };
        problems.add(part.at_key(key), &part.path_of(key), "the longest wait is shorter than the first");
    }
    let budget = match part.has("budget") {
        true => Some(part.duration_within("budget", ("1s", "365d"), problems)),
        false => other.and_then(|other| other.budget),
    };
    let exhausted = match part.settings.text("exhausted") {
        Some("dead_letters") => ExhaustedPolicy::DeadLetters,
        Some(_) => ExhaustedPolicy::Pause,
        None => other.map_or(ExhaustedPolicy::Pause, |other| other.exhausted),
    };
    RetryPlan { initial, max, budget, exhausted }
}

/// Reads the `breaker` of a part.
pub(crate) fn breaker(part: &Part, problems: &mut Problems) -> BreakerPlan {
    let part = part.part("breaker", &tables::BREAKER);
    let open_for = part.duration_within("open_for", ("1ms", "1h"), problems);
    let open_for_max = part.duration_within("open_for_max", ("1ms", "1h"), problems);
    if open_for_max < open_for {
        let key = if part.has("open_for_max") { "open_for_max" } else { "open_for" };
        problems.add(part.at_key(key), &part.path_of(key), "open_for_max is shorter than open_for");
    }
    BreakerPlan { failures: part.count("failures"), open_for, open_for_max }
}
