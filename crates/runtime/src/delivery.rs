//! Handing encoded messages to a sink until each is done or rejected: tries, time-outs, narrowing.

use std::sync::Arc;

use millrace_core::{Answer, Call, Class, Encoded, Error, Origin};
use tokio::time::{Instant, timeout};

use crate::{
    attempts::{Attempts, Target},
    breaker::Breaker,
    dead_letter::Place,
    flow::{Context, Halt},
    pipeline::SinkPart,
};

/// Messages, by place, and why the sink does not take them.
type Rejected = Vec<(usize, Error)>;

/// A call that is not done, and why if it is to be tried again as it is.
type Pending = (Call, Option<Error>);

/// Delivers what was encoded of messages with these origins, and says which of them, by place, the sink rejects.
/// Returns only when all others are done.
pub(crate) async fn deliver(
    context: &Context,
    part: &SinkPart,
    origins: &[Arc<Origin>],
    encoded: Encoded,
) -> Result<Rejected, Halt> {
    let mut rejected: Rejected =
        encoded.rejected.into_iter().map(|(index, error)| (index as usize, error)).collect();
    let place = Place::Sink(part.id.sink.clone());
    let target =
        Target { place: &place, breaker: &part.breaker, ledger: part.ledger.as_ref(), retry: part.retry };
    let mut attempts = Attempts::new(context, target);
    let mut calls = encoded.calls;
    while let Some(first) = calls.first() {
        let origin = |call: &Call| call.ops.first().map(|op| &*origins[op.message as usize]);
        let permit = match attempts.admitted(origin(first)).await? {
            Ok(permit) => permit,
            Err(error) => {
                calls.drain(..).for_each(|call| bury(&call, &error, &mut rejected));
                break;
            }
        };
        let answers = send(context, part, &calls).await;
        if !part.ledger.as_ref().is_some_and(Breaker::is_failing) {
            permit.answered(failure(&answers));
        }
        let pending = sort(calls, answers, &mut rejected)?;
        let again = pending.iter().find_map(|(call, error)| Some((call, error.as_ref()?)));
        let given_up = match again {
            Some((call, error)) => attempts.failed(error, origin(call)).await?,
            None => None,
        };
        calls = Vec::with_capacity(pending.len());
        for (call, error) in pending {
            match (&given_up, error) {
                (Some(given_up), Some(_)) => bury(&call, given_up, &mut rejected),
                _ => calls.push(call),
            }
        }
        if given_up.is_some() {
            attempts.begin_again();
        }
    }
    context.recovered();
    let done = origins.len() - rejected.len().min(origins.len());
    context.metrics.outputs.with_label_values(&[&*part.id.pipeline, &*part.id.sink]).inc_by(done as u64);
    Ok(rejected)
}

/// Sends in rounds of as many calls as the sink takes at once. After a round of which nothing was done the system is
/// away, or the partition lost: the rest is not tried.
async fn send(context: &Context, part: &SinkPart, calls: &[Call]) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(calls.len());
    for round in calls.chunks(part.sink.calls_max().max(1)) {
        let round = send_round(context, part, round).await;
        let is_away =
            round.iter().all(|answer| matches!(answer, Answer::Failed(e) if e.class() == Class::Retry));
        answers.extend(round);
        if is_away || !context.lease.is_valid() {
            break;
        }
    }
    let left = calls.get(answers.len()..).unwrap_or_default();
    answers.extend(failed(left, || Error::retry(part.id.to_string(), "not tried after a failure")));
    answers
}

async fn send_round(context: &Context, part: &SinkPart, calls: &[Call]) -> Vec<Answer> {
    let started = Instant::now();
    let answers = match timeout(part.timeout, part.sink.send(calls)).await {
        Ok(answers) if answers.len() == calls.len() => answers,
        Ok(answers) => {
            let why = format!("answered {} of {} calls", answers.len(), calls.len());
            failed(calls, || Error::fatal(part.id.to_string(), why.clone()))
        }
        Err(_) => {
            let why = format!("{}: no answer within {} ms", part.id, part.timeout.as_millis());
            failed(calls, || Error::retry(part.breaker.endpoint(), why.clone()))
        }
    };
    let labels = [&*part.id.pipeline, &*part.id.sink];
    context.metrics.sink_seconds.with_label_values(&labels).observe(started.elapsed().as_secs_f64());
    answers
}

fn failed(calls: &[Call], error: impl Fn() -> Error) -> Vec<Answer> {
    calls.iter().map(|_| Answer::Failed(error())).collect()
}

/// What the answers say of the system: it has failed when no call had any other answer than Retry.
fn failure(answers: &[Answer]) -> Option<&Error> {
    answers.iter().map(of_retry).collect::<Option<Vec<_>>>()?.first().copied()
}

fn of_retry(answer: &Answer) -> Option<&Error> {
    match answer {
        Answer::Failed(error) if error.class() == Class::Retry => Some(error),
        Answer::Done | Answer::Failed(_) => None,
    }
}

/// What is left to do, in order. A rejected call of several ops comes again op by op.
fn sort(calls: Vec<Call>, answers: Vec<Answer>, rejected: &mut Rejected) -> Result<Vec<Pending>, Halt> {
    let mut pending = Vec::new();
    for (call, answer) in calls.into_iter().zip(answers) {
        match answer {
            Answer::Done => {}
            Answer::Failed(error) => match error.class() {
                Class::Fatal => return Err(Halt::Fatal(error)),
                Class::Retry => pending.push((call, Some(error))),
                Class::Reject if call.ops.len() > 1 => pending.extend(call.split().map(|op| (op, None))),
                Class::Reject => {
                    rejected.extend(call.ops.iter().map(|op| op.message as usize).zip([error]));
                }
            },
        }
    }
    Ok(pending)
}

/// Gives a call up: all its messages are rejected for the same reason.
fn bury(call: &Call, error: &Error, rejected: &mut Rejected) {
    let copy = || Error::new(error.class(), error.who(), error.why());
    rejected.extend(call.ops.iter().map(|op| (op.message as usize, copy())));
}
