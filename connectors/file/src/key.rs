//! Taking a record's key from a field of its JSON value, without building the value.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};

/// A dotted path to a field, as `payload.user_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPath {
    names: Vec<String>,
}

/// Why a line has no key: it is produced without one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// The line is not JSON.
    #[error("not JSON, produced without a key")]
    NotJson,
    /// The field is missing, or neither text nor an integer.
    #[error("no text or integer at '{0}', produced without a key")]
    NoField(String),
}

impl KeyPath {
    /// Parses a path. None where a name is empty.
    pub fn parse(path: &str) -> Option<Self> {
        let names: Vec<String> = path.split('.').map(str::to_owned).collect();
        names.iter().all(|name| !name.is_empty()).then_some(KeyPath { names })
    }

    /// The key of a line.
    ///
    /// # Errors
    /// The line is not JSON, or has no such field.
    pub fn key_of(&self, line: &[u8]) -> Result<Bytes, NoKey> {
        let mut deserializer = serde_json::Deserializer::from_slice(line);
        let found = Descend(&self.names).deserialize(&mut deserializer).map_err(|_| NoKey::NotJson)?;
        deserializer.end().map_err(|_| NoKey::NotJson)?;
        found.map(Bytes::from).ok_or_else(|| NoKey::NoField(self.names.join(".")))
    }
}

/// Reads one value: the leaf when no names are left, else the named entry of an object.
struct Descend<'a>(&'a [String]);

#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Descend<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Descend<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Name(name)) = map.next_key()? {
            match self.0.split_first() {
                Some((wanted, rest)) if name == wanted.as_str() => {
                    found = map.next_value_seed(Descend(rest))?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.0.is_empty().then(|| text.to_owned()))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(self.0.is_empty().then(|| number.to_string()))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(self.0.is_empty().then(|| number.to_string()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Self::Value, E> {
        if number.is_finite() { Ok(None) } else { Err(E::custom("not finite")) }
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(path: &str, line: &str) -> Result<String, String> {
        let key = KeyPath::parse(path).unwrap().key_of(line.as_bytes());
        key.map(|key| String::from_utf8(key.to_vec()).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn finds_text_and_integers() {
        let line = r#"{"a":[1,{"b":2}],"payload":{"x":null,"user_id":"u1","n":7}}"#;
        assert_eq!(key("payload.user_id", line).unwrap(), "u1");
        assert_eq!(key("payload.n", line).unwrap(), "7");
    }

    #[test]
    fn says_why_there_is_none() {
        for line in [r#"{"a":1.5}"#, r#"{"a":{"b":1}}"#, "[]", "5", r#"{"a":null}"#, r#"{"b":1}"#] {
            assert!(key("a", line).unwrap_err().contains("at 'a'"), "{line}");
        }
        for line in ["", "{", r#"{"a":"x"} trailing"#, "nonsense", "\u{0}"] {
            assert!(key("a", line).unwrap_err().contains("not JSON"), "{line}");
        }
        assert_eq!(KeyPath::parse("a..b"), None);
    }
}
