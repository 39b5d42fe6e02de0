//! Counters: a number each, with the identities it has counted beside it.

use std::{fmt::Write as _, sync::LazyLock};

use millrace_core::{Message, Ordinals, SinkId, views::Counter};

use crate::{calls::Calls, script::Script, send::Writes};

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/counter.lua")));

/// Writes a counter.
pub(crate) struct CounterWrites {
    id: SinkId,
    view: Counter,
    constants: [String; 1],
}

impl CounterWrites {
    pub(crate) fn new(id: SinkId, view: Counter) -> Self {
        let constants = [view.ledger.as_millis().to_string()];
        CounterWrites { id, view, constants }
    }
}

impl Writes for CounterWrites {
    fn kind(&self) -> &'static str {
        "counter"
    }

    fn script(&self) -> &'static Script {
        &SCRIPT
    }

    fn keys_per_op(&self) -> usize {
        2
    }

    fn constants(&self) -> &[String] {
        &self.constants
    }

    fn encode(&self, messages: &[Message], ordinals: &mut Ordinals, calls: &mut Calls) {
        for (place, effect) in (0..).zip(self.view.effects(&self.id, messages, ordinals)) {
            match effect {
                Ok(Some(effect)) => calls.push(place, &effect.key, &["processed"], 2, |parts| {
                    parts.text(effect.identity.as_str());
                    parts.part(|buffer| {
                        write!(buffer, "{}", effect.by)
                            .expect("invariant: a buffer that grows takes any text");
                    });
                }),
                Ok(None) => {}
                Err(error) => calls.reject(place, error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use millrace_core::{EffectIdentity, settings::Problems};
    use millrace_testkit::{message::message, views_suite::settings};
    use serde_json::json;

    use super::*;
    use crate::send::tests::encoded;

    #[test]
    fn encodes_moves_with_their_identity() {
        let id = SinkId { pipeline: "p".into(), sink: "unread".into() };
        let view =
            Counter::read(&settings(&[("key", "unread:{u}"), ("by", "{n}")]), &mut Problems::default());
        let writes = CounterWrites::new(id.clone(), view.unwrap());
        let batch = [
            message(1, "1", r#"{"u":"u1","n":1}"#),
            message(2, "2", r#"{"u":"u1","n":0}"#),
            message(3, "3", r#"{"u":"u1","n":-2}"#),
        ];
        let identity =
            |place: usize| EffectIdentity::of(&id, "unread:u1", &batch[place], 0).as_str().to_owned();
        let (calls, rejected) = encoded(writes, &batch);
        assert_eq!(
            calls,
            [json!({ "counter": [
                ["unread:u1", "processed:{unread:u1}", identity(0), "1"],
                ["unread:u1", "processed:{unread:u1}", identity(2), "-2"],
            ] })]
        );
        assert!(rejected.is_empty());
    }
}
