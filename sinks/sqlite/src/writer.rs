//! The thread that writes: what waits for it shares a transaction, a failure undoes its own work alone.
//!
//! A savepoint copies every page that is changed under it. So a group of requests is first done without any; when
//! something fails, which is seldom, all of it is undone and done again with a savepoint around each attempt.

use std::{cell::Cell, time::Duration};

use millrace_core::{Class, Error};
use millrace_sqlite_file::{Clock, Database, Failure, Inbox, Mailbox, Wait, mailbox};
use rusqlite::{CachedStatement, Connection, TransactionBehavior};
use tokio::sync::oneshot;

use crate::prune::prune;

/// Requests that wait for the thread; more callers wait for room.
const REQUESTS_MAX: usize = 64;

/// Requests that share a transaction.
const GROUP_MAX: usize = 64;

/// How often expired rows are looked for when nothing is written.
const PRUNE_EVERY: Duration = Duration::from_secs(1);

/// Hands work to the thread. The thread ends when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Writer {
    requests: Mailbox<Box<dyn Request>>,
    database: Database,
}

/// A transaction under way.
pub(crate) struct Tx<'a> {
    db: &'a Connection,
    mode: Mode,
    /// Whether something failed that could not be undone alone.
    spoilt: Cell<bool>,
    /// The clock when the work began, ms since 1970.
    pub(crate) now_ms: i64,
}

/// How a transaction is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// As a whole: a failure spoils it.
    Quick,
    /// With a savepoint around each attempt.
    Careful,
}

/// Work that waits for the thread.
trait Request: Send {
    /// Does the work and keeps what came of it; may be done again after a rollback.
    fn work(&mut self, tx: &Tx<'_>);

    /// Answers, when the transaction has ended.
    fn answer(self: Box<Self>, ended: Result<(), Failure>);
}

/// Work, and who waits for it.
struct Order<T, W> {
    work: W,
    done: Option<Result<T, Failure>>,
    answer: oneshot::Sender<Result<T, Failure>>,
}

impl Writer {
    /// Starts the thread on an opened connection.
    ///
    /// # Errors
    /// Retry when the system has no thread to give.
    pub(crate) fn start(database: Database, connection: Connection, clock: Clock) -> Result<Self, Error> {
        let (requests, inbox) = mailbox(REQUESTS_MAX);
        let who = database.who.clone();
        std::thread::Builder::new()
            .name("millrace-views".to_owned())
            .spawn(move || serve(connection, &inbox, &clock, &who))
            .map_err(|e| Error::retry(&*database.who, "cannot start a thread").with_source(e))?;
        Ok(Writer { requests, database })
    }

    /// How errors name the file.
    pub(crate) fn who(&self) -> &str {
        &self.database.who
    }

    /// The error of a failed piece of work.
    pub(crate) fn error(&self, failure: Failure) -> Error {
        self.database.error(failure)
    }

    /// Does `work` in a transaction and returns when it is on the disk; failed work leaves nothing. It may be done
    /// twice, the first time in vain. Once queued it is done, also when the caller stops waiting.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Fn(&Tx<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (answer, answered) = oneshot::channel();
        let order: Box<dyn Request> = Box::new(Order { work, done: None, answer });
        self.requests.post(order).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl<T: Send, W: Fn(&Tx<'_>) -> Result<T, Failure> + Send> Request for Order<T, W> {
    fn work(&mut self, tx: &Tx<'_>) {
        self.done = Some(tx.attempt(|| (self.work)(tx)));
    }

    fn answer(self: Box<Self>, ended: Result<(), Failure>) {
        let done = match ended {
            Ok(()) => self.done.unwrap_or_else(|| Err(gone())),
            Err(failure) => Err(failure),
        };
        // Nobody listens any more when the caller was cancelled.
        drop(self.answer.send(done));
    }
}

impl<'a> Tx<'a> {
    /// A prepared statement.
    pub(crate) fn statement(&self, sql: &str) -> Result<CachedStatement<'a>, Failure> {
        Ok(self.db.prepare_cached(sql)?)
    }

    /// Runs statements that are seldom used.
    pub(crate) fn batch(&self, sql: &str) -> Result<(), Failure> {
        Ok(self.db.execute_batch(sql)?)
    }

    /// Does `work`; nothing of it stays if it fails.
    pub(crate) fn attempt<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        if self.mode == Mode::Quick {
            return work().inspect_err(|_| self.spoilt.set(true));
        }
        self.statement("SAVEPOINT attempt")?.execute(())?;
        match work() {
            Ok(done) => {
                self.statement("RELEASE attempt")?.execute(())?;
                Ok(done)
            }
            // After a failed disk SQLite has undone the whole transaction itself.
            Err(failure) if self.db.is_autocommit() => Err(failure),
            Err(failure) => {
                self.batch("ROLLBACK TO attempt; RELEASE attempt")?;
                Err(failure)
            }
        }
    }
}

fn serve(mut connection: Connection, inbox: &Inbox<Box<dyn Request>>, clock: &Clock, who: &str) {
    loop {
        match inbox.wait(PRUNE_EVERY) {
            Wait::Request(first) => {
                let mut group = vec![first];
                while let Some(next) = (group.len() < GROUP_MAX).then(|| inbox.try_next()).flatten() {
                    group.push(next);
                }
                let ended = serve_group(&mut connection, &mut group, clock());
                log("a transaction failed", who, &ended);
                for request in group {
                    request.answer(ended.clone());
                }
            }
            Wait::Idle => log("expired rows stay", who, &serve_nobody(&mut connection, clock())),
            Wait::Closed => return,
        }
    }
}

/// One transaction for all of a group.
fn serve_group(
    connection: &mut Connection,
    group: &mut [Box<dyn Request>],
    now_ms: i64,
) -> Result<(), Failure> {
    for mode in [Mode::Quick, Mode::Careful] {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let tx = Tx { db: &transaction, mode, spoilt: Cell::new(false), now_ms };
        for request in &mut *group {
            request.work(&tx);
            if tx.spoilt.get() || transaction.is_autocommit() {
                break;
            }
        }
        if tx.spoilt.get() {
            // Rolls back, where SQLite has not done so itself.
            drop(transaction);
            continue;
        }
        if transaction.is_autocommit() {
            return Err(Failure::new(Class::Retry, "the transaction was undone: the disk is full or fails"));
        }
        prune(&tx)?;
        return Ok(transaction.commit()?);
    }
    Err(gone())
}

/// Removes expired rows; where there are none, nothing is written.
fn serve_nobody(connection: &mut Connection, now_ms: i64) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    prune(&Tx { db: &transaction, mode: Mode::Quick, spoilt: Cell::new(false), now_ms })?;
    Ok(transaction.commit()?)
}

fn log(what: &str, who: &str, ended: &Result<(), Failure>) {
    if let Err(failure) = ended {
        tracing::warn!(cause = failure.error(who).chain(), "{what}");
    }
}

fn gone() -> Failure {
    Failure::new(Class::Fatal, "the thread that writes has ended")
}
