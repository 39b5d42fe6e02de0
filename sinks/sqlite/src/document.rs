//! Documents: one row each, JSON for readers and the versions of its fields for the merge.

use millrace_core::{Message, Op, Ordinals, views::Document};
use millrace_sqlite_file::Failure;
use rusqlite::OptionalExtension;
use serde_json::{Value, json};

use crate::{
    calls::{Calls, Keyed, Parts, by_key},
    fields::{ChangeOp, Fields, Known, Stored},
    schema::after,
    sink::Writes,
    writer::Tx,
};

const READ: &str = "SELECT json, version, versions FROM documents
    WHERE key = ? AND (expires_ms IS NULL OR expires_ms > ?)";
// A repeated delete is remembered for longer: what it must outlive may be repeated as well.
const DELETE: &str = "INSERT INTO documents(key, version, deleted, expires_ms) VALUES (?, ?, 1, ?)
    ON CONFLICT (key) DO UPDATE SET json = NULL, version = excluded.version, versions = NULL, deleted = 1,
        expires_ms = max(excluded.expires_ms, iif(deleted, expires_ms, 0))";
const WRITE: &str = "INSERT INTO documents(key, json, version, versions, deleted, expires_ms)
    VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET json = excluded.json, version = excluded.version,
        versions = excluded.versions, deleted = excluded.deleted, expires_ms = excluded.expires_ms";

/// Writes a document.
pub(crate) struct DocumentWrites {
    view: Document,
}

impl DocumentWrites {
    pub(crate) fn new(view: Document) -> Self {
        DocumentWrites { view }
    }

    fn change(&self, tx: &Tx<'_>, key: &str, ops: &[Keyed<'_>]) -> Result<(), Failure> {
        let changes: Vec<ChangeOp<'_>> =
            ops.iter().map(|keyed| ChangeOp::read(keyed.op)).collect::<Result<_, _>>()?;
        let deleted = changes.iter().find_map(|change| match change {
            ChangeOp::Delete { version } => Some(*version),
            ChangeOp::Put { .. } => None,
        });
        if let Some(version) = deleted {
            let expires_ms = after(tx.now_ms, self.view.ledger);
            tx.statement(DELETE)?.execute((key, version, expires_ms))?;
            return Ok(());
        }
        let stored = match known(tx, key)? {
            Known::Deleted => return Ok(()),
            Known::Nothing => None,
            Known::Document(stored) => Some(stored),
        };
        let mut fields = stored.as_ref().map(Fields::of).transpose()?.unwrap_or_default();
        let mut changed = false;
        for change in changes {
            if let ChangeOp::Put { document, version, versions } = change {
                changed |= fields.merge(document, version, versions)?;
            }
        }
        let expires_ms = self.view.ttl.map(|ttl| after(tx.now_ms, ttl));
        if changed || expires_ms.is_some() {
            let row = fields.store();
            tx.statement(WRITE)?.execute((key, row.json, row.version, row.versions, false, expires_ms))?;
        }
        Ok(())
    }
}

impl Writes for DocumentWrites {
    fn kind(&self) -> &'static str {
        "document"
    }

    fn encode(&self, messages: &[Message], _: &mut Ordinals, calls: &mut Calls) {
        for (place, message) in (0..).zip(messages) {
            match self.view.effect(message) {
                Ok(effect) => calls.push(place, ChangeOp::parts(effect.key, &effect.change)),
                Err(error) => calls.reject(place, error),
            }
        }
    }

    fn apply(&self, tx: &Tx<'_>, ops: &[Op]) -> Result<(), Failure> {
        for ops in by_key(ops)?.chunk_by(|a, b| a.key == b.key) {
            self.change(tx, ops[0].key, ops)?;
        }
        Ok(())
    }

    fn describe(&self, op: Parts<'_>) -> Result<Value, Failure> {
        Ok(ChangeOp::read(op)?.describe(json!({ "key": op.text(1)? })))
    }
}

fn known(tx: &Tx<'_>, key: &str) -> Result<Known, Failure> {
    let mut read = tx.statement(READ)?;
    let found = read.query_row((key, tx.now_ms), |row| {
        Ok(match row.get(0)? {
            None => Known::Deleted,
            Some(json) => Known::Document(Stored { json, version: row.get(1)?, versions: row.get(2)? }),
        })
    });
    Ok(found.optional()?.unwrap_or(Known::Nothing))
}
