//! Timelines: a sorted set each, with the tombstones of removed members beside it.

use std::{fmt::Write as _, sync::LazyLock};

use bytes::BytesMut;
use millrace_core::{
    Message, Ordinals,
    views::{Timeline, TimelineOp},
};

use crate::{calls::Calls, script::Script, send::Writes};

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/timeline.lua")));

/// Integers up to here are written without an exponent or a fraction.
const PLAIN_MAX: f64 = 1e15;

/// Writes a timeline.
pub(crate) struct TimelineWrites {
    view: Timeline,
    constants: [String; 3],
}

impl TimelineWrites {
    pub(crate) fn new(view: Timeline) -> Self {
        // Ranks count from the oldest: the last one to go leaves the newest `stored_max`.
        let trim = format!("-{}", u64::from(view.stored_max) + 1);
        let ttl_ms = view.ttl.map_or(0, |ttl| ttl.as_millis());
        let constants = [trim, ttl_ms.to_string(), view.ledger.as_millis().to_string()];
        TimelineWrites { view, constants }
    }
}

impl Writes for TimelineWrites {
    fn kind(&self) -> &'static str {
        "timeline"
    }

    fn script(&self) -> &'static Script {
        &SCRIPT
    }

    fn keys_per_op(&self) -> usize {
        2
    }

    fn constants(&self) -> &[String] {
        &self.constants
    }

    fn encode(&self, messages: &[Message], _: &mut Ordinals, calls: &mut Calls) {
        for (place, message) in (0..).zip(messages) {
            match self.view.effect(message) {
                Ok(effect) => calls.push(place, &effect.key, &["removed"], 3, |parts| match effect.op {
                    TimelineOp::Add { score } => {
                        parts.word("add");
                        parts.text(&effect.member);
                        parts.part(|buffer| write_score(buffer, score));
                    }
                    TimelineOp::Remove => {
                        parts.word("remove");
                        parts.text(&effect.member);
                    }
                }),
                Err(error) => calls.reject(place, error),
            }
        }
    }
}

/// A finite score as Redis reads it back to the same number.
#[expect(clippy::cast_possible_truncation, reason = "whole and below 1e15")]
fn write_score(buffer: &mut BytesMut, score: f64) {
    let written = if score.fract() == 0.0 && score.abs() < PLAIN_MAX {
        write!(buffer, "{}", score as i64)
    } else {
        write!(buffer, "{score:e}")
    };
    written.expect("invariant: a buffer that grows takes any text");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use millrace_core::settings::Problems;
    use millrace_testkit::{message::message, views_suite::settings};
    use serde_json::json;

    use super::*;
    use crate::send::tests::encoded;

    fn writes() -> TimelineWrites {
        let pairs = [
            ("key", "feed:{f}"),
            ("op", "{op}"),
            ("member", "{m}"),
            ("score", "{s}"),
            ("keep", "800"),
            ("ttl", "90d"),
            ("ledger", "7d"),
        ];
        TimelineWrites::new(Timeline::read(&settings(&pairs), &mut Problems::default()).unwrap())
    }

    #[test]
    fn encodes_adds_and_removes_as_one_call() {
        let batch = [
            message(1, "1", r#"{"op":"add","f":"u1","m":"p8965","s":1424129760000}"#),
            message(2, "2", r#"{"op":"add","f":"{u2}","m":"p8965","s":0.5}"#),
            message(3, "3", r#"{"op":"add","f":"u{","m":"p8965","s":1}"#),
            message(4, "4", r#"{"op":"remove","f":"u1","m":"p1"}"#),
        ];
        let (calls, rejected) = encoded(writes(), &batch);
        assert_eq!(
            calls,
            [json!({ "timeline": [
                ["feed:u1", "removed:{feed:u1}", "add", "p8965", "1424129760000"],
                ["feed:{u2}", "removed:feed:{u2}", "add", "p8965", "5e-1"],
                ["feed:u1", "removed:{feed:u1}", "remove", "p1"],
            ] })]
        );
        assert_eq!(rejected, [2]);
    }

    #[test]
    fn constants_are_in_the_units_of_the_script() {
        assert_eq!(writes().constants(), ["-1001", "7776000000", "604800000"]);
    }

    #[test]
    fn scores_read_back_to_the_same_number() {
        let scores =
            [0.0, -0.0, 1.0, -7.0, 1_424_129_760_000.0, 999_999_999_999_999.0, 1e15, 9_007_199_254_740_992.0];
        for score in scores.into_iter().chain([0.1, -0.3, 1e300, 5e-324, f64::MAX, f64::MIN_POSITIVE]) {
            let mut buffer = BytesMut::new();
            write_score(&mut buffer, score);
            let text = std::str::from_utf8(&buffer).unwrap();
            assert_eq!(text.parse::<f64>().unwrap(), score, "{text}");
            assert!(text.len() <= 24, "{text}");
        }
    }
}
