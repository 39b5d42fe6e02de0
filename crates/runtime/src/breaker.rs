//! A circuit breaker per system: where calls fail again and again nobody calls any more, until one call shows
//! that the system is back. What waits is not lost: queues fill, and their sources hold back.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

use millrace_core::{Class, Error, Result};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::{Notify, futures::OwnedNotified},
    time::{Duration, Instant, sleep_until, timeout},
};

use crate::{
    clock::Clock,
    health::{BreakerState, Endpoint, Health},
    metrics::Metrics,
};

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it is open the first time; each further time in a row doubles it.
    pub open_for: Duration,
    /// The longest it is open.
    pub open_for_max: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        BreakerPolicy { failures: 5, open_for: Duration::from_secs(1), open_for_max: Duration::from_secs(30) }
    }
}

/// The breaker of one system, shared by all who call it in this process. Cloning shares it.
///
/// Only an error of class Retry is a failure: a system that refuses has answered.
#[derive(Clone)]
pub struct Breaker {
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Arc<str>,
    policy: BreakerPolicy,
    state: Mutex<State>,
    /// Told at every change of the gate, for those that wait; in their order, as a watch channel would not.
    changed: Arc<Notify>,
    observer: OnceLock<Observer>,
}

struct State {
    gate: Gate,
    /// Counts the changes of the gate, so that answers of calls from before one can be told apart.
    epoch: u64,
    failures: u32,
    /// How often it opened since it was closed.
    opened: u32,
    since_ms: i64,
    last_error: Option<String>,
    rng: SmallRng,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

/// Where its changes are told.
struct Observer {
    health: Health,
    metrics: Metrics,
    clock: Clock,
}

/// The right to make one call. Dropped without an answer, the call says nothing about the system.
pub(crate) struct Permit {
    breaker: Breaker,
    epoch: u64,
    answered: bool,
}

/// Why no call may be made now.
pub(crate) struct Held {
    endpoint: Arc<str>,
    why: String,
    /// None: another call is under way to find out.
    until: Option<Instant>,
    changed: OwnedNotified,
}

impl Breaker {
    /// A closed breaker. `endpoint` names the system for people: "store feeds". The seed makes the jitter
    /// repeatable; processes differ in it.
    pub fn new(endpoint: impl Into<Arc<str>>, policy: BreakerPolicy, seed: u64) -> Self {
        let state = State {
            gate: Gate::Closed,
            epoch: 0,
            failures: 0,
            opened: 0,
            since_ms: 0,
            last_error: None,
            rng: SmallRng::seed_from_u64(seed),
        };
        Breaker {
            shared: Arc::new(Shared {
                endpoint: endpoint.into(),
                policy,
                state: Mutex::new(state),
                changed: Arc::default(),
                observer: OnceLock::new(),
            }),
        }
    }

    /// The system's name.
    pub fn endpoint(&self) -> &str {
        &self.shared.endpoint
    }

    /// From now on its changes are told there. Only the first call has an effect.
    pub(crate) fn observe(&self, health: &Health, metrics: &Metrics, clock: &Clock) {
        let mut state = self.lock();
        let observer = Observer { health: health.clone(), metrics: metrics.clone(), clock: clock.clone() };
        if self.shared.observer.set(observer).is_ok() {
            state.since_ms = clock.now_ms();
            self.tell(&state);
        }
    }

    /// Makes a call if it may be made now, and takes note of its answer.
    ///
    /// # Errors
    /// The call's; Retry when it may not be made, or has not answered within `limit`. `what` names it for people.
    pub(crate) async fn call<T>(
        &self,
        limit: Duration,
        what: &str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let permit = self.try_admit().map_err(|held| held.error())?;
        permit.make(limit, what, call).await
    }

    /// The right to make a call now.
    pub(crate) fn try_admit(&self) -> Result<Permit, Held> {
        let mut state = self.lock();
        if let Some(held) = self.held(&state) {
            return Err(held);
        }
        if matches!(state.gate, Gate::Open { .. }) {
            self.shift(&mut state, Gate::HalfOpen);
        }
        Ok(Permit { breaker: self.clone(), epoch: state.epoch, answered: false })
    }

    /// Whether a call could be made now.
    pub(crate) fn check(&self) -> Result<(), Held> {
        self.held(&self.lock()).map_or(Ok(()), Err)
    }

    /// Whether the last call failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.lock().failures > 0
    }

