//! Handing messages to a sink until each is done or rejected: time-outs, retries, narrowing.

use std::collections::VecDeque;

use millrace_core::{Answer, Call, Class, Error, Message, Ordinals};
use tokio::time::{Instant, timeout};

use crate::{flow::Context, flow::Halt, pipeline::SinkPart};

/// Delivers and says which messages, by place, the sink rejects. Returns only when all others are done.
pub(crate) async fn deliver(
    context: &Context,
    part: &SinkPart,
    messages: &[Message],
    ordinals: &mut Ordinals,
) -> Result<Vec<(usize, Error)>, Halt> {
    let encoded = part.sink.encode_part(messages, ordinals);
    let mut rejected: Vec<(usize, Error)> =
        encoded.rejected.into_iter().map(|(index, error)| (index as usize, error)).collect();
    let mut pending = VecDeque::from(encoded.calls);
    let mut backoff = context.backoff();
    while !pending.is_empty() {
        context.wait_for_lease().await?;
        let round = send(context, part, pending.make_contiguous()).await;
        let mut retry: Option<Error> = None;
        let mut next = VecDeque::new();
        for (call, answer) in pending.drain(..).zip(round) {
            match answer {
                Answer::Done => {}
                Answer::Failed(error) => match error.class() {
                    Class::Fatal => return Err(Halt::Fatal(error)),
                    Class::Retry => {
                        retry.get_or_insert(error);
                        next.push_back(call);
                    }
                    Class::Reject if call.ops.len() > 1 => next.extend(call.split()),
                    Class::Reject => {
                        rejected.extend(call.ops.iter().map(|op| op.message as usize).zip([error]));
                    }
                },
            }
        }
        pending = next;
        if let Some(error) = retry {
            context.retry(&part.id.sink, &error, &mut backoff).await?;
        }
    }
    context.health.recovered(&context.pipeline.name);
    let done = messages.len() - rejected.len().min(messages.len());
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
            let why = format!("no answer within {} ms", part.timeout.as_millis());
            failed(calls, || Error::retry(part.id.to_string(), why.clone()))
        }
    };
    let labels = [&*part.id.pipeline, &*part.id.sink];
    context.metrics.sink_seconds.with_label_values(&labels).observe(started.elapsed().as_secs_f64());
    answers
}

fn failed(calls: &[Call], error: impl Fn() -> Error) -> Vec<Answer> {
    calls.iter().map(|_| Answer::Failed(error())).collect()
}
