//! What is known of a deployed version without its code. Its fields are its format: one that is not there is read as none.

use millrace_core::Version;
use serde::{Deserialize, Serialize};

use crate::version_text;

/// A deployed version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The module's name.
    pub name: String,
    /// The version.
    #[serde(with = "version_text")]
    pub version: Version,
    /// What it does with records: `filter`, `map`, …
    pub kind: String,
    /// SHA-256 of its code, in hex.
    pub digest: String,
    /// The size of its code in bytes.
    pub size_bytes: u64,
    /// Its size as it lies in the registry, in bytes.
    pub stored_bytes: u64,
    /// In how many pieces it lies there.
    pub chunks: u32,
    /// What names these pieces; every deploy has its own.
    pub upload: String,
    /// Where the first piece was written: a hint only, a copied topic has other offsets.
    #[serde(default)]
    pub first_chunk_offset: i64,
    /// What its author says of it, in a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
    /// The top-level fields of its output, where its author names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_fields: Option<Vec<String>>,
    /// When it was deployed, ms since 1970.
    pub deployed_at_ms: i64,
    /// By whom.
    pub deployed_by: String,
    /// Who vouches for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// A parameter of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether the module does without it.
    #[serde(default)]
    pub optional: bool,
}

/// An ed25519 signature of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The id of the key it was made with.
    pub key: String,
    /// The signature, in base64.
    pub signature: String,
}

impl Manifest {
    /// `name@version`.
    pub fn label(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}