    fn held(&self, state: &State) -> Option<Held> {
        let until = match state.gate {
            Gate::Closed => return None,
            Gate::Open { until } if until <= Instant::now() => return None,
            Gate::Open { until } => Some(until),
            Gate::HalfOpen => None,
        };
        Some(Held {
            endpoint: self.shared.endpoint.clone(),
            why: state.last_error.clone().unwrap_or_default(),
            until,
            changed: self.shared.changed.clone().notified_owned(),
        })
    }

    fn answered(&self, epoch: u64, failure: Option<&Error>) {
        let mut state = self.lock();
        if state.epoch != epoch {
            return;
        }
        match failure {
            None if state.gate == Gate::Closed && state.failures == 0 => {}
            None => {
                (state.failures, state.opened) = (0, 0);
                match state.gate {
                    Gate::Closed => self.tell(&state),
                    _ => self.shift(&mut state, Gate::Closed),
                }
            }
            Some(error) => {
                state.failures = state.failures.saturating_add(1);
                state.last_error = Some(error.chain());
                if state.gate == Gate::Closed && state.failures < self.shared.policy.failures {
                    self.tell(&state);
                } else {
                    self.open(&mut state);
                }
            }
        }
    }

    fn open(&self, state: &mut State) {
        let BreakerPolicy { open_for, open_for_max, .. } = self.shared.policy;
        let bound = open_for.saturating_mul(1 << state.opened.min(20)).min(open_for_max);
        state.opened = state.opened.saturating_add(1);
        // Between half of it and the whole, so that the processes of a group do not come back at once.
        let until = Instant::now() + bound.mul_f64(state.rng.random_range(0.5..=1.0));
        self.shift(state, Gate::Open { until });
        if let Some(observer) = self.shared.observer.get() {
            observer.metrics.breaker_opened.with_label_values(&[self.endpoint()]).inc();
        }
        let (endpoint, failures) = (self.endpoint(), state.failures);
        tracing::warn!(
            endpoint,
            failures,
            error = state.last_error,
            "no calls for {} ms",
            (until - Instant::now()).as_millis()
        );
    }

    fn shift(&self, state: &mut State, gate: Gate) {
        let waiting_over = gate == Gate::Closed;
        (state.gate, state.epoch) = (gate, state.epoch + 1);
        if let Some(observer) = self.shared.observer.get() {
            state.since_ms = observer.clock.now_ms();
        }
        self.tell(state);
        self.shared.changed.notify_waiters();
        if waiting_over {
            tracing::info!(endpoint = self.endpoint(), "answers again");
        }
    }

    fn tell(&self, state: &State) {
        let Some(observer) = self.shared.observer.get() else { return };
        let (breaker, number) = match state.gate {
            Gate::Closed => (BreakerState::Closed, 0),
            Gate::HalfOpen => (BreakerState::HalfOpen, 1),
            Gate::Open { .. } => (BreakerState::Open, 2),
        };
        observer.metrics.breaker_state.with_label_values(&[self.endpoint()]).set(number);
        let endpoint = Endpoint {
            breaker,
            since_ms: state.since_ms,
            failures: state.failures,
            last_error: state.last_error.clone(),
        };
        observer.health.set_endpoint(&self.shared.endpoint, endpoint);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("invariant: nobody panics while holding a breaker's lock")
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Breaker({})", self.endpoint())
    }
}

impl Permit {
    /// Makes the call, within `limit`, and takes note of its answer.
    pub(crate) async fn make<T>(
        self,
        limit: Duration,
        what: &str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let answer = within(limit, self.breaker.endpoint(), what, call).await;
        self.answered(answer.as_ref().err());
        answer
    }

    /// The call was answered, or failed with this.
    pub(crate) fn answered(mut self, failure: Option<&Error>) {
        self.answered = true;
        self.breaker.answered(self.epoch, failure.filter(|error| error.class() == Class::Retry));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let mut state = self.breaker.lock();
        if state.epoch == self.epoch && state.gate == Gate::HalfOpen {
            self.breaker.shift(&mut state, Gate::Open { until: Instant::now() });
        }
    }
}

impl Held {
    /// Returns when it is worth asking again. Cancel-safe.
    pub(crate) async fn over(self) {
        match self.until {
            None => self.changed.await,
            Some(until) => tokio::select! {
                biased;
                () = self.changed => {}
                () = sleep_until(until) => {}
            },
        }
    }

    /// What to tell a caller that does not wait.
    pub(crate) fn error(&self) -> Error {
        Error::retry(&*self.endpoint, format!("is not called for a while, it failed last by: {}", self.why))
    }
}

