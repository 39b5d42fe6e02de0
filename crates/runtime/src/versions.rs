//! The versions of a step's module: the one that is wanted, and where on each partition each of them began.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, Weak},
};

use async_trait::async_trait;
use millrace_core::{Result, StepFactory};

use crate::{pipeline::ModuleAbout, trial::Tried};

/// A module as a step runs it.
#[derive(Clone)]
pub struct Version {
    /// Makes an instance per partition.
    pub factory: Arc<dyn StepFactory>,
    /// For dead letters and for `status`.
    pub about: ModuleAbout,
    /// Another one that is tried beside it; the factory makes both.
    pub trial: Option<Arc<Tried>>,
}

/// The versions of one step, for all its workers. Cloning shares them.
#[derive(Clone)]
pub struct Versions(Arc<Shared>);

/// Does not keep the versions of a step that no pipeline runs any more.
#[derive(Clone)]
pub struct WeakVersions(Weak<Shared>);

struct Shared {
    wanted: Mutex<Arc<Version>>,
    refused: Mutex<Option<Refused>>,
    /// Digests of those that failed and were replaced by the one before.
    quarantined: Mutex<BTreeSet<Arc<str>>>,
    source: Option<Arc<dyn VersionSource>>,
}

/// A version that could not be taken up, or failed again and again: another one runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub about: ModuleAbout,
    /// Why.
    pub reason: String,
}

/// Which versions the records of a partition were for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// In the order of offsets; each goes on until the next one begins.
    pub begun: Vec<Begun>,
    /// Where a pipeline that was put back had come to: up to here the last one goes on, whatever is wanted.
    pub reached: i64,
}

/// From this offset on, this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The first record's.
    pub offset: i64,
    /// SHA-256 of the module's bytes, in hex.
    pub digest: Arc<str>,
}

/// A step on a partition, as a lane has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepPlace {
    /// The lane's name.
    pub lane: Arc<str>,
    /// The step's id.
    pub step: Arc<str>,
    /// The partition.
    pub partition: i32,
}

/// Remembers where versions began, beyond the process: workers elsewhere read what is remembered here.
#[async_trait]
pub trait VersionLog: Send + Sync {
    /// What is remembered; what another worker has remembered before this was called is in it. Cancel-safe.
    ///
    /// # Errors
    /// Retry when the system is away. Fatal when it may not be read.
    async fn history(&self, place: &StepPlace) -> Result<History>;

    /// Replaces what is remembered; returns when it is durable. Not cancel-safe: it may have been done.
    ///
    /// # Errors
    /// As [`VersionLog::history`].
    async fn remember(&self, place: &StepPlace, history: &History) -> Result<()>;
}

/// Gives versions of a step's module that began earlier.
#[async_trait]
pub trait VersionSource: Send + Sync {
    /// The version of this digest; none where it is nowhere any more. Cancel-safe.
    ///
    /// # Errors
    /// Retry when the system is away. Fatal when the version may not run here.
    async fn version(&self, digest: &str) -> Result<Option<Version>>;
}

impl Versions {
    /// A module that never changes.
    pub fn fixed(version: Version) -> Self {
        Self::new(version, None)
    }

    /// A module that may change: earlier versions come from the source.
    pub fn changing(version: Version, source: Arc<dyn VersionSource>) -> Self {
        Self::new(version, Some(source))
    }

    fn new(version: Version, source: Option<Arc<dyn VersionSource>>) -> Self {
        let (wanted, refused, quarantined) =
            (Mutex::new(Arc::new(version)), Mutex::default(), Mutex::default());
        Versions(Arc::new(Shared { wanted, refused, quarantined, source }))
    }

    /// The one to run now.
    pub fn wanted(&self) -> Arc<Version> {
        lock(&self.0.wanted).clone()
    }

    /// From now on another one is wanted: each worker takes it up before its next batch.
    pub fn offer(&self, version: Version) {
        *lock(&self.0.refused) = None;
        lock(&self.0.quarantined).remove(&version.about.digest);
        *lock(&self.0.wanted) = Arc::new(version);
    }

    /// A version fails again and again: another one takes over, for all workers where it was the wanted one.
    pub(crate) fn fall_back(&self, failing: &ModuleAbout, to: Arc<Version>, reason: String) {
        lock(&self.0.quarantined).insert(failing.digest.clone());
        let mut wanted = lock(&self.0.wanted);
        if wanted.about.digest == failing.digest {
            *wanted = to;
            drop(wanted);
            self.refuse(failing.clone(), reason);
        }
    }

    /// Whether a version was found to fail again and again, and nobody wants it anew.
    pub fn is_quarantined(&self, digest: &str) -> bool {
        lock(&self.0.quarantined).contains(digest)
    }

    /// Notes that a version cannot be taken up.
    pub fn refuse(&self, about: ModuleAbout, reason: String) {
        *lock(&self.0.refused) = Some(Refused { about, reason });
    }

    /// The wanted one is the newest again: others that were refused are no matter any more.
    pub fn settle(&self) {
        let wanted = self.wanted();
        lock(&self.0.quarantined).clear();
        let mut refused = lock(&self.0.refused);
        if refused.as_ref().is_some_and(|refused| refused.about.digest != wanted.about.digest) {
            *refused = None;
        }
    }

    /// What could not be taken up last, if nothing else was wanted since.
    pub fn refused(&self) -> Option<Refused> {
        lock(&self.0.refused).clone()
    }

    /// Whether both are of the same step.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// To offer versions as long as somebody runs them.
    pub fn downgrade(&self) -> WeakVersions {
        WeakVersions(Arc::downgrade(&self.0))
    }

    pub(crate) fn source(&self) -> Option<&Arc<dyn VersionSource>> {
        self.0.source.as_ref()
    }
}

impl WeakVersions {
    /// None: no pipeline runs them any more.
    pub fn upgrade(&self) -> Option<Versions> {
        self.0.upgrade().map(Versions)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("invariant: nobody panics while holding a lock of versions")
}
