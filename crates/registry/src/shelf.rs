//! All that a registry holds, and what a reference means in it.

use std::collections::BTreeMap;

use millrace_core::{Error, ModuleReference, Result, Version, VersionChoice, settings::did_you_mean};

use crate::manifest::Manifest;

/// Names listed in an error.
const LISTED_MAX: usize = 12;

/// All that a registry holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shelf {
    /// By name.
    pub modules: BTreeMap<String, Versions>,
}

/// The versions of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// What `latest` names.
    pub latest: Option<Version>,
    /// Those that can be read.
    pub all: BTreeMap<Version, Manifest>,
    /// Those that a newer program has deployed, in a format of its own.
    pub unreadable: Vec<Version>,
}

impl Shelf {
    /// The version that a reference means.
    ///
    /// # Errors
    /// Fatal: there is none; the error names those there are.
    pub fn resolve(&self, reference: &ModuleReference) -> Result<&Manifest> {
        let missing = |why: String| Error::fatal(format!("module {reference}"), why);
        let name = &reference.name;
        let versions = self.modules.get(name).ok_or_else(|| missing(self.no_module(name)))?;
        let version = match &reference.version {
            VersionChoice::Exact(version) => version,
            VersionChoice::Latest => versions.latest.as_ref().ok_or_else(|| {
                missing(format!(
                    "none is the latest: name one with 'millrace smartmodule rollback {name} --to VERSION' ({})",
                    versions.listed()
                ))
            })?,
        };
        if versions.unreadable.contains(version) {
            return Err(missing("was deployed by a newer program: use that program".to_owned()));
        }
        versions.all.get(version).ok_or_else(|| {
            missing(format!("is not in the registry; deploy it, or use another ({})", versions.listed()))
        })
    }

    /// A version by the digest of its code: any one, if several have the same.
    pub fn by_digest(&self, digest: &str) -> Option<&Manifest> {
        self.modules
            .values()
            .flat_map(|versions| versions.all.values())
            .find(|manifest| manifest.digest == digest)
    }

    /// What to say of a name that nothing is deployed under.
    pub fn no_module(&self, name: &str) -> String {
        let names = self.modules.keys().map(String::as_str);
        if let Some(advice) = did_you_mean(name, names.clone()) {
            return format!("nothing is deployed under this name; {advice}");
        }
        let listed: Vec<_> = names.clone().take(LISTED_MAX).collect();
        match listed.len() {
            0 => "nothing is deployed; 'millrace smartmodule deploy FILE.wasm' does it".to_owned(),
            shown if names.count() > shown => {
                format!("nothing is deployed under this name; there are {}, …", listed.join(", "))
            }
            _ => format!("nothing is deployed under this name; there are {}", listed.join(", ")),
        }
    }
}

impl Versions {
    /// The newest versions, for an error: `versions: 1.1.0, 1.0.0`.
    pub fn listed(&self) -> String {
        let mut all: Vec<&Version> = self.all.keys().chain(&self.unreadable).collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        let shown: Vec<String> = all.iter().take(LISTED_MAX).map(ToString::to_string).collect();
        let more = if all.len() > shown.len() { ", …" } else { "" };
        format!("versions: {}{more}", shown.join(", "))
    }
}
