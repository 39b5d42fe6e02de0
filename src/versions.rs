//! Versions of deployed modules for pipelines that run: earlier ones by their digest, and `latest` when it moves.

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use millrace_core::{Class, Error, ModuleReference, Result, VersionChoice};
use millrace_engine::{ModuleOptions, SmartEngine};
use millrace_registry::{Manifest, ModuleRegistry, Shelf, VerifyingKey, verify};
use millrace_runtime::{ModuleAbout, Trial, Version, VersionSource, Versions, WeakVersions};
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Duration, MissedTickBehavior, interval},
};

use crate::report::say;

/// How often it is looked whether `latest` has moved.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Compiles and checks a module.
pub fn version(engine: &SmartEngine, label: &str, wasm: &[u8], options: &ModuleOptions) -> Result<Version> {
    let factory = engine.load(label, wasm, options)?;
    let digest = factory.info().sha256.clone();
    let about = ModuleAbout { module: label.into(), digest: digest.into() };
    Ok(Version { factory: Arc::new(factory), about, trial: None })
}

/// The deployed versions of a module, as a step runs them.
pub struct Deployed {
    /// Where they lie.
    pub registry: Arc<dyn ModuleRegistry>,
    /// Who must have signed them; none: nobody.
    pub keys: Option<Vec<VerifyingKey>>,
    /// What compiles them.
    pub engine: SmartEngine,
    /// The step's parameters and limits.
    pub options: ModuleOptions,
    /// Another version that is tried beside whichever of them runs.
    pub trial: Option<Trial>,
}

impl Deployed {
    /// A version with the one on trial beside it.
    pub fn trying(&self, version: Version) -> Result<Version> {
        match &self.trial {
            Some(trial) => version.trying(trial),
            None => Ok(version),
        }
    }

    async fn load(&self, manifest: &Manifest) -> Result<Version> {
        if let Some(keys) = &self.keys {
            verify(manifest, keys)?;
        }
        let wasm = self.registry.fetch(manifest).await?;
        self.trying(version(&self.engine, &manifest.label(), &wasm, &self.options)?)
    }
}

#[async_trait]
impl VersionSource for Deployed {
    async fn version(&self, digest: &str) -> Result<Option<Version>> {
        let shelf = self.registry.list().await?;
        match shelf.by_digest(digest) {
            Some(manifest) => self.load(manifest).await.map(Some),
            None => Ok(None),
        }
    }
}

/// The steps that run whatever `latest` names. Cloning shares them.
#[derive(Clone, Default)]
pub struct Following(Arc<Shared>);

#[derive(Default)]
struct Shared {
    followed: Mutex<Vec<Followed>>,
    /// What was seen last. One looks at a time.
    looked: AsyncMutex<Vec<Looked>>,
}

#[derive(Clone)]
struct Followed {
    reference: ModuleReference,
    versions: WeakVersions,
    deployed: Arc<Deployed>,
}

/// A registry as it was looked at.
struct Looked {
    registry: Arc<dyn ModuleRegistry>,
    revision: i64,
    shelf: Shelf,
}

impl Following {
    /// What a step runs from now on: it follows `latest`, until no pipeline runs it, or stays with a version. It is
    /// offered nothing any more of what was looked for before.
    pub fn set(&self, reference: &ModuleReference, versions: &Versions, deployed: Arc<Deployed>) {
        let mut followed = self.lock();
        followed.retain(|one| one.versions.upgrade().is_some_and(|other| !other.is(versions)));
        if reference.version == VersionChoice::Latest {
            let reference = reference.clone();
            followed.push(Followed { reference, versions: versions.downgrade(), deployed });
        }
    }

