//! The channel `webhook`: a signed POST of the message's value to one URL.

mod request;
mod settings;
mod signature;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use millrace_core::{
    Answer, Call, EffectIdentity, Encoded, Error, Ledger, Message, Op, Ordinals, Result, Sink, SinkId,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::once::{Effect, Once};
use request::Poster;
pub use settings::{Options, WEBHOOK};

/// The largest body that is sent.
const BODY_BYTES_MAX: usize = 8 << 20;

/// Tells the time of day in milliseconds since 1970: it stands in the signature.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A webhook. Deliveries run concurrently, so that they may arrive in another order than their events happened;
/// with `concurrency: 1` those of a partition keep it.
pub struct Webhook {
    id: SinkId,
    who: String,
    options: Options,
    poster: Arc<Poster>,
    once: Once,
}

impl Webhook {
    /// Opens the sink `id`. Reads the secret and connects to nothing. Without a ledger a redelivered event is
    /// sent again, with the same idempotency key.
    ///
    /// # Errors
    /// Fatal when the secret cannot be read or is empty.
    pub fn open(id: SinkId, options: Options, ledger: Option<Arc<dyn Ledger>>, clock: Clock) -> Result<Self> {
        let who = format!("webhook {id}");
        let poster = Arc::new(Poster::open(&who, &options, clock)?);
        let once = Once::new(who.clone(), ledger, options.timeout, options.concurrency);
        Ok(Webhook { id, who, options, poster, once })
    }

    /// The effect's key: what tells the outputs of one event apart. Without a template it is the body, since
    /// neither their number nor their order is known when they come page by page.
    fn effect_key(&self, message: &Message) -> Result<String> {
        match &self.options.key {
            Some(key) => key.render_id(message),
            None => Ok(hex::encode(Sha256::digest(&message.value))),
        }
    }
}

#[async_trait]
impl Sink for Webhook {
    /// Resolves the receiver's name. A name that leads into our own network is Fatal here and later: it is no
    /// record's fault, and somebody must list it or correct it.
    async fn prepare(&self) -> Result<()> {
        self.poster.check_destination().await
    }

    fn encode(&self, messages: &[Message]) -> Encoded {
        self.encode_part(messages, &mut Ordinals::default())
    }

    fn encode_part(&self, messages: &[Message], ordinals: &mut Ordinals) -> Encoded {
        let mut encoded = Encoded { calls: Vec::with_capacity(messages.len()), rejected: Vec::new() };
        ordinals.begin_part();
        for (place, message) in (0_u32..).zip(messages) {
            if message.value.len() > BODY_BYTES_MAX {
                let why = format!("is {} bytes long, at most {BODY_BYTES_MAX} are sent", message.value.len());
                encoded.rejected.push((place, Error::reject("webhook body", why)));
                continue;
            }
            match self.effect_key(message) {
                Ok(key) => {
                    let identity = ordinals.next(&self.id, &key, message);
                    let parts =
                        vec![Bytes::copy_from_slice(identity.as_str().as_bytes()), message.value.clone()];
                    encoded.calls.push(Call::single("webhook", place, parts));
                }
                Err(error) => encoded.rejected.push((place, error)),
            }
        }
        encoded
    }

    async fn send(&self, calls: &[Call]) -> Vec<Answer> {
        let mut answers: Vec<Answer> = calls.iter().map(|_| Answer::Done).collect();
        let (mut effects, mut places) = (Vec::with_capacity(calls.len()), Vec::with_capacity(calls.len()));
        for (place, op) in
            calls.iter().enumerate().flat_map(|(n, call)| call.ops.iter().map(move |op| (n, op)))
        {
            match parts(op) {
                Some(effect) => {
                    effects.push(effect);
                    places.push(place);
                }
                None => {
                    answers[place] = Answer::Failed(Error::reject(&self.who, "the call is of another sink"));
                }
            }
        }
        let poster = self.poster.clone();
        let sent = self.once.run(&effects, move |identity, body| {
            let poster = poster.clone();
            async move { poster.post(identity.as_str(), body).await }
        });
        for (place, answer) in places.into_iter().zip(sent.await) {
            if matches!(answers[place], Answer::Done) {
                answers[place] = answer;
            }
        }
        answers
    }

    /// As many as run at the same time: then a send takes no longer than a request.
    fn calls_max(&self) -> usize {
        self.options.concurrency as usize
    }

    fn describe(&self, call: &Call) -> Value {
        let ops: Vec<Value> = call
            .ops
            .iter()
            .map(|op| {
                let part = |place: usize| {
                    op.parts.get(place).map(|p| String::from_utf8_lossy(p)).unwrap_or_default()
                };
                let body = serde_json::from_str(&part(1)).unwrap_or_else(|_| Value::from(part(1)));
                json!({ "to": self.options.destination(), "idempotency_key": part(0), "body": body })
            })
            .collect();
        match <[Value; 1]>::try_from(ops) {
            Ok([op]) => json!({ call.kind: op }),
            Err(ops) => json!({ call.kind: ops }),
        }
    }
}

fn parts(op: &Op) -> Option<Effect> {
    let [identity, body] = op.parts.as_slice() else { return None };
    Some((EffectIdentity::parse(std::str::from_utf8(identity).ok()?)?, body.clone()))
}
