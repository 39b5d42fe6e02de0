//! Where reading of a partition starts. librdkafka would start at an end of the log when the committed offset is
//! gone and say nothing; so the place is decided here, from what the group has committed and what is there.

use millrace_core::{PartitionSpan, Start};

/// A decision.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// The first offset to read.
    pub next_offset: i64,
    /// The first lost offset, when what should come next is gone; the lost range ends at `next_offset`.
    pub gap_from: Option<i64>,
}

/// The decision for one partition, or none when progress lies beyond the end: going on would skip what is
/// appended next.
pub fn place(progress: Option<i64>, span: PartitionSpan, start: Start) -> Option<Place> {
    let at = |next_offset| Some(Place { next_offset, gap_from: None });
    match (progress, start) {
        (Some(next), _) if next > span.end => None,
        (Some(next), _) if next < span.start => Some(Place { next_offset: span.start, gap_from: Some(next) }),
        (Some(next), _) => at(next),
        (None, Start::Beginning) => at(span.start),
        (None, Start::End) => at(span.end),
        (None, Start::Offset(offset)) => at(offset.clamp(span.start, span.end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_skipped_in_silence() {
        let span = PartitionSpan { start: 5, end: 10 };
        let at = |next_offset| Some(Place { next_offset, gap_from: None });
        assert_eq!(place(None, span, Start::Beginning), at(5));
        assert_eq!(place(None, span, Start::End), at(10));
        assert_eq!(place(None, span, Start::Offset(7)), at(7));
        assert_eq!(place(None, span, Start::Offset(1)), at(5));
        assert_eq!(place(None, span, Start::Offset(70)), at(10));
        for start in [Start::Beginning, Start::End, Start::Offset(6)] {
            assert_eq!(place(Some(8), span, start), at(8));
            assert_eq!(place(Some(5), span, start), at(5));
            assert_eq!(place(Some(10), span, start), at(10));
            assert_eq!(place(Some(2), span, start), Some(Place { next_offset: 5, gap_from: Some(2) }));
            assert_eq!(place(Some(11), span, start), None);
        }
    }
}
