//! How many records in a row a module has failed on, and what its step does when they are too many.
//!
//! A row is of one partition. A record counts when every message of it that the step was given was rejected, be it that
//! the module refused it or broke on it; one that passes, or is dropped, ends the row.

use std::collections::BTreeMap;

use millrace_core::Rejected;

/// Different failures that are told apart within a row; what a host says of a failure may have numbers in it.
const WORDS_MAX: usize = 16;

/// When a module is not to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// It has failed on so many records in a row.
    pub after: usize,
    /// What is done about it.
    pub then: Then,
}

/// What is done about a module that fails again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The pipeline is paused, before these records become dead letters. Resumed, it counts from zero.
    Stop,
    /// It goes on, and each record becomes a dead letter.
    Skip,
    /// The version before takes over, beginning with these records. Where there is none: as `Stop`.
    Previous,
}

/// Looks at what a step rejects on one partition.
pub(crate) struct Watch {
    policy: Quarantine,
    row: Row,
}

/// The records that have failed up to now.
#[derive(Default)]
struct Row {
    records: usize,
    /// The offset of the last one: its messages may come in several portions.
    last: Option<i64>,
    /// How many failed by what. What a module says itself may quote the record and is left out.
    words: BTreeMap<String, usize>,
}

impl Watch {
    pub(crate) fn new(policy: Quarantine) -> Self {
        Watch { policy, row: Row::default() }
    }

    pub(crate) fn then(&self) -> Then {
        self.policy.then
    }

    /// Whether the row may become too long with so many messages more.
    pub(crate) fn is_close(&self, messages: usize) -> bool {
        self.row.records + messages >= self.policy.after
    }

    /// Counts from zero.
    pub(crate) fn begin_again(&mut self) {
        self.row = Row::default();
    }

    /// Sees what became of messages, whose offsets are given in their order. Says what the row is made of when it has just
    /// become too long.
    pub(crate) fn look(&mut self, offsets: &[i64], rejected: &[Rejected]) -> Option<String> {
        let mut failed: BTreeMap<i64, (usize, &Rejected)> = BTreeMap::new();
        for one in rejected {
            failed.entry(one.origin.record.offset).or_insert((0, one)).0 += 1;
        }
        let mut said = None;
        for same in offsets.chunk_by(i64::eq) {
            match failed.get(&same[0]) {
                Some((count, first)) if *count >= same.len() => {
                    if self.row.add(same[0], first) && self.row.records == self.policy.after {
                        said = Some(self.row.text());
                    }
                }
                _ => self.begin_again(),
            }
        }
        said
    }
}

impl Row {
    /// Whether it is one more.
    fn add(&mut self, offset: i64, rejected: &Rejected) -> bool {
        if self.last.replace(offset) == Some(offset) {
            return false;
        }
        self.records += 1;
        let words = if rejected.refused { "refused in its own words" } else { rejected.error.why() };
        let is_full = self.words.len() >= WORDS_MAX;
        match self.words.get_mut(words) {
            Some(count) => *count += 1,
            None if is_full => {}
            None => drop(self.words.insert(words.to_owned(), 1)),
        }
        true
    }

    fn text(&self) -> String {
        let most = self.words.iter().max_by_key(|(_, count)| **count);
        let most = most.map(|(words, count)| format!(", {count} of them: {words}")).unwrap_or_default();
        format!("failed on {} records in a row{most}", self.records)
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::Error;
    use millrace_testkit::message::message;

    use super::*;

    fn watch(after: usize) -> Watch {
        Watch::new(Quarantine { after, then: Then::Stop })
    }

    fn rejected(offsets: &[i64], why: &str) -> Vec<Rejected> {
        let one = |offset: &i64| Rejected {
            origin: message(*offset, "k", "{}").origin,
            error: Error::reject("module", why),
            refused: why == "quotes",
        };
        offsets.iter().map(one).collect()
    }

    #[test]
    fn a_record_that_passes_ends_the_row() {
        let mut watch = watch(3);
        assert_eq!(watch.look(&[1, 2, 3, 4], &rejected(&[1, 2, 4], "trapped")), None);
        assert_eq!(watch.look(&[5], &rejected(&[5], "trapped")), None);
        let said = watch.look(&[6, 7], &rejected(&[6, 7], "quotes"));
        assert_eq!(said.as_deref(), Some("failed on 3 records in a row, 2 of them: trapped"));
        assert_eq!(watch.look(&[8, 9, 10], &rejected(&[8, 9, 10], "trapped")), None, "said once");
        watch.begin_again();
        let said = watch.look(&[11, 12, 13, 14], &rejected(&[11, 12, 13], "quotes"));
        assert_eq!(
            said.as_deref(),
            Some("failed on 3 records in a row, 3 of them: refused in its own words")
        );
    }

    #[test]
    fn a_record_counts_once_and_only_if_nothing_of_it_passed() {
        let mut watch = watch(3);
        assert_eq!(watch.look(&[1, 1, 2, 2], &rejected(&[1, 1, 2, 2], "trapped")), None);
        assert_eq!(watch.look(&[2, 2], &rejected(&[2, 2], "trapped")), None);
        assert_eq!(watch.look(&[3, 3, 3], &rejected(&[3, 3], "trapped")), None);
        assert_eq!(watch.look(&[4, 5], &rejected(&[4, 5], "trapped")), None);
        assert!(watch.look(&[6], &rejected(&[6], "trapped")).is_some());
    }

    #[test]
    fn it_stays_small() {
        let mut watch = watch(1_000);
        for offset in 0..999 {
            watch.look(&[offset], &rejected(&[offset], &format!("of offset {offset}")));
        }
        assert_eq!(watch.row.words.len(), WORDS_MAX);
        assert!(watch.is_close(1) && !watch.is_close(0));
    }
}
