//! How a batch is gone through: as few calls as possible, and when one fails, narrowed to the record at fault.
//!
//! A trap is narrowed by halving. A time-out is narrowed record by record, since halving would wait for the deadline
//! again at each level, while the good records take microseconds. Time lost to failed calls is counted: past a first
//! mark deadlines become brisk, past the last the module is given up as a whole.

use std::ops::Range;

use crate::clock::{TICK_MS, ticks_of};

/// Time lost in one batch, in time-outs, after which a call gets a brisk deadline.
const BRISK_AFTER_TIMEOUTS: u64 = 8;
/// A brisk deadline as a part of the time-out.
const BRISK_PART: u64 = 20;
/// A brisk deadline in multiples of what a good record alone has taken.
const BRISK_MULTIPLE: u64 = 4;
/// Time lost in one batch, in time-outs, after which the module is given up.
const GIVE_UP_AFTER_TIMEOUTS: u64 = 180;

/// How many records a call carries; learnt from batch to batch.
#[derive(Debug)]
pub(crate) struct Pace {
    timeout_ms: u64,
    records: usize,
    records_max: usize,
    /// The longest that a good record alone has run, in ticks.
    slowest_alone_ticks: u64,
}

/// The way through one batch.
#[derive(Debug)]
pub(crate) struct Plan {
    at: usize,
    len: usize,
    /// Ends of the ranges known to hold a fault, innermost last.
    ends: Vec<usize>,
    /// Records before this index go alone.
    alone_until: usize,
    /// How often the record at `at` has run out of time alone.
    alone_time_outs: u32,
    lost_ticks: u64,
}

/// What a failed call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not known yet which record it was, or whether it was the record: go on with [`Plan::next`].
    Narrow,
    /// It was the one record of the call.
    Reject,
    /// Too much time was lost: the module as a whole.
    GiveUp,
}

/// A call that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// How many records it carried.
    pub(crate) records: usize,
    /// Whether the instance had not processed anything before.
    pub(crate) fresh: bool,
    pub(crate) timed_out: bool,
    pub(crate) ticks: u64,
}

impl Pace {
    pub(crate) fn new(timeout_ms: u64, records_max: usize) -> Self {
        Pace { timeout_ms, records: records_max, records_max, slowest_alone_ticks: 0 }
    }
}

impl Plan {
    pub(crate) fn new(len: usize) -> Self {
        Plan { at: 0, len, ends: Vec::new(), alone_until: 0, alone_time_outs: 0, lost_ticks: 0 }
    }

    /// The records to try next, from the first that is not done; none when all are.
    pub(crate) fn next(&mut self, pace: &Pace) -> Option<Range<usize>> {
        if self.at == self.len {
            return None;
        }
        while self.ends.last().is_some_and(|end| *end <= self.at) {
            self.ends.pop();
        }
        let alone = self.at < self.alone_until || self.is_brisk(pace);
        let records = if alone { 1 } else { pace.records };
        let end = self.ends.last().copied().unwrap_or(self.len);
        Some(self.at..end.min(self.at + records))
    }

    /// How long the next call may run, in milliseconds.
    pub(crate) fn timeout_ms(&self, pace: &Pace) -> u64 {
        if !self.is_brisk(pace) {
            return pace.timeout_ms;
        }
        let known_good_ms = pace.slowest_alone_ticks.saturating_mul(BRISK_MULTIPLE * TICK_MS);
        (pace.timeout_ms / BRISK_PART).max(known_good_ms).clamp(1, pace.timeout_ms)
    }

    /// A call went well. `strained` when it came near a limit, so that a larger one would not go well.
    pub(crate) fn passed(&mut self, pace: &mut Pace, records: usize, ticks: u64, strained: bool) {
        self.done(records);
        if records == 1 {
            pace.slowest_alone_ticks = pace.slowest_alone_ticks.max(ticks);
        }
        let strained = strained || ticks > ticks_of(pace.timeout_ms) / 4;
        if strained {
            pace.records = pace.records.min(records);
        } else if records >= pace.records {
            pace.records = (pace.records * 2).min(pace.records_max);
        }
    }

    /// The module refused the record at `index` of the call; those before it went well.
    pub(crate) fn refused(&mut self, pace: &mut Pace, index: usize) {
        self.done(index + 1);
        // The rest of the call was encoded and decoded in vain: keep that below the work that was of use.
        pace.records = (2 * (index + 1)).min(pace.records_max);
    }

    /// A call failed; nothing of it counts.
    pub(crate) fn failed(&mut self, pace: &mut Pace, failure: Failure) -> Verdict {
        self.lost_ticks = self.lost_ticks.saturating_add(failure.ticks);
        if self.lost_ticks > GIVE_UP_AFTER_TIMEOUTS * ticks_of(pace.timeout_ms) {
            return Verdict::GiveUp;
        }
        if failure.records > 1 {
            let end = self.at + failure.records;
            if failure.timed_out {
                self.alone_until = end;
                pace.records = (failure.records / 8).max(1);
            } else {
                self.ends.push(end);
                self.ends.push(self.at + failure.records / 2);
            }
            return Verdict::Narrow;
        }
        self.alone_time_outs += u32::from(failure.timed_out);
        if !failure.fresh || (failure.timed_out && self.alone_time_outs < 2) {
            return Verdict::Narrow;
        }
        self.rejected();
        Verdict::Reject
    }

    /// The record to try next was given up.
    pub(crate) fn rejected(&mut self) {
        self.done(1);
        self.alone_until = self.at;
    }

