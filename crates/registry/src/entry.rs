//! How the registry is written: keys, and numbered entries, as on the control topic.

use bytes::Bytes;
use millrace_core::{
    ModuleReference, NewRecord, Version, VersionChoice,
    numbered::{self, Found},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{manifest::Manifest, version_text};

/// The newest format this program reads, and the one it writes.
const FORMAT: u64 = 1;

/// The partition that says what there is.
pub(crate) const BOARD: i32 = 0;
/// The partition that holds code, so that reading what there is does not read it.
pub(crate) const CODE: i32 = 1;

const MODULE: &str = "module/";
const LATEST: &str = "latest/";
const UPLOAD: &str = "upload/";
const CHUNK: &str = "chunk/";

/// What lies under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// A claim to a version.
    Module { name: String, version: Version, upload: String },
    /// What `latest` of a name means.
    Latest { name: String },
    /// Pieces that are being written or removed.
    Upload { upload: String },
}

/// An upload under way: what would be left of it in a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UploadEntry {
    /// How many pieces it has at most.
    pub(crate) chunks: u32,
    /// Since when, ms since 1970.
    pub(crate) at_ms: i64,
}

/// What `latest` names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LatestEntry {
    /// Now.
    #[serde(with = "version_text")]
    pub(crate) version: Version,
    /// Before, the last one last.
    #[serde(default, with = "version_text::list")]
    pub(crate) before: Vec<Version>,
}

impl Key {
    /// None: it is none of ours.
    pub(crate) fn parse(key: &[u8]) -> Option<Key> {
        let key = std::str::from_utf8(key).ok()?;
        if let Some(rest) = key.strip_prefix(MODULE) {
            let mut parts = rest.splitn(3, '/');
            let label = format!("{}@{}", parts.next()?, parts.next()?);
            let ModuleReference { name, version: VersionChoice::Exact(version) } = label.parse().ok()? else {
                return None;
            };
            return Some(Key::Module { name, version, upload: parts.next()?.to_owned() });
        }
        if let Some(name) = key.strip_prefix(LATEST) {
            return Some(Key::Latest { name: name.to_owned() });
        }
        key.strip_prefix(UPLOAD).map(|upload| Key::Upload { upload: upload.to_owned() })
    }
}

/// A value of the board; none where it is damaged.
pub(crate) fn decode<T: DeserializeOwned>(value: &[u8]) -> Option<Found<T>> {
    numbered::decode(FORMAT, value).ok()
}

fn encode<T: Serialize>(entry: &T) -> Bytes {
    numbered::encode(FORMAT, entry)
}

fn record(partition: i32, key: String, value: Option<Bytes>) -> NewRecord {
    NewRecord { key: Some(key.into()), value, partition: Some(partition), ..NewRecord::default() }
}

/// A claim to a version.
pub(crate) fn claim(manifest: &Manifest) -> NewRecord {
    record(BOARD, module_key(&manifest.name, &manifest.version, &manifest.upload), Some(encode(manifest)))
}

/// Takes a claim back.
pub(crate) fn no_claim(name: &str, version: &Version, upload: &str) -> NewRecord {
    record(BOARD, module_key(name, version, upload), None)
}

/// Says what `latest` names, or that it names nothing.
pub(crate) fn latest(name: &str, entry: Option<&LatestEntry>) -> NewRecord {
    record(BOARD, format!("{LATEST}{name}"), entry.map(encode))
}

/// Says that pieces are being written or removed, or that none are any more.
pub(crate) fn upload(upload: &str, entry: Option<&UploadEntry>) -> NewRecord {
    record(BOARD, format!("{UPLOAD}{upload}"), entry.map(encode))
}

/// A piece of code, or its removal.
pub(crate) fn chunk(upload: &str, number: u32, value: Option<Bytes>) -> NewRecord {
    record(CODE, chunk_key(upload, number), value)
}

/// The key of a piece.
pub(crate) fn chunk_key(upload: &str, number: u32) -> String {
    format!("{CHUNK}{upload}/{number}")
}

fn module_key(name: &str, version: &Version, upload: &str) -> String {
    format!("{MODULE}{name}/{version}/{upload}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_none_of_ours_are_left_alone() {
        let key = |text: &str| Key::parse(text.as_bytes());
        let version = Version::new(1, 2, 0);
        let module = Key::Module { name: "a".into(), version, upload: "f00d".into() };
        assert_eq!(key("module/a/1.2.0/f00d"), Some(module));
        assert_eq!(key("latest/a"), Some(Key::Latest { name: "a".into() }));
        for foreign in [
            "module/a/1.2/f00d",
            "module/a/1.2.0",
            "module/a b/1.2.0/x",
            "module/a/latest/x",
            "chunk/x/0",
            "",
        ] {
            assert_eq!(key(foreign), None, "{foreign}");
        }
        assert_eq!(Key::parse(b"\xff"), None);
    }
}
