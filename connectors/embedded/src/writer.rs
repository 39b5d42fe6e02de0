//! The thread that appends: what many senders ask for at once shares one transaction, and so one wait for the
//! disk. All answers of a transaction are given after it is durable.

use std::{sync::Arc, thread, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use millrace_core::{CreateOutcome, Error, NewRecord, Position, Producer, Result, TopicSpec};
use millrace_sqlite_file::{Clock, Database, Failure, Inbox, Mailbox, Wait, mailbox, transact};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::{
    admin,
    append::Appends,
    outputs::{self, Outputs, Owner},
    retention,
    room::Readers,
};

/// Requests that wait for the thread; more senders wait for room.
const REQUESTS_MAX: usize = 256;

/// A transaction takes no further request beyond so many records or bytes.
const GROUP_RECORDS_MAX: usize = 20_000;
const GROUP_BYTES_MAX: usize = 16 << 20;

/// How often heads are trimmed when nothing is appended, and how many rows of a partition at once.
const TRIM_EVERY: Duration = Duration::from_secs(1);
const TRIM_ROWS_MAX: usize = 5_000;

/// What the thread is asked to do.
pub(crate) enum Order {
    Append { topic: String, records: Vec<NewRecord>, reply: oneshot::Sender<Vec<Result<Position>>> },
    Create { spec: TopicSpec, reply: oneshot::Sender<Result<CreateOutcome>> },
    Outputs { owner: Owner, work: OutputWork, reply: oneshot::Sender<Result<()>> },
}

/// What is to be done with the outputs of a batch.
pub(crate) enum OutputWork {
    Hold(Outputs),
    Forget { whoever: bool },
    Reset,
    Apply { topics: Vec<Arc<str>>, outputs: Outputs, next_offset: i64 },
}

/// What an order came to, valid once the transaction is committed.
enum Outcome {
    Appended(Vec<Result<Position>>),
    Created(CreateOutcome),
    Worked,
}

/// The callers' side.
pub(crate) struct LogWriter {
    orders: Mailbox<Order>,
    who: String,
}

/// The thread's side.
struct Thread {
    database: Database,
    /// Taken when its tables are made.
    outputs: Option<Database>,
    connection: Option<Connection>,
    clock: Clock,
    readers: Readers,
    keyless: u32,
}

impl LogWriter {
    /// Starts the thread; it opens the file at the first order.
    pub(crate) fn start(
        database: Database,
        outputs: Database,
        clock: Clock,
        readers: Readers,
    ) -> Result<Self> {
        let who = database.who.clone();
        let (orders, inbox) = mailbox(REQUESTS_MAX);
        let outputs = Some(outputs);
        let thread = Thread { database, outputs, connection: None, clock, readers, keyless: 0 };
        thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || thread.run(&inbox))
            .map_err(|e| Error::retry(&who, "cannot start a thread").with_source(e))?;
        Ok(LogWriter { orders, who })
    }

    /// Creates a topic unless it is there.
    pub(crate) async fn create(&self, spec: TopicSpec) -> Result<CreateOutcome> {
        let (reply, answer) = oneshot::channel();
        if self.orders.post(Order::Create { spec, reply }).await.is_err() {
            return Err(self.gone());
        }
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Holds outputs back in the file.
    pub(crate) async fn hold(&self, owner: Owner, outputs: Outputs) -> Result<()> {
        self.work(owner, OutputWork::Hold(outputs)).await
    }

    /// Forgets what is held back, by this holder or by whomever.
    pub(crate) async fn forget(&self, owner: Owner, whoever: bool) -> Result<()> {
        self.work(owner, OutputWork::Forget { whoever }).await
    }

    /// Forgets which outputs are in their topics.
    pub(crate) async fn reset(&self, owner: Owner) -> Result<()> {
        self.work(owner, OutputWork::Reset).await
    }

    /// Appends what is held back and these to the topics, which are named, but for what is there already.
    pub(crate) async fn apply(
        &self,
        owner: Owner,
        topics: Vec<Arc<str>>,
        outputs: Outputs,
        next_offset: i64,
    ) -> Result<()> {
        self.work(owner, OutputWork::Apply { topics, outputs, next_offset }).await
    }

    async fn work(&self, owner: Owner, work: OutputWork) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        if self.orders.post(Order::Outputs { owner, work, reply }).await.is_err() {
            return Err(self.gone());
        }
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn gone(&self) -> Error {
        Error::fatal(&self.who, "its thread has ended")
    }
}

#[async_trait]
impl Producer for LogWriter {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<Position>> {
        let count = records.len();
        if count == 0 {
            return Vec::new();
        }
        let (reply, answers) = oneshot::channel();
        if self.orders.post(Order::Append { topic: topic.to_owned(), records, reply }).await.is_ok()
            && let Ok(answers) = answers.await
        {
            return answers;
        }
        (0..count).map(|_| Err(self.gone())).collect()
    }
}

impl Thread {
    fn run(mut self, inbox: &Inbox<Order>) {
        let mut next_trim = TRIM_EVERY;
        loop {
            match inbox.wait(next_trim) {
                Wait::Closed => return,
                Wait::Idle => next_trim = if self.trim() { Duration::ZERO } else { TRIM_EVERY },
                Wait::Request(first) => {
                    let group = gather(first, inbox);
                    self.carry_out(group);
                    next_trim = TRIM_EVERY;
                }
            }
        }
    }

    /// One transaction for all; on a failure nothing of it stays and all are told.
    fn carry_out(&mut self, group: Vec<Order>) {
        match self.try_all(&group) {
            Ok(outcomes) => {
                self.readers.wake(&group.iter().flat_map(Order::topics).collect());
                group.into_iter().zip(outcomes).for_each(|(order, outcome)| order.answer(outcome));
            }
            Err(failure) => {
                let failure = failure.never_reject();
                let who = &self.database.who;
                tracing::warn!(error = failure.error(who).chain(), "the log could not be written");
                group.into_iter().for_each(|order| order.refuse(&failure, who));
            }
        }
    }

    fn try_all(&mut self, group: &[Order]) -> Result<Vec<Outcome>, Failure> {
        let now_ms = (self.clock)();
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.database.open()?),
        };
        let has_outputs = group.iter().any(|order| matches!(order, Order::Outputs { .. }));
        if let Some(part) = self.outputs.as_ref().filter(|_| has_outputs) {
            part.open()?;
            self.outputs = None;
        }
        transact(connection, |log| {
            let mut appends = Appends::new(log, now_ms, &mut self.keyless);
            let outcomes = group
                .iter()
                .map(|order| match order {
                    Order::Create { spec, .. } => Ok(Outcome::Created(admin::create(log, spec)?)),
                    Order::Append { topic, records, .. } => {
                        Ok(Outcome::Appended(appends.append(topic, records)?))
                    }
                    Order::Outputs { owner, work, .. } => {
                        match work {
                            OutputWork::Hold(records) => outputs::hold(log, owner, records)?,
                            OutputWork::Forget { whoever } => outputs::forget(log, owner, *whoever)?,
                            OutputWork::Reset => outputs::reset(log, owner)?,
                            OutputWork::Apply { outputs, next_offset, .. } => {
                                outputs::apply(log, &mut appends, owner, outputs, *next_offset)?;
                            }
                        }
                        Ok(Outcome::Worked)
                    }
                })
                .collect::<Result<_, Failure>>()?;
            appends.finish()?;
            Ok(outcomes)
        })
    }

    /// Whether there is more to trim.
    fn trim(&mut self) -> bool {
        let now_ms = (self.clock)();
        if self.connection.is_none() && self.database.path.exists() {
            // A failure shows again at the first order.
            self.connection = self.database.open().ok();
        }
        let Some(connection) = &mut self.connection else { return false };
        let trimmed = transact(connection, |log| Ok(retention::trim_all(log, now_ms, TRIM_ROWS_MAX)?));
        trimmed.unwrap_or_else(|failure| {
            let error = failure.error(&self.database.who);
            tracing::warn!(error = error.chain(), "old records could not be removed");
            false
        })
    }
}

