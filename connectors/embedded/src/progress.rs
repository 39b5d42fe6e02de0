//! The progress of consumer groups. It lies in the file of the views, so that whoever deletes the views has
//! them rebuilt from the log, and so that progress is never on the disk before the effects it stands for.

use std::{collections::BTreeMap, path::Path, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use millrace_core::{Class, Error, Result, States};
use millrace_sqlite_file::{Database, Failure, Inbox, Mailbox, Wait, mailbox, transact};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::outputs::Owner;

/// Commits that wait for the thread.
const REQUESTS_MAX: usize = 64;

/// How long the thread waits before it looks whether it is still needed.
const WAIT: Duration = Duration::from_secs(60);

const SCHEMA: &str = "
    CREATE TABLE progress(
        consumer_group TEXT NOT NULL,
        topic TEXT NOT NULL,
        partition INTEGER NOT NULL,
        next_offset INTEGER NOT NULL,
        -- The id of the log that the offset is of.
        log INTEGER NOT NULL,
        PRIMARY KEY (consumer_group, topic, partition)
    ) STRICT, WITHOUT ROWID;
";

const STATES_SCHEMA: &str = "
    -- Of steps, as they are at the progress of their group.
    CREATE TABLE states(
        consumer_group TEXT NOT NULL,
        topic TEXT NOT NULL,
        partition INTEGER NOT NULL,
        step TEXT NOT NULL,
        state BLOB NOT NULL,
        PRIMARY KEY (consumer_group, topic, partition, step)
    ) STRICT;
";

/// What a group has committed in a topic of one log.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) log: i64,
    /// Partition and next offset.
    pub(crate) offsets: Vec<(i32, i64)>,
    /// The states that have changed, of the steps of the first partition's worker.
    pub(crate) states: States,
}

/// Progress as somebody sets it who does not read.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) group: String,
    pub(crate) topic: String,
    /// The log that the offsets are of, and partitions with next offsets; none: all of it is forgotten.
    pub(crate) offsets: Option<(i64, BTreeMap<i32, i64>)>,
}

struct Order {
    work: Work,
    reply: oneshot::Sender<Result<()>>,
}

enum Work {
    Commit(Commit),
    Set(Setting),
}

/// The callers' side of the thread that stores progress.
#[derive(Clone)]
pub(crate) struct ProgressKeeper {
    orders: Mailbox<Order>,
    who: String,
}

/// The progress's file in a folder.
pub(crate) fn progress_database(folder: &Path) -> Database {
    let path = folder.join("views.db");
    Database {
        who: format!("embedded progress {}", path.display()),
        path,
        part: "progress",
        format: 1,
        schema: SCHEMA,
    }
}

/// The part of the progress's file that keeps states; made when there is a first one.
pub(crate) fn states_database(folder: &Path) -> Database {
    Database { part: "states", schema: STATES_SCHEMA, ..progress_database(folder) }
}

/// The states of a partition's steps.
pub(crate) fn states(views: &Connection, owner: &Owner) -> rusqlite::Result<States> {
    let mut statement = views.prepare_cached(
        "SELECT step, state FROM states WHERE consumer_group = ? AND topic = ? AND partition = ?",
    )?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok((Arc::from(row.get::<_, String>(0)?), Bytes::from(row.get::<_, Vec<u8>>(1)?)))
    };
    statement.query_map((&owner.group, &*owner.source.topic, owner.source.partition), read)?.collect()
}

/// The next offsets of a group in a topic.
///
/// # Errors
/// Fatal when they are of another log.
pub(crate) fn committed(
    views: &Connection,
    group: &str,
    topic: &str,
    log: i64,
) -> Result<BTreeMap<i32, i64>, Failure> {
    let mut statement = views.prepare_cached(
        "SELECT partition, next_offset, log FROM progress WHERE consumer_group = ? AND topic = ?",
    )?;
    let mut rows = statement.query((group, topic))?;
    let mut offsets = BTreeMap::new();
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(2)? != log {
            return Err(Failure::new(
                Class::Fatal,
                format!(
                    "group {group} has read {topic} in another log.db than the one here: delete views.db to build \
                     everything anew from this log, or put the other log back"
                ),
            ));
        }
        offsets.insert(row.get(0)?, row.get(1)?);
    }
    Ok(offsets)
}

