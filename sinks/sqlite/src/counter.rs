//! Counters: the identity of each counted effect lies beside the number and is written with it.

use bytes::Bytes;
use millrace_core::{Message, Op, Ordinals, SinkId, views::Counter};
use millrace_sqlite_file::Failure;
use serde_json::{Value, json};

use crate::{
    calls::{Calls, Parts, by_key, integer_part},
    schema::after,
    sink::Writes,
    writer::Tx,
};

const RECOGNISE: &str = "INSERT INTO processed(key, identity, expires_ms) VALUES (?, ?, ?)
    ON CONFLICT (key, identity) DO NOTHING";
// A sum beyond 64 bits would be a REAL, which the table refuses: the call is rejected.
const MOVE: &str = "INSERT INTO counters(key, value) VALUES (?, ?)
    ON CONFLICT (key) DO UPDATE SET value = value + excluded.value";

/// Writes a counter.
pub(crate) struct CounterWrites {
    id: SinkId,
    view: Counter,
}

impl CounterWrites {
    pub(crate) fn new(id: SinkId, view: Counter) -> Self {
        CounterWrites { id, view }
    }
}

impl Writes for CounterWrites {
    fn kind(&self) -> &'static str {
        "counter"
    }

    fn encode(&self, messages: &[Message], ordinals: &mut Ordinals, calls: &mut Calls) {
        for (place, effect) in (0..).zip(self.view.effects(&self.id, messages, ordinals)) {
            match effect {
                Ok(Some(effect)) => {
                    let identity = Bytes::copy_from_slice(effect.identity.as_str().as_bytes());
                    let (key, by) = (Bytes::from(effect.key), integer_part(effect.by));
                    calls.push(place, vec![Bytes::from_static(b"add"), key, by, identity]);
                }
                Ok(None) => {}
                Err(error) => calls.reject(place, error),
            }
        }
    }

    fn apply(&self, tx: &Tx<'_>, ops: &[Op]) -> Result<(), Failure> {
        let mut recognise = tx.statement(RECOGNISE)?;
        let mut count = tx.statement(MOVE)?;
        let expires_ms = after(tx.now_ms, self.view.ledger);
        for ops in by_key(ops)?.chunk_by(|a, b| a.key == b.key) {
            let key = ops[0].key;
            let mut sum: Option<i64> = None;
            for keyed in ops {
                let (by, identity) = (keyed.op.integer(2)?, keyed.op.text(3)?);
                if recognise.execute((key, identity, expires_ms))? == 1 {
                    // A call's moves are far from 64 bits.
                    sum = Some(sum.unwrap_or(0).saturating_add(by));
                }
            }
            if let Some(sum) = sum {
                count.execute((key, sum))?;
            }
        }
        Ok(())
    }

    fn describe(&self, op: Parts<'_>) -> Result<Value, Failure> {
        Ok(json!({ "key": op.text(1)?, "by": op.integer(2)?, "identity": op.text(3)? }))
    }
}
