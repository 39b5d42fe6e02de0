//! Sets: a row per member with the version that put it in or out.

use bytes::Bytes;
use millrace_core::{
    Message, Op, Ordinals,
    views::{Members, Polarity},
};
use millrace_sqlite_file::Failure;
use serde_json::{Value, json};

use crate::{
    calls::{Calls, Parts, by_key, foreign, integer_part},
    schema::after,
    sink::Writes,
    writer::Tx,
};

// A repeated remove is remembered for longer: what it must outlive may be repeated as well.
const CHANGE: &str = "INSERT INTO members(key, member, version, present, expires_ms) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (key, member) DO UPDATE
    SET version = excluded.version, present = excluded.present,
        expires_ms = max(excluded.expires_ms, coalesce(expires_ms, 0))
    WHERE excluded.version > version OR (excluded.version = version AND excluded.present >= present)";

/// Writes a set.
pub(crate) struct MembersWrites {
    view: Members,
}

impl MembersWrites {
    pub(crate) fn new(view: Members) -> Self {
        MembersWrites { view }
    }
}

impl Writes for MembersWrites {
    fn kind(&self) -> &'static str {
        "members"
    }

    fn encode(&self, messages: &[Message], _: &mut Ordinals, calls: &mut Calls) {
        for (place, message) in (0..).zip(messages) {
            match self.view.effect(message) {
                Ok(effect) => {
                    let verb: &'static [u8] = match effect.op {
                        Polarity::Add => b"add",
                        Polarity::Remove => b"remove",
                    };
                    let (key, member) = (Bytes::from(effect.key), Bytes::from(effect.member));
                    let version = integer_part(effect.version);
                    calls.push(place, vec![Bytes::from_static(verb), key, member, version]);
                }
                Err(error) => calls.reject(place, error),
            }
        }
    }

    fn apply(&self, tx: &Tx<'_>, ops: &[Op]) -> Result<(), Failure> {
        let mut change = tx.statement(CHANGE)?;
        for keyed in by_key(ops)? {
            let (present, expires_ms) = match keyed.op.bytes(0)? {
                b"add" => (true, None),
                b"remove" => (false, Some(after(tx.now_ms, self.view.ledger))),
                _ => return Err(foreign()),
            };
            let (member, version) = (keyed.op.text(2)?, keyed.op.integer(3)?);
            change.execute((keyed.key, member, version, present, expires_ms))?;
        }
        Ok(())
    }

    fn describe(&self, op: Parts<'_>) -> Result<Value, Failure> {
        Ok(json!({ "key": op.text(1)?, "member": op.text(2)?, "version": op.integer(3)? }))
    }
}