impl ProgressKeeper {
    /// Starts the thread; it opens the file at the first commit.
    pub(crate) fn start(database: Database, states: Database) -> Result<Self> {
        let who = database.who.clone();
        let (orders, inbox) = mailbox(REQUESTS_MAX);
        thread::Builder::new()
            .name("log-progress".into())
            .spawn(move || run(&database, states, &inbox))
            .map_err(|e| Error::retry(&who, "cannot start a thread").with_source(e))?;
        Ok(ProgressKeeper { orders, who })
    }

    /// Stores progress; durable when it returns.
    pub(crate) async fn store(&self, commit: Commit) -> Result<()> {
        self.work(Work::Commit(commit)).await
    }

    /// Sets or forgets progress, with the states of steps; durable when it returns.
    pub(crate) async fn set(&self, setting: Setting) -> Result<()> {
        self.work(Work::Set(setting)).await
    }

    async fn work(&self, work: Work) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::fatal(&self.who, "its thread has ended");
        self.orders.post(Order { work, reply }).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn run(database: &Database, states: Database, inbox: &Inbox<Order>) {
    let mut connection = None;
    // Taken when its tables are made.
    let mut states = Some(states);
    loop {
        let first = match inbox.wait(WAIT) {
            Wait::Closed => return,
            Wait::Idle => continue,
            Wait::Request(first) => first,
        };
        let mut group = vec![first];
        group.extend(std::iter::from_fn(|| inbox.try_next()).take(REQUESTS_MAX));
        let stored = store_all(database, &mut states, &mut connection, &group);
        for order in group {
            let answer = stored.clone().map_err(|failure| failure.error(&database.who));
            // The caller may be gone, which is no matter.
            drop(order.reply.send(answer));
        }
    }
}

fn store_all(
    database: &Database,
    states: &mut Option<Database>,
    connection: &mut Option<Connection>,
    group: &[Order],
) -> Result<(), Failure> {
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(database.open()?),
    };
    let has_states = group.iter().any(|order| match &order.work {
        Work::Commit(commit) => !commit.states.is_empty(),
        Work::Set(_) => true,
    });
    if let Some(part) = states.as_ref().filter(|_| has_states) {
        part.open()?;
        *states = None;
    }
    transact(connection, |views| {
        for Order { work, .. } in group {
            match work {
                Work::Commit(commit) => {
                    for (partition, next) in &commit.offsets {
                        store_offset(views, (&commit.group, &commit.topic), *partition, *next, commit.log)?;
                    }
                    store_states(views, commit)?;
                }
                Work::Set(setting) => set(views, setting)?,
            }
        }
        Ok(())
    })
    .map_err(Failure::never_reject)
}

fn store_offset(
    views: &Connection,
    (group, topic): (&str, &str),
    partition: i32,
    next: i64,
    log: i64,
) -> rusqlite::Result<()> {
    views
        .prepare_cached(
            "INSERT INTO progress(consumer_group, topic, partition, next_offset, log) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset, log = excluded.log",
        )?
        .execute((group, topic, partition, next, log))?;
    Ok(())
}

fn set(views: &Connection, Setting { group, topic, offsets }: &Setting) -> rusqlite::Result<()> {
    let Some((log, offsets)) = offsets else {
        views.execute("DELETE FROM progress WHERE consumer_group = ? AND topic = ?", (group, topic))?;
        views.execute("DELETE FROM states WHERE consumer_group = ? AND topic = ?", (group, topic))?;
        return Ok(());
    };
    let mut forget = views
        .prepare_cached("DELETE FROM states WHERE consumer_group = ? AND topic = ? AND partition = ?")?;
    for (partition, next) in offsets {
        store_offset(views, (group, topic), *partition, *next, *log)?;
        forget.execute((group, topic, partition))?;
    }
    Ok(())
}

fn store_states(views: &Connection, commit: &Commit) -> rusqlite::Result<()> {
    let Some((partition, _)) = commit.offsets.first().filter(|_| !commit.states.is_empty()) else {
        return Ok(());
    };
    let mut store = views.prepare_cached(
        "INSERT INTO states(consumer_group, topic, partition, step, state) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET state = excluded.state",
    )?;
    for (step, state) in &commit.states {
        store.execute((&commit.group, &commit.topic, partition, &**step, &**state))?;
    }
    Ok(())
}
