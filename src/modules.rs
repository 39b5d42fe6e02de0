//! The code of modules: part of the program, in files, or deployed; and whether it may run.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use bytes::Bytes;
use millrace_config::{ModulePlan, ModuleSource, Plan};
use millrace_core::{Error, ModuleReference, VersionChoice};
use millrace_registry::{Manifest, ModuleRegistry, Shelf, VerifyingKey, verify};

use crate::registry;

/// The registry of a plan. It is asked when a module of it is first wanted, and once for a file: all its pipelines then
/// begin with the same `latest`.
#[derive(Default)]
pub struct Modules {
    opened: Option<Opened>,
    /// SHA-256 by the name that the file uses, where the file was applied.
    pins: BTreeMap<String, String>,
}

struct Opened {
    registry: Arc<dyn ModuleRegistry>,
    shelf: Shelf,
    keys: Option<Vec<VerifyingKey>>,
}

/// A module's code, and what metrics and errors call it.
pub struct Code {
    pub label: String,
    pub wasm: Bytes,
}

/// What a plan says of its registry.
pub struct Access {
    pub registry: Arc<dyn ModuleRegistry>,
    pub keys: Option<Vec<VerifyingKey>>,
}

impl Modules {
    /// Those of an applied file, with the digests that it was applied with.
    pub fn pinned(pins: BTreeMap<String, String>) -> Self {
        Modules { opened: None, pins }
    }

    /// The code of a step's module.
    pub async fn code(&mut self, plan: &Plan, module: &ModulePlan) -> Result<Code, Error> {
        let label = module.module.clone();
        Ok(match &module.source {
            ModuleSource::Shipped => {
                Code { label, wasm: Bytes::from_static(registry::shipped_module(&module.module)) }
            }
            ModuleSource::File(path) => {
                let wasm = fs::read(path).map_err(|error| {
                    let why = format!("cannot read {}", path.display());
                    Error::fatal(format!("module {}", module.module), why).with_source(error)
                })?;
                Code { label, wasm: wasm.into() }
            }
            ModuleSource::Registry(reference) => self.deployed_code(plan, &module.module, reference).await?,
        })
    }

    /// The code of a deployed version, by the name that an applied file has it under.
    pub async fn deployed_code(
        &mut self,
        plan: &Plan,
        name: &str,
        reference: &ModuleReference,
    ) -> Result<Code, Error> {
        let manifest = self.deployed(plan, reference).await?;
        let pin = self.pins.get(name).filter(|_| reference.version != VersionChoice::Latest);
        if pin.is_some_and(|digest| *digest != manifest.digest) {
            let why = "was deleted and deployed with other code since the file was applied; apply the file again, or deploy that code under another version";
            return Err(Error::fatal(format!("module {}", manifest.label()), why));
        }
        let opened = self.opened(plan).await?;
        Ok(Code { label: manifest.label(), wasm: opened.registry.fetch(&manifest).await? })
    }

    /// The registry of the plan, and whose signatures it asks for.
    pub async fn access(&mut self, plan: &Plan) -> Result<Access, Error> {
        let Opened { registry, keys, .. } = self.opened(plan).await?;
        Ok(Access { registry: registry.clone(), keys: keys.clone() })
    }

    /// The deployed version that a reference means, if it may run here.
    pub async fn deployed(&mut self, plan: &Plan, reference: &ModuleReference) -> Result<Manifest, Error> {
        let opened = self.opened(plan).await?;
        let manifest = opened.shelf.resolve(reference)?;
        if let Some(keys) = &opened.keys {
            verify(manifest, keys)?;
        }
        Ok(manifest.clone())
    }

    async fn opened(&mut self, plan: &Plan) -> Result<&Opened, Error> {
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => {
                let registry = open(plan)?;
                let keys = plan.require_signature.as_ref();
                let keys = keys.map(|files| files.iter().map(|file| verifying_key(file)).collect());
                Opened { shelf: registry.list().await?, keys: keys.transpose()?, registry }
            }
        };
        Ok(self.opened.insert(opened))
    }
}

/// The registry of a plan. Connects at the first use.
fn open(plan: &Plan) -> Result<Arc<dyn ModuleRegistry>, Error> {
    let system =
        plan.brokers.get(&plan.state).expect("invariant: a checked plan has brokers, and names one of them");
    registry::module_registry(registry::open_broker(system)?, system)
}

fn verifying_key(file: &Path) -> Result<VerifyingKey, Error> {
    let who = || format!("require_signature: {}", file.display());
    let text = fs::read_to_string(file)
        .map_err(|error| Error::fatal(who(), "the key cannot be read").with_source(error))?;
    VerifyingKey::from_pem(&text).map_err(|error| Error::fatal(who(), "is no public key").with_source(error))
}