/// The answer of a call, or Retry when there was none in time.
pub(crate) async fn within<T>(
    limit: Duration,
    who: &str,
    what: &str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    timeout(limit, call).await.unwrap_or_else(|_| {
        Err(Error::retry(who, format!("{what}: no answer within {} ms", limit.as_millis())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> (Breaker, Health, Metrics) {
        let policy = BreakerPolicy {
            failures: 3,
            open_for: Duration::from_secs(1),
            open_for_max: Duration::from_secs(4),
        };
        let (breaker, health, metrics) =
            (Breaker::new("store s", policy, 7), Health::default(), Metrics::new());
        breaker.observe(&health, &metrics, &Clock::fixed(5));
        (breaker, health, metrics)
    }

    fn fail(breaker: &Breaker) {
        let permit = breaker.try_admit().ok().expect("admitted");
        permit.answered(Some(&Error::retry("s", "away")));
    }

    fn state(health: &Health) -> BreakerState {
        health.endpoints()["store s"].breaker
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_in_a_row_and_only_then() {
        let (breaker, health, metrics) = breaker();
        assert_eq!(state(&health), BreakerState::Closed);
        fail(&breaker);
        fail(&breaker);
        breaker.try_admit().ok().expect("admitted").answered(Some(&Error::reject("s", "no")));
        assert!(!breaker.is_failing(), "a refusal is an answer");
        (0..3).for_each(|_| fail(&breaker));
        assert_eq!(state(&health), BreakerState::Open);
        assert_eq!(health.endpoints()["store s"].last_error.as_deref(), Some("s: away"));
        let held = breaker.try_admit().err().expect("held");
        assert!(held.error().chain().ends_with("failed last by: s: away"));
        let text = metrics.render();
        assert!(text.contains(r#"millrace_breaker_state{endpoint="store s"} 2"#), "{text}");
        assert!(text.contains(r#"millrace_breaker_opened_total{endpoint="store s"} 1"#), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn half_open_lets_one_call_through_and_waits_longer_each_time() {
        let (breaker, health, _) = breaker();
        (0..3).for_each(|_| fail(&breaker));
        for bound_ms in [1_000, 2_000, 4_000, 4_000] {
            let before = Instant::now();
            breaker.try_admit().err().expect("held").over().await;
            let waited = before.elapsed();
            let bound = Duration::from_millis(bound_ms + 1);
            assert!(
                waited <= bound && waited >= bound / 2 - Duration::from_millis(1),
                "{waited:?} of {bound:?}"
            );
            let trial = breaker.try_admit().ok().expect("admitted");
            assert_eq!(state(&health), BreakerState::HalfOpen);
            let held = breaker.try_admit().err().expect("one at a time");
            trial.answered(Some(&Error::retry("s", "away")));
            // Told at once that the trial is over.
            held.over().await;
        }
        breaker.try_admit().err().expect("held").over().await;
        breaker.try_admit().ok().expect("admitted").answered(None);
        assert_eq!(state(&health), BreakerState::Closed);
        fail(&breaker);
        fail(&breaker);
        assert_eq!(state(&health), BreakerState::Closed, "it counts from zero again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_is_given_up_leaves_its_place_to_the_next() {
        let (breaker, health, _) = breaker();
        (0..3).for_each(|_| fail(&breaker));
        breaker.try_admit().err().expect("held").over().await;
        let trial = breaker.try_admit().ok().expect("admitted");
        let held = breaker.try_admit().err().expect("one at a time");
        drop(trial);
        held.over().await;
        breaker.try_admit().ok().expect("admitted").answered(None);
        assert_eq!(state(&health), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_from_before_a_change_do_not_count() {
        let (breaker, health, _) = breaker();
        let early = [breaker.try_admit(), breaker.try_admit()];
        (0..3).for_each(|_| fail(&breaker));
        let [first, second] = early.map(|permit| permit.ok().expect("admitted"));
        first.answered(None);
        assert_eq!(state(&health), BreakerState::Open);
        breaker.try_admit().err().expect("held").over().await;
        let trial = breaker.try_admit().ok().expect("admitted");
        second.answered(Some(&Error::retry("s", "late")));
        assert_eq!(state(&health), BreakerState::HalfOpen);
        trial.answered(None);
        assert_eq!(state(&health), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_says_who_and_how_long() {
        let (breaker, health, _) = breaker();
        let never = std::future::pending::<Result<()>>();
        let error = breaker.call(Duration::from_secs(2), "prepare sink:x", never).await.expect_err("late");
        assert_eq!(error.to_string(), "store s: prepare sink:x: no answer within 2000 ms");
        assert_eq!(health.endpoints()["store s"].failures, 1);
    }
}