impl Order {
    /// The topics that may have got records.
    fn topics(&self) -> Vec<&str> {
        match self {
            Order::Append { topic, .. } => vec![topic],
            Order::Outputs { work: OutputWork::Apply { topics, .. }, .. } => {
                topics.iter().map(|topic| &**topic).collect()
            }
            Order::Create { .. } | Order::Outputs { .. } => Vec::new(),
        }
    }

    /// Records and bytes.
    fn size(&self) -> (usize, usize) {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let bytes = |record: &NewRecord| length(&record.key) + length(&record.value);
        match self {
            Order::Append { records, .. } => (records.len(), records.iter().map(bytes).sum()),
            Order::Outputs {
                work: OutputWork::Hold(outputs) | OutputWork::Apply { outputs, .. }, ..
            } => (outputs.len(), outputs.iter().map(|(_, record)| bytes(record)).sum()),
            Order::Create { .. } | Order::Outputs { .. } => (0, 0),
        }
    }

    /// The caller may be gone, which is no matter.
    fn answer(self, outcome: Outcome) {
        match (self, outcome) {
            (Order::Create { reply, .. }, Outcome::Created(outcome)) => drop(reply.send(Ok(outcome))),
            (Order::Append { reply, .. }, Outcome::Appended(answers)) => drop(reply.send(answers)),
            (Order::Outputs { reply, .. }, Outcome::Worked) => drop(reply.send(Ok(()))),
            (Order::Create { .. } | Order::Append { .. } | Order::Outputs { .. }, _) => {
                unreachable!("an outcome is made of its own order")
            }
        }
    }

    fn refuse(self, failure: &Failure, who: &str) {
        match self {
            Order::Create { reply, .. } => drop(reply.send(Err(failure.error(who)))),
            Order::Outputs { reply, .. } => drop(reply.send(Err(failure.error(who)))),
            Order::Append { records, reply, .. } => {
                drop(reply.send(records.iter().map(|_| Err(failure.error(who))).collect()));
            }
        }
    }
}

/// The first order and those that wait behind it, up to the bounds of a transaction.
fn gather(first: Order, inbox: &Inbox<Order>) -> Vec<Order> {
    let (mut records, mut bytes) = first.size();
    let mut group = vec![first];
    while records < GROUP_RECORDS_MAX && bytes < GROUP_BYTES_MAX {
        let Some(order) = inbox.try_next() else { break };
        let size = order.size();
        records += size.0;
        bytes += size.1;
        group.push(order);
    }
    group
}
