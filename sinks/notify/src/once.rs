//! Delivers each effect once, as far as a ledger allows: claim, send, done.
//!
//! A receiver that acknowledged is never sent to again while the ledger remembers. A process that dies between
//! the acknowledgement and `done` leaves its claim behind: when that has run out, the effect is sent a second time
//! with the same identity, by which the receiver can tell.

use std::{collections::HashMap, future::Future, sync::Arc};

use bytes::Bytes;
use futures::future::join_all;
use millrace_core::{Answer, Claim, EffectIdentity, Error, Ledger, Result};
use tokio::{sync::Semaphore, time::Duration};

/// A claim outlives the send it is for by this much: the time the ledger itself may take.
const HOLD_MARGIN: Duration = Duration::from_secs(30);

/// How often an acknowledged effect is marked in a ledger that fails.
const DONE_TRIES_MAX: u32 = 3;

/// What came of a send.
#[derive(Debug)]
pub(crate) enum Sent {
    /// The receiver acknowledged.
    Accepted,
    /// It certainly had no effect: the receiver was not reached, or said no.
    Refused(Error),
    /// It may have had one: nothing came back.
    Unknown(Error),
}

/// An effect: what it is known by, and what is sent.
pub(crate) type Effect = (EffectIdentity, Bytes);

/// Sends effects, at most so many at a time, guarded by a ledger if there is one.
pub(crate) struct Once {
    at_once: Arc<Semaphore>,
    at_once_max: u32,
    guarded: Arc<Guarded>,
}

/// What a send that nobody waits for any more still needs.
struct Guarded {
    ledger: Option<Arc<dyn Ledger>>,
    /// How long a claim holds.
    hold: Duration,
    who: String,
}

impl Once {
    /// `send_max` is the longest that one send takes.
    pub(crate) fn new(
        who: String,
        ledger: Option<Arc<dyn Ledger>>,
        send_max: Duration,
        at_once_max: u32,
    ) -> Self {
        let at_once = Arc::new(Semaphore::new(at_once_max as usize));
        Once {
            at_once,
            at_once_max,
            guarded: Arc::new(Guarded { ledger, hold: send_max + HOLD_MARGIN, who }),
        }
    }

    /// Sends the effects; `send` is called for each that is to be sent. What is under way is ended and marked also
    /// when the caller is cancelled: it has been received, perhaps, and must not go out a second time.
    pub(crate) async fn run<F, Fut>(&self, effects: &[Effect], send: F) -> Vec<Answer>
    where
        F: Fn(EffectIdentity, Bytes) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Sent> + Send,
    {
        let mut answers = Vec::with_capacity(effects.len());
        for chunk in effects.chunks(self.at_once_max as usize) {
            // Waits before the claim, so that a claim never waits.
            let permits = u32::try_from(chunk.len()).unwrap_or(self.at_once_max);
            let Ok(permits) = self.at_once.clone().acquire_many_owned(permits).await else {
                answers.extend(chunk.iter().map(|_| self.guarded.failed("is closed")));
                continue;
            };
            let (guarded, chunk, send) = (self.guarded.clone(), chunk.to_vec(), send.clone());
            let asked = chunk.len();
            let sent = tokio::spawn(async move {
                let answers = guarded.chunk(&chunk, send).await;
                drop(permits);
                answers
            });
            answers.extend(
                sent.await.unwrap_or_else(|_| {
                    (0..asked).map(|_| self.guarded.failed("ended by a panic")).collect()
                }),
            );
        }
        answers
    }
}

impl Guarded {
    async fn chunk<F, Fut>(&self, effects: &[Effect], send: F) -> Vec<Answer>
    where
        F: Fn(EffectIdentity, Bytes) -> Fut,
        Fut: Future<Output = Sent>,
    {
        let Some(ledger) = self.ledger.as_deref() else {
            let sent = join_all(effects.iter().cloned().map(|(identity, body)| send(identity, body))).await;
            return sent.into_iter().map(answer).collect();
        };
        let (unique, place_of) = distinct(effects);
        let claims = match ledger.claim(&unique, self.hold).await {
            Ok(claims) if claims.len() == unique.len() => claims,
            Ok(_) => {
                return effects.iter().map(|_| self.failed("the ledger answers for other claims")).collect();
            }
            Err(error) => {
                let (class, why) = (error.class(), error.chain());
                let failed = || Answer::Failed(Error::new(class, &self.who, format!("cannot claim: {why}")));
                return effects.iter().map(|_| failed()).collect();
            }
        };
        let granted: Vec<usize> =
            (0..unique.len()).filter(|place| claims[*place] == Claim::Granted).collect();
        let body_of = |unique: usize| {
            let first = place_of.iter().position(|of| *of == unique).unwrap_or(unique);
            effects[first].1.clone()
        };
        let sent = join_all(granted.iter().map(|place| send(unique[*place].clone(), body_of(*place)))).await;

        let of = |wanted: fn(&Sent) -> bool| -> Vec<EffectIdentity> {
            granted
                .iter()
                .zip(&sent)
                .filter(|(_, sent)| wanted(sent))
                .map(|(place, _)| unique[*place].clone())
                .collect()
        };
        self.mark_done(ledger, &of(|sent| matches!(sent, Sent::Accepted))).await;
        self.give_back(ledger, &of(|sent| matches!(sent, Sent::Refused(_)))).await;

        let mut outcome: HashMap<usize, Sent> = granted.into_iter().zip(sent).collect();
        let mut accepted: Vec<bool> = claims.iter().map(|claim| *claim == Claim::Done).collect();
        place_of
            .iter()
            .map(|unique| match outcome.remove(unique) {
                Some(Sent::Accepted) => {
                    accepted[*unique] = true;
                    Answer::Done
                }
                Some(other) => answer(other),
                None if accepted[*unique] => Answer::Done,
                None => self.failed("is being sent by another worker"),
            })
            .collect()
    }

    /// The receiver has acknowledged: failing here must not send it again, so the answer is done all the same.
    async fn mark_done(&self, ledger: &dyn Ledger, identities: &[EffectIdentity]) {
        if identities.is_empty() {
            return;
        }
        for try_number in 1..=DONE_TRIES_MAX {
            match ledger.done(identities).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(
                        sink = self.who,
                        try_number,
                        error = error.chain(),
                        "cannot mark as sent; a redelivery would be sent again"
                    );
                }
            }
        }
    }

    /// A claim that is not given back runs out by itself.
    async fn give_back(&self, ledger: &dyn Ledger, identities: &[EffectIdentity]) {
        if identities.is_empty() {
            return;
        }
        let released: Result<()> = ledger.release(identities).await;
        if let Err(error) = released {
            tracing::debug!(sink = self.who, error = error.chain(), "cannot give a claim back");
        }
    }

    fn failed(&self, why: &str) -> Answer {
        Answer::Failed(Error::retry(&self.who, why))
    }
}

fn answer(sent: Sent) -> Answer {
    match sent {
        Sent::Accepted => Answer::Done,
        Sent::Refused(error) | Sent::Unknown(error) => Answer::Failed(error),
    }
}

/// The identities, each once, and for each place which of them it has.
fn distinct(effects: &[Effect]) -> (Vec<EffectIdentity>, Vec<usize>) {
    let mut unique: Vec<EffectIdentity> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    let place_of = effects
        .iter()
        .map(|(identity, _)| {
            *known.entry(identity.as_str()).or_insert_with(|| {
                unique.push(identity.clone());
                unique.len() - 1
            })
        })
        .collect();
    (unique, place_of)
}
