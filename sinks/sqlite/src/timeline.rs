//! Timelines: a row per member, and a row per timeline with their number, so that nothing is counted. What an add
//! costs is mostly the page it changes; all else here is there to change no other.

use bytes::Bytes;
use millrace_core::{
    Message, Op, Ordinals,
    views::{Timeline, TimelineOp},
};
use millrace_sqlite_file::Failure;
use rusqlite::{CachedStatement, OptionalExtension};
use serde_json::{Value, json};

use crate::{
    calls::{Calls, Keyed, Parts, by_key, foreign, number_part},
    schema::{after, milliseconds},
    sink::Writes,
    writer::Tx,
};

/// An idle timeline is forgotten up to this share of its life late, so that few adds need to move its expiry.
const TTL_SHARE_LATE: i64 = 32;

/// A timeline is trimmed when it has this share of its size too many: to find the oldest, all are sorted.
const TRIM_SHARE: i64 = 16;

const STATE: &str = "SELECT count, expires_ms FROM timeline_keys WHERE key = ?";
const STORE_STATE: &str = "INSERT INTO timeline_keys(key, count, expires_ms) VALUES (?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET count = excluded.count, expires_ms = excluded.expires_ms";
const ADD: &str = "INSERT INTO timelines(key, member, score) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
const RAISE: &str = "UPDATE timelines SET score = ?3 WHERE key = ?1 AND member = ?2 AND score < ?3";
const ANY_BURIED: &str = "SELECT 1 FROM timeline_tombstones WHERE key = ? LIMIT 1";
const BURIED: &str = "SELECT 1 FROM timeline_tombstones WHERE key = ? AND member = ? AND expires_ms > ?";
const BURY: &str = "INSERT INTO timeline_tombstones(key, member, expires_ms) VALUES (?, ?, ?)
    ON CONFLICT (key, member) DO UPDATE SET expires_ms = max(expires_ms, excluded.expires_ms)";
const REMOVE: &str = "DELETE FROM timelines WHERE key = ? AND member = ?";
// Without a bound LIMIT, for which SQLite would plan the statement anew each time.
const OLDEST: &str = "SELECT member FROM timelines WHERE key = ? ORDER BY score, member";
const FORGET: &str = "DELETE FROM timelines WHERE key = ?";

/// Writes a timeline.
pub(crate) struct TimelineWrites {
    view: Timeline,
}

/// The statements of a call, looked up once.
struct Statements<'a> {
    state: CachedStatement<'a>,
    store_state: CachedStatement<'a>,
    add: CachedStatement<'a>,
    raise: CachedStatement<'a>,
    any_buried: CachedStatement<'a>,
    buried: CachedStatement<'a>,
    bury: CachedStatement<'a>,
    remove: CachedStatement<'a>,
    oldest: CachedStatement<'a>,
    forget: CachedStatement<'a>,
}

/// What is known of a timeline as a whole.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    count: i64,
    expires_ms: Option<i64>,
}

impl TimelineWrites {
    pub(crate) fn new(view: Timeline) -> Self {
        TimelineWrites { view }
    }

    fn change(
        &self,
        statements: &mut Statements<'_>,
        now_ms: i64,
        key: &str,
        ops: &[Keyed<'_>],
    ) -> Result<(), Failure> {
        let found = statements.state.query_row((key,), State::read).optional()?;
        let mut state = found.unwrap_or(State { count: 0, expires_ms: None });
        if state.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms) {
            statements.forget.execute((key,))?;
            state.count = 0;
        }
        // Few timelines have tombstones: then their adds need not look for one each.
        let mut any_buried = statements.any_buried.exists((key,))?;
        let mut added = false;
        for Keyed { op, .. } in ops {
            let member = op.text(2)?;
            match op.bytes(0)? {
                b"add" => {
                    if any_buried && statements.buried.exists((key, member, now_ms))? {
                        continue;
                    }
                    added = true;
                    let score = op.number(3)?;
                    let new = statements.add.execute((key, member, score))?;
                    if new == 0 {
                        statements.raise.execute((key, member, score))?;
                    }
                    state.count += rows(new);
                }
                b"remove" => {
                    any_buried = true;
                    statements.bury.execute((key, member, after(now_ms, self.view.ledger)))?;
                    state.count -= rows(statements.remove.execute((key, member))?);
                }
                _ => return Err(foreign()),
            }
        }
        let stored_max = i64::from(self.view.stored_max);
        let excess = state.count - stored_max;
        if excess > stored_max / TRIM_SHARE {
            state.count -= statements.trim(key, excess)?;
        }
        if added {
            state.expires_ms = self.expiry(state.expires_ms, now_ms);
        }
        if found.unwrap_or(State { count: 0, expires_ms: None }) != state {
            statements.store_state.execute((key, state.count, state.expires_ms))?;
        }
        Ok(())
    }

