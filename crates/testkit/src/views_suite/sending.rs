//! Sending as the runtime does: encode, send, again on Retry, split on Reject.

use millrace_core::{Answer, Call, Class, Error, Message, Sink};

/// A call that fails this often with Retry fails its case.
const ATTEMPTS_MAX: usize = 200;

/// Encodes the messages as one batch and sends until every call is done or rejected. Gives the messages that
/// were rejected, by their place in the batch, in that order.
///
/// # Panics
/// When an answer is Fatal, when Retry does not end, or when the sink breaks its contract: an answer per call,
/// a message per op, and every message at most once among the rejected.
pub async fn send_all(sink: &dyn Sink, messages: &[Message]) -> Vec<(u32, Error)> {
    let encoded = sink.encode(messages);
    for op in encoded.calls.iter().flat_map(|call| &call.ops) {
        assert!(
            (op.message as usize) < messages.len(),
            "an op of message {}, which is not there",
            op.message
        );
    }
    let mut rejected = encoded.rejected;
    for (call, error) in send_calls(sink, encoded.calls).await {
        for part in call.split() {
            let place = part.ops[0].message;
            if call.ops.len() == 1 {
                rejected.push((place, Error::reject(error.who(), error.why())));
            } else {
                let again = send_calls(sink, vec![part]).await;
                rejected.extend(again.into_iter().map(|(_, error)| (place, error)));
            }
        }
    }
    for (place, error) in &rejected {
        assert_eq!(error.class(), Class::Reject, "message {place}: {}", error.chain());
    }
    rejected.sort_by_key(|(place, _)| *place);
    rejected.dedup_by_key(|(place, _)| *place);
    rejected
}

/// As [`send_all`], where nothing may be rejected.
pub(super) async fn send_clean(sink: &dyn Sink, messages: &[Message]) {
    let rejected = send_all(sink, messages).await;
    assert!(rejected.is_empty(), "rejected: {rejected:?}");
}

/// Sends until nothing asks to be retried; gives the calls that were rejected.
pub(super) async fn send_calls(sink: &dyn Sink, mut calls: Vec<Call>) -> Vec<(Call, Error)> {
    let mut rejected = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        if calls.is_empty() {
            return rejected;
        }
        let answers = sink.send(&calls).await;
        assert_eq!(answers.len(), calls.len(), "one answer per call");
        let mut again = Vec::new();
        for (call, answer) in calls.into_iter().zip(answers) {
            match answer {
                Answer::Done => {}
                Answer::Failed(error) => match error.class() {
                    Class::Retry => again.push(call),
                    Class::Reject => rejected.push((call, error)),
                    Class::Fatal => panic!("fatal: {}", error.chain()),
                },
            }
        }
        calls = again;
        tokio::task::yield_now().await;
    }
    assert!(calls.is_empty(), "{} calls were still asking for a retry after {ATTEMPTS_MAX}", calls.len());
    rejected
}
