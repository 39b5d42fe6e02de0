//! A counter that each event moves once, however often it is delivered.

use tokio::time::Duration;

use super::{LEDGER_DEFAULT, required_template};
use crate::{
    error::Error,
    identity::{EffectIdentity, Ordinals, SinkId},
    message::Message,
    settings::{Field, Kind, Object, Problems, Settings, Shape},
    template::Template,
};

/// One effect moves a counter by at most this much either way.
const BY_MAX: i64 = 1_000_000_000;

/// `counter:` in YAML.
pub static COUNTER: Kind = Kind { name: "counter", settings: &SETTINGS };

static SETTINGS: Object = Object {
    name: "counter",
    doc: "A number that each event moves exactly once: the ledger of identities lies beside it and is written with it.",
    fields: &[
        Field::required("store", Shape::Text, "the store that keeps it"),
        Field::required("key", Shape::Template, "the counter's key, as 'unread:{recipient}'"),
        Field::with_default("by", Shape::Template, "1", "how far it moves, an integer; 0 has no effect"),
        Field::with_default(
            "ledger",
            Shape::Duration,
            LEDGER_DEFAULT,
            "how long a redelivered event is recognised",
        ),
    ],
};

/// The settings, parsed.
#[derive(Clone, Debug)]
pub struct Counter {
    key: Template,
    by: Template,
    /// Life of an identity.
    pub ledger: Duration,
}

/// What a message asks of a counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterEffect {
    /// The counter's key.
    pub key: String,
    /// How far it moves; never 0.
    pub by: i64,
    /// What makes a redelivery recognisable.
    pub identity: EffectIdentity,
}

impl Counter {
    /// Reads checked settings. None when a problem was added, or had been reported by the check.
    pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        Some(Counter {
            key: required_template(settings, "key", problems)?,
            by: settings.template("by").or_else(|| Template::parse("1").ok())?,
            ledger: settings.duration("ledger").unwrap_or(Duration::from_secs(30 * 86_400)),
        })
    }

    /// The effects of a part of a batch, in its order; none for a move by 0. Where an event has several outputs for
    /// one key, `ordinals` tells them apart, also from part to part.
    pub fn effects(
        &self,
        sink: &SinkId,
        messages: &[Message],
        ordinals: &mut Ordinals,
    ) -> Vec<Result<Option<CounterEffect>, Error>> {
        ordinals.begin_part();
        messages
            .iter()
            .map(|message| {
                let key = self.key.render_id(message)?;
                let by = self.by.render_integer(message)?;
                if !(-BY_MAX..=BY_MAX).contains(&by) {
                    return Err(Error::reject(format!("template '{}'", self.by), "is out of range"));
                }
                let identity = ordinals.next(sink, &key, message);
                Ok((by != 0).then_some(CounterEffect { key, by, identity }))
            })
            .collect()
    }
}
