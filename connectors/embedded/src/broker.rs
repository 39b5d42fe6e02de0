//! The broker on a folder, and its settings.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use millrace_core::{
    Admin, Broker, Error, Producer, Result, Source, Subscription,
    settings::{Field, Kind, Object, Settings, Shape},
};
use millrace_sqlite_file::{Clock, Database, Failure, system_clock};
use rusqlite::Connection;
use tokio::sync::OnceCell;

use crate::{
    admin::LogAdmin,
    layout::log_database,
    opened::Opened,
    outputs::outputs_database,
    progress::{ProgressKeeper, progress_database, states_database},
    room::Readers,
    run_lock::RunLock,
    seats::Seats,
    source::LogSource,
    writer::LogWriter,
};

/// `embedded:` under `brokers` in YAML.
pub static EMBEDDED: Kind = Kind { name: "embedded", settings: &SETTINGS };

static SETTINGS: Object = Object {
    name: "embedded",
    doc: "Topics in one SQLite file of a folder, for one machine: any number of processes append and read, one runs pipelines.",
    fields: &[Field::with_default(
        "dir",
        Shape::Path,
        DIR_DEFAULT,
        "the folder; it holds log.db, views.db and run.lock",
    )],
};

/// Where `--embedded` puts its folder as well.
const DIR_DEFAULT: &str = ".millrace";

/// The settings, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedSettings {
    /// The folder, made at first use.
    pub dir: PathBuf,
}

/// The embedded log of one folder. Opening is lazy: files are made by the first append or the first topic.
#[derive(Clone)]
pub struct EmbeddedBroker {
    inner: Arc<Inner>,
}

/// What producers, sources and the administration share.
pub(crate) struct Inner {
    dir: PathBuf,
    clock: Clock,
    log: Database,
    progress: Database,
    states: Database,
    pub(crate) readers: Readers,
    seats: Seats,
    writer: OnceCell<Arc<LogWriter>>,
    keeper: OnceCell<ProgressKeeper>,
}

impl EmbeddedSettings {
    /// Reads checked settings.
    pub fn read(settings: &Settings) -> Self {
        EmbeddedSettings { dir: settings.file("dir").unwrap_or_else(|| PathBuf::from(DIR_DEFAULT)) }
    }
}

impl EmbeddedBroker {
    /// The broker on a folder; touches nothing yet.
    pub fn new(settings: EmbeddedSettings) -> Self {
        Self::with_clock(settings, system_clock())
    }

    /// The same with a clock of the caller's: records are stamped and expire by it.
    pub fn with_clock(settings: EmbeddedSettings, clock: Clock) -> Self {
        let inner = Inner {
            log: log_database(&settings.dir),
            progress: progress_database(&settings.dir),
            states: states_database(&settings.dir),
            dir: settings.dir,
            clock,
            readers: Readers::default(),
            seats: Seats::default(),
            writer: OnceCell::new(),
            keeper: OnceCell::new(),
        };
        EmbeddedBroker { inner: Arc::new(inner) }
    }

    /// The right to run pipelines on the folder, for one process at a time. Takes over what a dead process
    /// held. Blocks for a file access only.
    ///
    /// # Errors
    /// Fatal when another process holds it, with [`crate::AlreadyRunning`] as the source, or when the folder
    /// cannot be used.
    pub fn run_lock(&self) -> Result<RunLock> {
        RunLock::take(&self.inner.dir)
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Source>> {
        let seat = match (&subscription.group, &subscription.partitions) {
            (Some(group), None) => {
                Some(self.inner.seats.take(group, &subscription.topic).ok_or_else(|| {
                    let why = format!("is read by another member of group {group}; the embedded log has one");
                    Error::fatal(format!("topic {}", subscription.topic), why)
                })?)
            }
            _ => None,
        };
        let keeper = match subscription.group {
            // Whoever has progress runs pipelines, and sees to it that old records go.
            Some(_) => {
                self.inner.writer().await?;
                Some(self.inner.keeper().await?)
            }
            None => None,
        };
        let (log, progress) = (self.inner.log.clone(), self.inner.progress.clone());
        let (opened, subscription) = blocking(&self.inner.log.who, move || {
            let opened = Opened::open(&log, &progress, &subscription)?;
            Ok((opened, subscription))
        })
        .await?;
        Ok(Box::new(LogSource::start(opened, subscription, keeper, seat, &self.inner)?))
    }

    async fn producer(&self) -> Result<Arc<dyn Producer>> {
        Ok(self.inner.writer().await?)
    }

    fn admin(&self) -> Arc<dyn Admin> {
        Arc::new(LogAdmin { inner: self.inner.clone() })
    }

    fn has_transactions(&self) -> bool {
        true
    }
}

impl Inner {
    /// Whether a source of this process reads the topic as the group.
    pub(crate) fn is_read(&self, group: &str, topic: &str) -> bool {
        self.seats.is_taken(group, topic)
    }

    pub(crate) async fn writer(&self) -> Result<Arc<LogWriter>> {
        let start = || async {
            let outputs = outputs_database(&self.dir);
            let writer =
                LogWriter::start(self.log.clone(), outputs, self.clock.clone(), self.readers.clone())?;
            Ok(Arc::new(writer))
        };
        self.writer.get_or_try_init(start).await.cloned()
    }

    pub(crate) async fn keeper(&self) -> Result<ProgressKeeper> {
        let start = || async { ProgressKeeper::start(self.progress.clone(), self.states.clone()) };
        self.keeper.get_or_try_init(start).await.cloned()
    }

    /// Reads from the log; none when there is none yet.
    pub(crate) async fn read_log<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<Option<T>> {
        read_from(self.log.clone(), read).await
    }

    /// Reads the states of steps; none when there are none yet.
    pub(crate) async fn read_states<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<Option<T>> {
        read_from(self.states.clone(), read).await
    }

    /// Reads progress; none when there is none yet.
    pub(crate) async fn read_progress<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<Option<T>> {
        read_from(self.progress.clone(), read).await
    }
}

async fn read_from<T: Send + 'static>(
    database: Database,
    read: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
) -> Result<Option<T>> {
    let who = database.who.clone();
    blocking(&who, move || {
        let connection = database.open_reader().map_err(|e| database.error(e))?;
        connection.map(|connection| read(&connection)).transpose().map_err(|e| database.error(e))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    who: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(Error::fatal(who, "the reading task ended").with_source(error)))
}
