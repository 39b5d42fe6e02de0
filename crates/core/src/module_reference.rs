//! How a pipeline names a deployed module: `name@1.2.0`, or `name@latest` to follow what is deployed.

use std::{fmt, str::FromStr};

pub use semver::Version;

/// The longest name of a module, in bytes.
pub const MODULE_NAME_BYTES_MAX: usize = 100;
/// The longest version, in bytes.
const VERSION_BYTES_MAX: usize = 64;
/// What stands in place of a version to follow the newest.
const LATEST: &str = "latest";

/// A deployed module as it is named where it is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleReference {
    /// The module's name.
    pub name: String,
    /// Which of its versions.
    pub version: VersionChoice,
}

/// Which version of a module is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VersionChoice {
    /// This one, always.
    Exact(Version),
    /// The one that `latest` names at the time.
    Latest,
}

/// Why a text names no module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModuleReferenceError {
    /// There is no `@`.
    #[error("it names no version: write NAME@1.2.0, or NAME@latest to follow what is deployed")]
    NoVersion,
    /// The part before `@`.
    #[error("a module's name is 1 to {MODULE_NAME_BYTES_MAX} of: letters, digits, '.', '_' and '-'")]
    Name,
    /// The part after `@`.
    #[error("a version is three numbers, as 1.2.0 or 1.2.0-rc.1, or 'latest'")]
    Version,
}

/// Whether a module may be called so.
pub fn is_module_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MODULE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// A version as it may be deployed: three numbers and perhaps a pre-release. Build metadata would make two versions
/// that no order tells apart.
///
/// # Errors
/// It is none.
pub fn parse_version(text: &str) -> Result<Version, ModuleReferenceError> {
    let parsed = if text.len() <= VERSION_BYTES_MAX { Version::parse(text).ok() } else { None };
    parsed.filter(|version| version.build.is_empty()).ok_or(ModuleReferenceError::Version)
}

impl FromStr for ModuleReference {
    type Err = ModuleReferenceError;

    fn from_str(text: &str) -> Result<Self, ModuleReferenceError> {
        let (name, version) = text.split_once('@').ok_or(ModuleReferenceError::NoVersion)?;
        if !is_module_name(name) {
            return Err(ModuleReferenceError::Name);
        }
        let version = match version {
            LATEST => VersionChoice::Latest,
            text => VersionChoice::Exact(parse_version(text)?),
        };
        Ok(ModuleReference { name: name.to_owned(), version })
    }
}

impl fmt::Display for ModuleReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

impl fmt::Display for VersionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VersionChoice::Exact(version) => version.fmt(f),
            VersionChoice::Latest => f.write_str(LATEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_a_name_and_a_version() {
        for text in ["feed-fanout@1.2.0", "a@latest", "A_b.c@0.0.0-rc.1"] {
            assert_eq!(
                text.parse::<ModuleReference>().map(|reference| reference.to_string()),
                Ok(text.into())
            );
        }
        let wrong = [
            ("feed-fanout", ModuleReferenceError::NoVersion),
            ("@1.0.0", ModuleReferenceError::Name),
            ("a/b@1.0.0", ModuleReferenceError::Name),
            ("a@", ModuleReferenceError::Version),
            ("a@1.0", ModuleReferenceError::Version),
            ("a@1.0.0+build", ModuleReferenceError::Version),
            ("a@1.0.0@latest", ModuleReferenceError::Version),
        ];
        for (text, error) in wrong {
            assert_eq!(text.parse::<ModuleReference>(), Err(error), "{text}");
        }
        assert_eq!(
            format!("a@1.0.0-{}", "x".repeat(70)).parse::<ModuleReference>(),
            Err(ModuleReferenceError::Version)
        );
    }
}
