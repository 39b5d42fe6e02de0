//! Sets: a sorted set of equal scores each, so that it can be read page by page, with the versions beside it.

use std::{fmt::Write as _, sync::LazyLock};

use millrace_core::{
    Message, Ordinals,
    views::{Members, Polarity},
};

use crate::{calls::Calls, script::Script, send::Writes};

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/members.lua")));

/// Writes a set.
pub(crate) struct MembersWrites {
    view: Members,
    constants: [String; 1],
}

impl MembersWrites {
    pub(crate) fn new(view: Members) -> Self {
        let constants = [view.ledger.as_millis().to_string()];
        MembersWrites { view, constants }
    }
}

impl Writes for MembersWrites {
    fn kind(&self) -> &'static str {
        "members"
    }

    fn script(&self) -> &'static Script {
        &SCRIPT
    }

    fn keys_per_op(&self) -> usize {
        3
    }

    fn constants(&self) -> &[String] {
        &self.constants
    }

    fn encode(&self, messages: &[Message], _: &mut Ordinals, calls: &mut Calls) {
        for (place, message) in (0..).zip(messages) {
            match self.view.effect(message) {
                Ok(effect) => calls.push(place, &effect.key, &["versions", "removed"], 3, |parts| {
                    parts.word(match effect.op {
                        Polarity::Add => "add",
                        Polarity::Remove => "remove",
                    });
                    parts.text(&effect.member);
                    parts.part(|buffer| {
                        write!(buffer, "{}", effect.version)
                            .expect("invariant: a buffer that grows takes any text");
                    });
                }),
                Err(error) => calls.reject(place, error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use millrace_core::settings::Problems;
    use millrace_testkit::{message::message, views_suite::settings};
    use serde_json::json;

    use super::*;
    use crate::send::tests::encoded;

    #[test]
    fn encodes_both_operations() {
        let pairs = [("key", "followers:{u}"), ("op", "{op}"), ("member", "{m}"), ("version", "{v}")];
        let writes = MembersWrites::new(Members::read(&settings(&pairs), &mut Problems::default()).unwrap());
        let batch = [
            message(1, "1", r#"{"op":"add","u":"u1","m":"u2","v":9007199254740992}"#),
            message(2, "2", r#"{"op":"remove","u":"u1","m":"u3","v":5}"#),
            message(3, "3", r#"{"op":"remove","u":"u1","m":"u3"}"#),
        ];
        assert_eq!(writes.constants(), ["2592000000"]);
        let (calls, rejected) = encoded(writes, &batch);
        let keys = ["followers:u1", "versions:{followers:u1}", "removed:{followers:u1}"];
        assert_eq!(
            calls,
            [json!({ "members": [
                [keys[0], keys[1], keys[2], "add", "u2", "9007199254740992"],
                [keys[0], keys[1], keys[2], "remove", "u3", "5"],
            ] })]
        );
        assert_eq!(rejected, [2]);
    }
}
