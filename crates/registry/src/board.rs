//! What the first partition says: claims to versions, what `latest` names, and uploads under way.
//!
//! Several may claim one version: the claim with the lowest offset has it, for whoever reads. Each claim has a key of
//! its own, so that neither a later one nor compaction can remove the first in favour of another.

use std::collections::BTreeMap;

use bytes::Bytes;
use millrace_core::{Error, Record, Result, Version, numbered::Found};

use crate::{
    entry::{Key, LatestEntry, UploadEntry, decode},
    manifest::Manifest,
    shelf::{Shelf, Versions},
};

/// The first partition as far as it was read.
#[derive(Default)]
pub(crate) struct Board {
    /// By key, the newest record of each.
    cells: BTreeMap<Bytes, (i64, Bytes)>,
}

/// The board's entries, understood.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// The claims to each version, the one that has it first.
    pub(crate) claims: BTreeMap<(String, Version), Vec<Claim>>,
    pub(crate) latest: BTreeMap<String, Found<LatestEntry>>,
    pub(crate) uploads: BTreeMap<String, UploadEntry>,
}

/// A claim to a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    offset: i64,
    pub(crate) upload: String,
    pub(crate) manifest: Found<Manifest>,
}

impl Board {
    pub(crate) fn take_in(&mut self, record: Record) {
        let Some(key) = record.key else { return };
        match record.value {
            Some(value) => drop(self.cells.insert(key, (record.offset, value))),
            None => drop(self.cells.remove(&key)),
        }
    }

    /// What is damaged is left out.
    pub(crate) fn entries(&self) -> Entries {
        let mut entries = Entries::default();
        for (key, (offset, value)) in &self.cells {
            if entries.add(key, *offset, value).is_none() {
                tracing::debug!(offset, "an entry of the registry is none of ours, or damaged");
            }
        }
        for claims in entries.claims.values_mut() {
            claims.sort_unstable_by_key(|claim| claim.offset);
        }
        entries
    }
}

impl Entries {
    fn add(&mut self, key: &[u8], offset: i64, value: &[u8]) -> Option<()> {
        match Key::parse(key)? {
            Key::Module { name, version, upload } => {
                let manifest = decode::<Manifest>(value)?;
                let is_other = |manifest: &Manifest| {
                    manifest.name != name || manifest.version != version || manifest.upload != upload
                };
                if matches!(&manifest, Found::Entry(manifest) if is_other(manifest)) {
                    return None;
                }
                let claims = self.claims.entry((name, version)).or_default();
                claims.push(Claim { offset, upload, manifest });
            }
            Key::Latest { name } => drop(self.latest.insert(name, decode(value)?)),
            Key::Upload { upload } => {
                if let Found::Entry(entry) = decode(value)? {
                    self.uploads.insert(upload, entry);
                }
            }
        }
        Some(())
    }

    /// The claim that has a version.
    pub(crate) fn holder(&self, name: &str, version: &Version) -> Option<&Claim> {
        self.claims.get(&(name.to_owned(), version.clone()))?.first()
    }

    /// What `latest` of a name says.
    ///
    /// # Errors
    /// Fatal: a newer program has written it.
    pub(crate) fn latest(&self, name: &str) -> Result<Option<&LatestEntry>> {
        match self.latest.get(name) {
            None => Ok(None),
            Some(Found::Entry(entry)) => Ok(Some(entry)),
            Some(Found::Newer(_)) => Err(newer(&format!("{name}@latest"))),
        }
    }

    pub(crate) fn shelf(&self) -> Shelf {
        let mut modules: BTreeMap<String, Versions> = BTreeMap::new();
        for ((name, version), claims) in &self.claims {
            let versions = modules.entry(name.clone()).or_default();
            match claims.first().map(|claim| &claim.manifest) {
                Some(Found::Entry(manifest)) => drop(versions.all.insert(version.clone(), manifest.clone())),
                Some(Found::Newer(_)) => versions.unreadable.push(version.clone()),
                None => {}
            }
        }
        for (name, versions) in &mut modules {
            let named = self.latest(name).ok().flatten().map(|entry| &entry.version);
            let is_there = |version: &&Version| self.holder(name, version).is_some();
            versions.latest = named.filter(is_there).cloned();
        }
        Shelf { modules }
    }
}

impl Claim {
    /// # Errors
    /// Fatal: a newer program has written it.
    pub(crate) fn manifest(&self, label: &str) -> Result<&Manifest> {
        match &self.manifest {
            Found::Entry(manifest) => Ok(manifest),
            Found::Newer(_) => Err(newer(label)),
        }
    }
}

fn newer(label: &str) -> Error {
    Error::fatal(format!("module {label}"), "was written by a newer program: use that program")
}