    /// Offers new versions to those who follow, for ever. Cancel-safe.
    pub async fn run(self) {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look().await;
        }
    }

    /// Offers what is new by now. What cannot be known is logged. Cancel-safe.
    pub async fn look(&self) {
        let mut looked = self.0.looked.lock().await;
        let followed = {
            let mut all = self.lock();
            all.retain(|followed| followed.versions.upgrade().is_some());
            all.clone()
        };
        looked
            .retain(|known| followed.iter().any(|one| Arc::ptr_eq(&one.deployed.registry, &known.registry)));
        for one in followed {
            let Some(versions) = one.versions.upgrade() else { continue };
            let offered = match shelf(&mut looked, &one.deployed.registry).await {
                Ok(shelf) => self.offer(&one, &versions, shelf).await,
                Err(error) => Err(error),
            };
            if let Err(error) = offered {
                tracing::debug!(module = %one.reference, error = %error.chain(), "whether there is a new version is not known");
            }
        }
    }

    /// Offers what `latest` names, if that is news. What cannot be run is refused, and what runs goes on.
    ///
    /// # Errors
    /// Retry: it is not known yet.
    async fn offer(&self, followed: &Followed, versions: &Versions, shelf: &Shelf) -> Result<()> {
        // Deleted, or nothing is the latest: there is nothing to take up.
        let Ok(manifest) = shelf.resolve(&followed.reference) else { return Ok(()) };
        if *versions.wanted().about.digest == *manifest.digest {
            versions.settle();
            return Ok(());
        }
        let is_refused = versions.refused().is_some_and(|refused| *refused.about.digest == *manifest.digest);
        if is_refused || versions.is_quarantined(&manifest.digest) {
            return Ok(());
        }
        let about = ModuleAbout { module: manifest.label().into(), digest: manifest.digest.as_str().into() };
        match followed.deployed.load(manifest).await.and_then(|version| fits(version, versions)) {
            Ok(version) => {
                if self.take_up(followed, versions, version) {
                    say(&format!("millrace: takes up {}, between two batches", about.module));
                }
            }
            Err(error) if error.class() == Class::Retry => return Err(error),
            Err(error) => {
                tracing::error!(module = &*about.module, error = %error.chain(), "a new version cannot be run, the one before goes on");
                versions.refuse(about, error.chain());
            }
        }
        Ok(())
    }

    /// Offers a version to a step that follows, unless it was set anew while the version was loaded.
    fn take_up(&self, followed: &Followed, versions: &Versions, version: Version) -> bool {
        let all = self.lock();
        let follows = all.iter().any(|one| Arc::ptr_eq(&one.deployed, &followed.deployed));
        if follows {
            versions.offer(version);
        }
        follows
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Followed>> {
        self.0.followed.lock().expect("invariant: nobody panics while holding the lock of what is followed")
    }
}

/// What a registry holds; it is read again when it has changed.
async fn shelf<'a>(looked: &'a mut Vec<Looked>, registry: &Arc<dyn ModuleRegistry>) -> Result<&'a Shelf> {
    let revision = registry.revision().await?;
    let known = looked.iter().position(|known| Arc::ptr_eq(&known.registry, registry));
    let index = match known {
        Some(index) => index,
        None => {
            looked.push(Looked { registry: registry.clone(), revision: -1, shelf: Shelf::default() });
            looked.len() - 1
        }
    };
    let known = &mut looked[index];
    if known.revision != revision {
        (known.shelf, known.revision) = (registry.list().await?, revision);
    }
    Ok(&looked[index].shelf)
}

/// Whether a version can take the place of another one: a pipeline works in transactions, or not, for as long as it
/// runs.
///
/// # Errors
/// Fatal: it cannot.
pub fn fits(version: Version, versions: &Versions) -> Result<Version> {
    if version.factory.keeps_state() == versions.wanted().factory.keeps_state() {
        return Ok(version);
    }
    let why =
        "one of it and the version that runs is an aggregate, and the other is not: start the pipeline again";
    Err(Error::fatal(format!("module {}", version.about.module), why))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use millrace_core::{Step, StepContext, StepFactory};
    use millrace_engine::EngineOptions;
    use millrace_registry::TopicRegistry;
    use millrace_testkit::memory::MemoryBroker;

    use super::*;

    struct NotOpened;

    impl StepFactory for NotOpened {
        fn open(&self, _: &StepContext) -> Result<Box<dyn Step>> {
            Err(Error::fatal("a step", "is not opened here"))
        }
    }

    fn of(digest: &str) -> Version {
        let about = ModuleAbout { module: "own".into(), digest: digest.into() };
        Version { factory: Arc::new(NotOpened), about, trial: None }
    }

    fn deployed() -> Arc<Deployed> {
        Arc::new(Deployed {
            registry: Arc::new(TopicRegistry::new(Arc::new(MemoryBroker::default()), "modules")),
            keys: None,
            engine: SmartEngine::new(EngineOptions::default()).unwrap(),
            options: ModuleOptions::default(),
            trial: None,
        })
    }

    #[test]
    fn a_step_that_was_set_anew_is_not_offered_what_was_looked_for_before() {
        let [latest, exact] =
            ["own@latest", "own@1.0.0"].map(|text| text.parse::<ModuleReference>().unwrap());
        for anew in [exact, latest.clone()] {
            let (following, versions) = (Following::default(), Versions::fixed(of("first")));
            following.set(&latest, &versions, deployed());
            let looked_for = following.lock().clone();
            assert!(following.take_up(&looked_for[0], &versions, of("second")));
            following.set(&anew, &versions, deployed());
            versions.offer(of("first"));
            assert!(!following.take_up(&looked_for[0], &versions, of("third")));
            assert_eq!(&*versions.wanted().about.digest, "first");
        }
    }
}
