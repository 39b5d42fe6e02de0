//! Removes what has expired, a little with every write and every second, so that nothing ever has to be swept.

use millrace_sqlite_file::Failure;

use crate::writer::Tx;

/// Rows removed from one table by one transaction: about as many as a busy one adds.
const ROWS_MAX: usize = 2_000;

/// One statement per table: the expiry is found by its index, the row by its key. The LIMIT is not bound: SQLite
/// would plan the statement anew each time.
const STATEMENTS: [&str; 6] = [
    "DELETE FROM timeline_tombstones WHERE (key, member) IN
        (SELECT key, member FROM timeline_tombstones WHERE expires_ms <= ? LIMIT 2000)",
    "DELETE FROM members WHERE (key, member) IN
        (SELECT key, member FROM members WHERE expires_ms <= ? LIMIT 2000)",
    "DELETE FROM documents WHERE rowid IN (SELECT rowid FROM documents WHERE expires_ms <= ? LIMIT 2000)",
    "DELETE FROM processed WHERE (key, identity) IN
        (SELECT key, identity FROM processed WHERE expires_ms <= ? LIMIT 2000)",
    "DELETE FROM guards WHERE id IN (SELECT id FROM guards WHERE expires_ms <= ? LIMIT 2000)",
    "DELETE FROM ledger WHERE identity IN (SELECT identity FROM ledger WHERE until_ms <= ? LIMIT 2000)",
];

const IDLE_TIMELINE: &str = "SELECT key FROM timeline_keys WHERE expires_ms <= ? LIMIT 1";
const FORGET_SOME: &str = "DELETE FROM timelines WHERE key = ?1
    AND member IN (SELECT member FROM timelines WHERE key = ?1 LIMIT 2000)";
const FORGET_KEY: &str = "DELETE FROM timeline_keys WHERE key = ?";

/// Removes some of what has expired.
pub(crate) fn prune(tx: &Tx<'_>) -> Result<(), Failure> {
    for sql in STATEMENTS {
        tx.statement(sql)?.execute((tx.now_ms,))?;
    }
    let mut removed = 0;
    while removed < ROWS_MAX {
        let mut idle = tx.statement(IDLE_TIMELINE)?;
        let Some(key) = idle.query_map((tx.now_ms,), |row| row.get::<_, String>(0))?.next() else {
            return Ok(());
        };
        let key = key?;
        let members = tx.statement(FORGET_SOME)?.execute((&key,))?;
        if members < ROWS_MAX {
            tx.statement(FORGET_KEY)?.execute((&key,))?;
        }
        removed += members + 1;
    }
    Ok(())
}