    /// When the timeline is forgotten if this is its last add.
    fn expiry(&self, stored_ms: Option<i64>, now_ms: i64) -> Option<i64> {
        let ttl = self.view.ttl?;
        let due_ms = after(now_ms, ttl);
        let late_ms = due_ms.saturating_add(milliseconds(ttl) / TTL_SHARE_LATE);
        Some(stored_ms.filter(|stored_ms| (due_ms..=late_ms).contains(stored_ms)).unwrap_or(late_ms))
    }
}

impl Writes for TimelineWrites {
    fn kind(&self) -> &'static str {
        "timeline"
    }

    fn encode(&self, messages: &[Message], _: &mut Ordinals, calls: &mut Calls) {
        for (place, message) in (0..).zip(messages) {
            match self.view.effect(message) {
                Ok(effect) => {
                    let (key, member) = (Bytes::from(effect.key), Bytes::from(effect.member));
                    calls.push(
                        place,
                        match effect.op {
                            TimelineOp::Add { score } => {
                                vec![Bytes::from_static(b"add"), key, member, number_part(score)]
                            }
                            TimelineOp::Remove => vec![Bytes::from_static(b"remove"), key, member],
                        },
                    );
                }
                Err(error) => calls.reject(place, error),
            }
        }
    }

    fn apply(&self, tx: &Tx<'_>, ops: &[Op]) -> Result<(), Failure> {
        let mut statements = Statements::of(tx)?;
        for ops in by_key(ops)?.chunk_by(|a, b| a.key == b.key) {
            self.change(&mut statements, tx.now_ms, ops[0].key, ops)?;
        }
        Ok(())
    }

    fn describe(&self, op: Parts<'_>) -> Result<Value, Failure> {
        let (key, member) = (op.text(1)?, op.text(2)?);
        Ok(match op.number(3) {
            Ok(score) => json!({ "key": key, "member": member, "score": score }),
            Err(_) => json!({ "key": key, "member": member }),
        })
    }
}

impl<'a> Statements<'a> {
    fn of(tx: &Tx<'a>) -> Result<Self, Failure> {
        Ok(Statements {
            state: tx.statement(STATE)?,
            store_state: tx.statement(STORE_STATE)?,
            add: tx.statement(ADD)?,
            raise: tx.statement(RAISE)?,
            any_buried: tx.statement(ANY_BURIED)?,
            buried: tx.statement(BURIED)?,
            bury: tx.statement(BURY)?,
            remove: tx.statement(REMOVE)?,
            oldest: tx.statement(OLDEST)?,
            forget: tx.statement(FORGET)?,
        })
    }

    /// Removes the oldest members; gives how many went.
    fn trim(&mut self, key: &str, count: i64) -> Result<i64, Failure> {
        let count = usize::try_from(count).unwrap_or(0);
        let oldest = self.oldest.query_map((key,), |row| row.get(0))?;
        let oldest: Vec<String> = oldest.take(count).collect::<rusqlite::Result<_>>()?;
        let mut removed = 0;
        for member in &oldest {
            removed += rows(self.remove.execute((key, member))?);
        }
        Ok(removed)
    }
}

impl State {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(State { count: row.get(0)?, expires_ms: row.get(1)? })
    }
}

fn rows(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