    fn done(&mut self, records: usize) {
        self.at += records;
        self.alone_time_outs = 0;
    }

    fn is_brisk(&self, pace: &Pace) -> bool {
        self.lost_ticks > BRISK_AFTER_TIMEOUTS * ticks_of(pace.timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Nature {
        Good,
        Refused,
        Traps,
        Loops,
        /// Traps in an instance that has processed something.
        TrapsUnlessFresh,
    }

    /// Plays a guest: what is passed and rejected, and how many calls and lost time-outs that took.
    #[derive(Debug, Default)]
    struct Played {
        passed: Vec<usize>,
        rejected: Vec<usize>,
        calls: usize,
        time_outs: usize,
        gave_up: bool,
    }

    fn play(natures: &[Nature], pace: &mut Pace) -> Played {
        let mut plan = Plan::new(natures.len());
        let mut played = Played::default();
        let mut fresh = true;
        while let Some(range) = plan.next(pace) {
            played.calls += 1;
            let records = range.len();
            let worst = natures[range.clone()].iter().position(|nature| match nature {
                Nature::Good => false,
                Nature::Refused | Nature::Traps | Nature::Loops => true,
                Nature::TrapsUnlessFresh => !fresh || records > 1,
            });
            match worst.map(|index| (index, natures[range.start + index])) {
                None => {
                    plan.passed(pace, records, 0, false);
                    played.passed.extend(range);
                    fresh = false;
                }
                Some((index, Nature::Refused)) => {
                    plan.refused(pace, index);
                    played.passed.extend(range.start..range.start + index);
                    played.rejected.push(range.start + index);
                    fresh = false;
                }
                Some((_, nature)) => {
                    let timed_out = nature == Nature::Loops;
                    let ticks = if timed_out { ticks_of(plan.timeout_ms(pace)) } else { 0 };
                    played.time_outs += usize::from(timed_out);
                    match plan.failed(pace, Failure { records, fresh, timed_out, ticks }) {
                        Verdict::Narrow => {}
                        Verdict::Reject => played.rejected.push(range.start),
                        Verdict::GiveUp => {
                            played.gave_up = true;
                            return played;
                        }
                    }
                    fresh = true;
                }
            }
        }
        played
    }

    fn nature() -> impl Strategy<Value = Nature> {
        prop_oneof![
            20 => Just(Nature::Good),
            2 => Just(Nature::Refused),
            2 => Just(Nature::Traps),
            1 => Just(Nature::Loops),
            1 => Just(Nature::TrapsUnlessFresh),
        ]
    }

    proptest! {
        #[test]
        fn each_record_is_done_once_in_order_and_only_the_bad_are_rejected(
            natures in vec(nature(), 0..300),
            records_max in 1_usize..400,
        ) {
            let mut pace = Pace::new(1_000, records_max);
            let played = play(&natures, &mut pace);
            let of = |wanted: &[Nature]| -> Vec<usize> {
                (0..natures.len()).filter(|index| wanted.contains(&natures[*index])).collect()
            };
            prop_assert_eq!(played.passed, of(&[Nature::Good, Nature::TrapsUnlessFresh]));
            prop_assert_eq!(played.rejected, of(&[Nature::Refused, Nature::Traps, Nature::Loops]));
            prop_assert!(!played.gave_up);
        }
    }

    #[test]
    fn one_loop_among_a_thousand_costs_three_deadlines() {
        let mut natures = vec![Nature::Good; 1_000];
        natures[700] = Nature::Loops;
        let played = play(&natures, &mut Pace::new(1_000, 1_000));
        assert_eq!((played.time_outs, played.passed.len()), (3, 999));
    }

    #[test]
    fn one_trap_among_a_thousand_is_halved() {
        let mut natures = vec![Nature::Good; 1_000];
        natures[700] = Nature::Traps;
        assert!(play(&natures, &mut Pace::new(1_000, 1_000)).calls < 32);
    }

    #[test]
    fn a_thousand_loops_are_all_rejected_and_ten_thousand_are_given_up() {
        let played = play(&[Nature::Loops; 1_000], &mut Pace::new(1_000, 1_000));
        assert_eq!(played.rejected.len(), 1_000);
        let played = play(&[Nature::Loops; 10_000], &mut Pace::new(1_000, 1_000));
        assert!(played.gave_up);
        assert!(played.time_outs < 5_000);
    }

    #[test]
    fn refusals_cost_at_most_twice_the_records() {
        let mut pace = Pace::new(1_000, 1_000);
        let played = play(&[Nature::Refused; 1_000], &mut pace);
        assert_eq!((played.calls, pace.records), (1_000, 2));
        assert_eq!(play(&[Nature::Good; 2_046], &mut pace).calls, 11, "the pace doubles again");
    }

    #[test]
    fn a_slow_module_gets_smaller_calls() {
        let mut pace = Pace::new(1_000, 1_000);
        let mut plan = Plan::new(10_000);
        assert_eq!(plan.next(&pace), Some(0..1_000));
        let failure = Failure { records: 1_000, fresh: false, timed_out: true, ticks: 101 };
        assert_eq!(plan.failed(&mut pace, failure), Verdict::Narrow);
        for index in 0..1_000 {
            assert_eq!(plan.next(&pace), Some(index..index + 1));
            plan.passed(&mut pace, 1, 0, false);
        }
        assert_eq!(plan.next(&pace), Some(1_000..1_125));
        plan.passed(&mut pace, 125, 60, false);
        assert_eq!(plan.next(&pace), Some(1_125..1_250), "it took more than a quarter of the time-out");
    }
}
