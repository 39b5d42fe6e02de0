//! Between a process and a system: what a request may meet with.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
};

use millrace_core::{Error, Result};
use tokio::{
    sync::oneshot,
    time::{Duration, Instant, timeout},
};

use super::{process::Process, world::World};

/// The longest that a client waits for an answer where the runtime sets no time-out of its own.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// What a request does where it arrives.
pub(super) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A server, which may be away. Cloning shares it.
#[derive(Clone)]
pub struct System {
    name: Arc<str>,
    outage: Arc<Mutex<Option<Outage>>>,
}

#[derive(Clone, Copy)]
struct Outage {
    until: Instant,
    /// Requests wait inside and are served afterwards, instead of being refused.
    stalls: bool,
}

enum Fate {
    Plain,
    Refused,
    Lost,
    Unanswered(u64),
    Late(u64),
}

impl System {
    /// A server that is up.
    pub fn new(name: &str) -> Self {
        System { name: name.into(), outage: Arc::default() }
    }

    /// Its name in the trace and in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes it away for a while. One that stalls accepts requests and serves them when it is back.
    pub fn take_away(&self, ms: u64, stalls: bool) {
        let outage = Outage { until: Instant::now() + Duration::from_millis(ms), stalls };
        *self.outage.lock().expect("invariant: no panic under the lock") = Some(outage);
    }

    fn outage(&self) -> Option<Outage> {
        let outage = *self.outage.lock().expect("invariant: no panic under the lock");
        outage.filter(|outage| outage.until > Instant::now())
    }
}

impl World {
    fn fate(&self, to: &System) -> Fate {
        let faults = self.faults();
        let late = |faults: super::Faults| 1 + self.below(faults.late_ms_max);
        if let Some(outage) = to.outage() {
            let left = outage.until.saturating_duration_since(Instant::now()).as_millis();
            return match outage.stalls {
                true => Fate::Late(u64::try_from(left).unwrap_or(0) + self.below(50)),
                false => Fate::Refused,
            };
        }
        if self.chance(faults.refused) {
            Fate::Refused
        } else if self.chance(faults.lost) {
            Fate::Lost
        } else if self.chance(faults.unanswered) {
            Fate::Unanswered(late(faults))
        } else if self.chance(faults.late) {
            Fate::Late(late(faults))
        } else {
            Fate::Plain
        }
    }

    /// One request. The answer may never come; the work may be done late, or although nobody waits any more.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        from: &Process,
        to: &System,
        what: &str,
        work: Work<T>,
    ) -> Result<T> {
        from.running().await;
        let answer = match self.fate(to) {
            Fate::Plain => {
                self.latency().await;
                let answer = work.await;
                self.latency().await;
                Ok(answer)
            }
            Fate::Refused => {
                self.note(|| format!("{} → {}: {what} refused", from.name(), to.name()));
                self.latency().await;
                Err(Error::retry(to.name(), "connection refused"))
            }
            Fate::Lost => {
                self.note(|| format!("{} → {}: {what} lost", from.name(), to.name()));
                std::future::pending().await
            }
            Fate::Unanswered(ms) => {
                self.note(|| format!("{} → {}: {what} in {ms} ms, unanswered", from.name(), to.name()));
                drop(self.later(ms, work));
                self.latency().await;
                if self.chance(0.5) {
                    std::future::pending().await
                } else {
                    Err(Error::retry(to.name(), "connection reset"))
                }
            }
            Fate::Late(ms) => {
                self.note(|| format!("{} → {}: {what} in {ms} ms", from.name(), to.name()));
                let answer = self.later(ms, work).await;
                answer.map_err(|_| Error::retry(to.name(), "connection reset"))
            }
        };
        from.running().await;
        answer
    }

    /// As [`World::ask`], for clients that wait only so long.
    pub(super) async fn ask_in_time<T: Send + 'static>(
        &self,
        from: &Process,
        to: &System,
        what: &str,
        work: Work<T>,
    ) -> Result<T> {
        let answer = timeout(CLIENT_TIMEOUT, self.ask(from, to, what, work)).await;
        answer.unwrap_or_else(|_| Err(Error::retry(to.name(), "no answer in time")))
    }

    /// Has the work done on its own, some time from now.
    fn later<T: Send + 'static>(&self, ms: u64, work: Work<T>) -> oneshot::Receiver<T> {
        let (tell, told) = oneshot::channel();
        let world = self.clone();
        tokio::spawn(async move {
            world.wait(ms).await;
            // Nobody may wait for it any more.
            let _ = tell.send(work.await);
        });
        told
    }
}
