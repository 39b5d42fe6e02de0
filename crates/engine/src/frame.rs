//! Which messages go into one call, and how their offsets and timestamps are told to the guest.

use millrace_core::Message;

use crate::abi::{Base, DELTA_MAX, Input, RecordIn, RecordsInput};

/// Messages from the front of a batch that share one call.
///
/// Guests compute `base + delta` and answer the delta of the record an output was made of. The deltas are the real
/// ones where the source offsets ascend strictly; after a fan-out several messages share an offset, and only the
/// message's index is unambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// How many messages, at least one.
    pub(crate) len: usize,
    pub(crate) base: Base,
    real_offsets: bool,
}

impl Frame {
    /// Cuts where bytes, offset deltas or timestamp deltas leave their range. `messages` is not empty.
    pub(crate) fn cut(messages: &[Message], bytes_max: usize) -> Self {
        let first = &messages[0];
        let mut frame = Frame {
            len: 0,
            base: Base { offset: first.offset(), timestamp_ms: timestamp_ms(first) },
            real_offsets: true,
        };
        let mut bytes = 0_usize;
        let mut newest_ms = frame.base.timestamp_ms;
        let mut previous = None;
        for message in messages {
            bytes = bytes.saturating_add(message.size_bytes());
            let oldest_ms = frame.base.timestamp_ms.min(timestamp_ms(message));
            newest_ms = newest_ms.max(timestamp_ms(message));
            let fits = bytes <= bytes_max
                && newest_ms.saturating_sub(oldest_ms) <= DELTA_MAX
                && message.offset().saturating_sub(frame.base.offset) <= DELTA_MAX;
            if frame.len > 0 && !fits {
                break;
            }
            frame.real_offsets &= previous.is_none_or(|previous| previous < message.offset());
            previous = Some(message.offset());
            frame.base.timestamp_ms = oldest_ms;
            frame.len += 1;
        }
        frame
    }

    /// The messages of the frame as the input of a call.
    pub(crate) fn input<'a>(&self, messages: &'a [Message], accumulator: Option<&'a [u8]>) -> impl Input {
        let records = messages.iter().enumerate().map(|(index, message)| self.record(index, message));
        RecordsInput::new(self.base, records, accumulator)
    }

    /// The message at `index` as it is encoded.
    fn record<'a>(&self, index: usize, message: &'a Message) -> RecordIn<'a> {
        RecordIn {
            timestamp_delta: timestamp_ms(message) - self.base.timestamp_ms,
            offset_delta: self.offset_delta(index, message),
            key: message.key.as_deref(),
            value: &message.value,
        }
    }

    /// The delta by which the guest knows the message at `index`.
    pub(crate) fn offset_delta(&self, index: usize, message: &Message) -> i64 {
        if self.real_offsets {
            message.offset() - self.base.offset
        } else {
            i64::try_from(index).expect("invariant: an index of a call fits")
        }
    }
}

fn timestamp_ms(message: &Message) -> i64 {
    message.origin.record.timestamp_ms
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use millrace_core::{Envelope, Origin, Record};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn message(offset: i64, timestamp_ms: i64) -> Message {
        let record = Record {
            topic: "t".into(),
            partition: 0,
            offset,
            timestamp_ms,
            key: None,
            value: Some("v".into()),
            headers: [].into(),
        };
        Message::first(Arc::new(Origin { record, envelope: Envelope::default() }))
    }

    fn messages(records: &[(i64, i64)]) -> Vec<Message> {
        records.iter().map(|(offset, timestamp_ms)| message(*offset, *timestamp_ms)).collect()
    }

    fn deltas(batch: &[Message], frame: &Frame) -> Vec<(i64, i64)> {
        let records =
            batch[..frame.len].iter().enumerate().map(|(index, message)| frame.record(index, message));
        records.map(|record| (record.offset_delta, record.timestamp_delta)).collect()
    }

    #[test]
    fn guests_see_real_offsets_where_they_ascend_and_times_from_the_oldest() {
        let batch = messages(&[(7, 100), (9, 90), (12, 200)]);
        let frame = Frame::cut(&batch, usize::MAX);
        assert_eq!(frame.base, Base { offset: 7, timestamp_ms: 90 });
        assert_eq!(deltas(&batch, &frame), [(0, 10), (2, 0), (5, 110)]);
    }

    #[test]
    fn messages_of_one_record_are_told_apart_by_index() {
        let batch = messages(&[(7, 1), (7, 1), (8, 1)]);
        assert_eq!(deltas(&batch, &Frame::cut(&batch, usize::MAX)), [(0, 0), (1, 0), (2, 0)]);
    }

    #[test]
    fn a_call_ends_where_a_delta_would_not_fit() {
        let far = i64::from(i32::MAX);
        let cut = |records: &[(i64, i64)]| Frame::cut(&messages(records), usize::MAX).len;
        assert_eq!(cut(&[(0, 0), (1, far), (2, far)]), 3);
        assert_eq!(cut(&[(0, 0), (1, far + 1)]), 1);
        assert_eq!(cut(&[(0, far), (1, far + 5), (2, 0)]), 2, "an older record later on counts as well");
        assert_eq!(cut(&[(0, -1), (1, 1_700_000_000_000)]), 1, "no timestamp beside one");
        assert_eq!(cut(&[(0, 0), (far, 0), (far + 1, 0)]), 2);
        assert_eq!(cut(&[(0, i64::MIN), (1, i64::MAX)]), 1);
    }

    #[test]
    fn a_call_ends_where_its_bytes_do_and_a_larger_record_goes_alone() {
        let batch = messages(&[(0, 0), (1, 0), (2, 0)]);
        let one = batch[0].size_bytes();
        assert_eq!(Frame::cut(&batch, 2 * one).len, 2);
        assert_eq!(Frame::cut(&batch, 1).len, 1);
    }

    proptest! {
        #[test]
        fn deltas_are_distinct_ascending_and_small(records in vec((any::<i64>(), any::<i64>()), 1..20)) {
            let batch = messages(&records);
            let frame = Frame::cut(&batch, usize::MAX);
            let deltas = deltas(&batch, &frame);
            prop_assert!(deltas.windows(2).all(|pair| pair[0].0 < pair[1].0));
            for (offset, timestamp) in deltas {
                prop_assert!((0..=DELTA_MAX).contains(&offset));
                prop_assert!((0..=DELTA_MAX).contains(&timestamp));
            }
        }
    }
}
