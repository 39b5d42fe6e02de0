//! The contract of a registry, so that another one can stand in its place.

use async_trait::async_trait;
use bytes::Bytes;
use millrace_core::{Result, Version};

use crate::{manifest::Manifest, sheet::Sheet, shelf::Shelf, signature::SigningKey};

/// Holds modules by name and version. A version is never changed.
#[async_trait]
pub trait ModuleRegistry: Send + Sync {
    /// All there is, without code. Cancel-safe; changes nothing, not even to make a place for modules.
    ///
    /// # Errors
    /// Retry when the system is away; Fatal when it may not be read.
    async fn list(&self) -> Result<Shelf>;

    /// Changes whenever anything in the registry has; cheap to ask. 0 where there is nothing. Cancel-safe.
    ///
    /// # Errors
    /// As [`ModuleRegistry::list`].
    async fn revision(&self) -> Result<i64>;

    /// The code of a version, exactly that which was deployed: its digest has been compared. One that was deleted since
    /// it was listed may still be given. Cancel-safe.
    ///
    /// # Errors
    /// As [`ModuleRegistry::list`]. Fatal also when the code is not there or is not what the manifest says.
    async fn fetch(&self, manifest: &Manifest) -> Result<Bytes>;

    /// Makes a version known. It is there for all readers or, after an error or a crash, for none; what is then left of
    /// it is removed by a later deploy. The caller has made sure that the module can run.
    ///
    /// # Errors
    /// As [`ModuleRegistry::list`]. Reject: it is too large.
    async fn deploy(&self, module: NewModule<'_>) -> Result<Deployed>;

    /// Makes `latest` of a module name this version.
    ///
    /// # Errors
    /// As [`ModuleRegistry::list`]. Fatal also when there is no such version.
    async fn point(&self, name: &str, version: &Version) -> Result<Moved>;

    /// Makes `latest` of a module name what it named before.
    ///
    /// # Errors
    /// As [`ModuleRegistry::list`]. Fatal also when there was nothing before.
    async fn roll_back(&self, name: &str) -> Result<Moved>;

    /// Removes a version. The caller has made sure that nothing uses it.
    ///
    /// # Errors
    /// As [`ModuleRegistry::list`]. Fatal also when there is no such version, or `latest` names it and there are others.
    async fn delete(&self, name: &str, version: &Version) -> Result<Manifest>;
}

/// A version to deploy.
#[derive(Debug)]
pub struct NewModule<'a> {
    /// The module's name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// What it does with records: `filter`, `map`, …
    pub kind: String,
    /// Its code.
    pub wasm: &'a [u8],
    /// What its author says of it.
    pub sheet: Sheet,
    /// When, ms since 1970.
    pub at_ms: i64,
    /// By whom, for people.
    pub by: String,
    /// Who vouches for it.
    pub signer: Option<&'a SigningKey>,
    /// Whether `latest` names it from now on.
    pub latest: bool,
}

/// What a deploy came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deployed {
    /// The version is there.
    New(Manifest),
    /// The version was there already, with the same code.
    Same(Manifest),
    /// The version is taken by other code: perhaps of somebody who deployed at the same moment.
    Taken(Manifest),
}

/// How `latest` of a module was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// What it named before.
    pub from: Option<Version>,
    /// What it names.
    pub to: Version,
}
