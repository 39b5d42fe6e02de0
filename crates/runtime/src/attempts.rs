//! The tries of one call until it has an answer: let through by the breaker, under a lease and a time-out, with
//! waits between them and a budget for all of them.

use std::fmt::Display;

use millrace_core::{Class, Error, Origin, Result};
use tokio::time::{Duration, Instant, sleep, sleep_until};

use crate::{
    backoff::{Backoff, Exhausted, RetryPolicy},
    breaker::{Breaker, Held, Permit},
    flow::{Context, Halt},
    steering::HeldBy,
};

/// How much later than others he asks again whose call has just failed: one whose calls always fail must not take
/// every trial of a system that others could use.
const TURN: Duration = Duration::from_millis(100);

/// What is called, from where.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The place in the pipeline, for people: `sink:feeds`.
    pub(crate) place: &'a (dyn Display + Sync),
    /// The system's.
    pub(crate) breaker: &'a Breaker,
    /// That of the ledger the call needs.
    pub(crate) ledger: Option<&'a Breaker>,
    pub(crate) retry: RetryPolicy,
}

/// One call and its tries so far.
pub(crate) struct Attempts<'a> {
    context: &'a Context,
    target: Target<'a>,
    backoff: Backoff,
    since: Instant,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(context: &'a Context, target: Target<'a>) -> Self {
        let backoff = Backoff::new(target.retry, context.seed());
        Attempts { context, target, backoff, since: Instant::now() }
    }

    /// Calls until there is an answer. The inner error is the records' at hand: the call is refused, or was
    /// tried for too long.
    pub(crate) async fn call<T, F>(
        &mut self,
        origin: Option<&Origin>,
        call: impl Fn() -> F,
    ) -> Result<Result<T>, Halt>
    where
        F: Future<Output = Result<T>>,
    {
        loop {
            match self.once(origin, call()).await? {
                Ok(None) => {}
                Ok(Some(answer)) => return Ok(Ok(answer)),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// One try of a call that begins anew where the last one ended. None: it has failed, and is to be tried again.
    pub(crate) async fn once<T>(
        &mut self,
        origin: Option<&Origin>,
        call: impl Future<Output = Result<T>>,
    ) -> Result<Result<Option<T>>, Halt> {
        let permit = match self.admitted(origin).await? {
            Ok(permit) => permit,
            Err(error) => return Ok(Err(error)),
        };
        let limit = self.context.pipeline.limits.call_timeout;
        match permit.make(limit, &self.target.place.to_string(), call).await {
            Ok(answer) => {
                self.succeeded();
                Ok(Ok(Some(answer)))
            }
            Err(error) => match error.class() {
                Class::Fatal => Err(Halt::Fatal(error)),
                Class::Reject => Ok(Err(error)),
                Class::Retry => Ok(self.failed(&error, origin).await?.map_or(Ok(None), Err)),
            },
        }
    }

    /// Waits until a try may be made. The inner error: the budget is spent, and the records are to be buried.
    pub(crate) async fn admitted(&mut self, origin: Option<&Origin>) -> Result<Result<Permit>, Halt> {
        loop {
            self.context.wait_for_lease().await?;
            let ready = self.target.ledger.map_or(Ok(()), Breaker::check);
            let held = match ready.and_then(|()| self.target.breaker.try_admit()) {
                Ok(permit) => return Ok(Ok(permit)),
                Err(held) => held,
            };
            self.context.stop_if_told()?;
            let error = held.error();
            self.context.retrying(&error);
            tokio::select! {
                biased;
                () = self.context.drain.cancelled() => return Err(Halt::Stopped),
                () = self.budget_spent() => {
                    if let Some(error) = self.give_up(&error, origin).await? {
                        return Ok(Err(error));
                    }
                }
                () = held.over() => {}
            }
        }
    }

    /// Takes note of a failure and waits before the next try. An error: the budget is spent, and the records are
    /// to be buried with it.
    pub(crate) async fn failed(
        &mut self,
        error: &Error,
        origin: Option<&Origin>,
    ) -> Result<Option<Error>, Halt> {
        let (context, place) = (self.context, self.target.place.to_string());
        let name = &context.pipeline.name;
        context.metrics.retries.with_label_values(&[&**name, &place]).inc();
        context.retrying(error);
        context.note_error(&place, error, origin);
        let wait = self.backoff.next_wait();
        if self.backoff.tries().is_power_of_two() {
            tracing::warn!(
                pipeline = &**name, partition = context.partition, place, tries = self.backoff.tries(),
                error = %error.chain(), "trying again"
            );
        }
        context.stop_if_told()?;
        let held = self.target.breaker.check().err();
        tokio::select! {
            biased;
            () = context.drain.cancelled() => Err(Halt::Stopped),
            () = self.budget_spent() => self.give_up(error, origin).await,
            // The system may be back sooner than the wait is over.
            () = behind_others(held) => Ok(None),
            () = sleep(wait) => Ok(None),
        }
    }

    /// As [`Attempts::failed`] for an error of class Retry; any other halts the worker.
    pub(crate) async fn failed_or_halt(&mut self, error: Error) -> Result<(), Halt> {
        match error.class() {
            Class::Retry => self.failed(&error, None).await?.map_or(Ok(()), |error| Err(Halt::Fatal(error))),
            Class::Reject | Class::Fatal => Err(Halt::Fatal(error)),
        }
    }

    /// What follows is another call's.
    pub(crate) fn begin_again(&mut self) {
        self.backoff.reset();
        self.since = Instant::now();
    }

    fn succeeded(&self) {
        self.context.recovered();
    }

    async fn budget_spent(&self) {
        match self.target.retry.budget {
            Some(budget) => sleep_until(self.since + budget).await,
            None => std::future::pending().await,
        }
    }

    /// What the policy says when the budget is spent: the records go, or the pipeline waits for a person.
    async fn give_up(&mut self, error: &Error, origin: Option<&Origin>) -> Result<Option<Error>, Halt> {
        let place = self.target.place.to_string();
        let tried = tried_for(self.since.elapsed());
        match self.target.retry.exhausted {
            Exhausted::DeadLetters => {
                let error = Error::retry(place, format!("given up, {tried}: {}", error.chain()));
                Ok(Some(error))
            }
            Exhausted::Pause => {
                self.context.note_error(&place, error, origin);
                let reason = format!("{place}: {tried}: {}", error.chain());
                self.context.pause(HeldBy::RetryBudget, reason).await?;
                self.begin_again();
                Ok(None)
            }
        }
    }
}

/// Waits for what holds calls back, and lets those go first who wait for it too; for ever where nothing does.
async fn behind_others(held: Option<Held>) {
    match held {
        Some(held) => {
            held.over().await;
            sleep(TURN).await;
        }
        None => std::future::pending().await,
    }
}

fn tried_for(time: Duration) -> String {
    format!("tried for {} ms", time.as_millis())
}
