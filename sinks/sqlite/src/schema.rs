//! The tables of the views. Times are ms since 1970; a row whose `expires_ms` has passed counts as absent and is
//! removed by one of the next writes.

use std::{path::Path, time::Duration};

use millrace_sqlite_file::Database;

/// The tables of all views but indexes, which get theirs when they are prepared.
const SCHEMA: &str = "
    -- Without an index by score: an add would write two pages instead of one. A timeline is short, to sort it for
    -- a reader is cheap.
    CREATE TABLE timelines(
        key TEXT NOT NULL, member TEXT NOT NULL, score REAL NOT NULL,
        PRIMARY KEY (key, member)
    ) STRICT, WITHOUT ROWID;

    -- How many members a timeline has, so that an add need not count them, and when it is forgotten.
    CREATE TABLE timeline_keys(
        key TEXT PRIMARY KEY NOT NULL, count INTEGER NOT NULL, expires_ms INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX timeline_keys_expiry ON timeline_keys(expires_ms) WHERE expires_ms IS NOT NULL;

    CREATE TABLE timeline_tombstones(
        key TEXT NOT NULL, member TEXT NOT NULL, expires_ms INTEGER NOT NULL,
        PRIMARY KEY (key, member)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX timeline_tombstones_expiry ON timeline_tombstones(expires_ms);

    -- A removed member keeps its version until it expires.
    CREATE TABLE members(
        key TEXT NOT NULL, member TEXT NOT NULL, version INTEGER NOT NULL, present INTEGER NOT NULL,
        expires_ms INTEGER,
        PRIMARY KEY (key, member)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX members_expiry ON members(expires_ms) WHERE expires_ms IS NOT NULL;

    -- `version` is the highest of all fields; `versions` are those of the fields that have another one.
    CREATE TABLE documents(
        key TEXT PRIMARY KEY NOT NULL, json TEXT, version INTEGER NOT NULL, versions TEXT,
        deleted INTEGER NOT NULL, expires_ms INTEGER
    ) STRICT;
    CREATE INDEX documents_expiry ON documents(expires_ms) WHERE expires_ms IS NOT NULL;

    CREATE TABLE counters(key TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

    -- Which effects a counter has counted.
    CREATE TABLE processed(
        key TEXT NOT NULL, identity TEXT NOT NULL, expires_ms INTEGER NOT NULL,
        PRIMARY KEY (key, identity)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX processed_expiry ON processed(expires_ms);

    CREATE TABLE guards(id TEXT PRIMARY KEY NOT NULL, expires_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX guards_expiry ON guards(expires_ms);

    -- `state` is 'claimed', by `holder`, or 'done'.
    CREATE TABLE ledger(
        identity TEXT PRIMARY KEY NOT NULL, state TEXT NOT NULL, holder TEXT NOT NULL, until_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX ledger_expiry ON ledger(until_ms);

    -- The indexes that were prepared, and the fields they search, a JSON array.
    CREATE TABLE indexes(name TEXT PRIMARY KEY NOT NULL, text_fields TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// Names of tables in the file, which no index can have: a view of that name shows it to readers.
pub(crate) const TABLES: &[&str] = &[
    "counters",
    "documents",
    "guards",
    "indexes",
    "ledger",
    "members",
    "processed",
    "progress",
    "timeline_keys",
    "timeline_tombstones",
    "timelines",
];

/// The file of the views in a folder.
pub(crate) fn views_database(folder: &Path) -> Database {
    let path = folder.join("views.db");
    Database {
        who: format!("embedded views {}", path.display()),
        path,
        part: "views",
        format: 1,
        schema: SCHEMA,
    }
}

/// A span in ms.
pub(crate) fn milliseconds(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// The time a span after another.
pub(crate) fn after(now_ms: i64, span: Duration) -> i64 {
    now_ms.saturating_add(milliseconds(span))
}
