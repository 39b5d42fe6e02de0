//! Versions as they are written: as texts.

use millrace_core::{Version, parse_version};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(crate) fn serialize<S: Serializer>(version: &Version, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(version)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
    parse_version(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// Several of them.
pub(crate) mod list {
    use super::{Deserialize, Deserializer, Error, Serializer, Version, parse_version};

    pub(crate) fn serialize<S: Serializer>(versions: &[Version], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(versions.iter().map(ToString::to_string))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Version>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| parse_version(text).map_err(D::Error::custom)).collect()
    }
}
