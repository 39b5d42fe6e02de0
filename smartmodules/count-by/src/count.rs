//! The counts, and how an event adds to them. They are bounded: by the number of keys and by the length of each.

use std::borrow::Cow;
use std::collections::BTreeMap;

use event::{Error, Field, Params, Path, text};
use serde::{Deserialize, Serialize};

const KEYS_MAX: usize = 10_000;
const KEYS_MAX_LIMIT: usize = 100_000;
const KEY_BYTES_MAX: usize = 256;
/// Counts what comes after the last key that there is room for.
const OTHER: &str = "_other";

/// The parameters.
#[derive(Debug)]
pub struct Settings {
    by: Path,
    keys_max: usize,
}

/// The accumulator, which is also the output. Keys are sorted, so equal counts have equal bytes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counts {
    total: u64,
    counts: BTreeMap<String, u64>,
}

impl Settings {
    /// Reads `by`, the path of the field, and `keys_max`.
    pub fn new(params: BTreeMap<String, String>) -> Result<Self, Error> {
        let params = Params::new(params, &["by", "keys_max"])?;
        let by = Path::parse("by", params.required("by")?)?;
        let keys_max = match params.get("keys_max") {
            None => KEYS_MAX,
            Some(value) => {
                value.parse().ok().filter(|keys| (1..=KEYS_MAX_LIMIT).contains(keys)).ok_or_else(|| {
                    Error::param("keys_max", format!("is not an integer from 1 to {KEYS_MAX_LIMIT}"))
                })?
            }
        };
        Ok(Self { by, keys_max })
    }

    /// The accumulator after one more event. An empty one begins at nothing.
    pub fn add(&self, accumulator: &[u8], value: &[u8]) -> Result<Vec<u8>, Error> {
        let key = key_of(&self.by.find(value)?)?;
        let mut counts = if accumulator.is_empty() {
            Counts::default()
        } else {
            serde_json::from_slice(accumulator)
                .map_err(|_| Error::wrong("accumulator", r#"{"total":n,"counts":{…}}"#))?
        };
        counts.add(&key, self.keys_max);
        Ok(serde_json::to_vec(&counts).expect("invariant: counts are always written to memory"))
    }
}

impl Counts {
    fn add(&mut self, key: &str, keys_max: usize) {
        self.total = self.total.saturating_add(1);
        if let Some(count) = self.counts.get_mut(key) {
            *count = count.saturating_add(1);
            return;
        }
        let keys = self.counts.len() - usize::from(self.counts.contains_key(OTHER));
        let key = if keys < keys_max { key } else { OTHER };
        let count = self.counts.entry(key.into()).or_insert(0);
        *count = count.saturating_add(1);
    }
}

/// The value of the field as a key: a string's text, a number or boolean as it was written.
fn key_of<'a>(field: &Field<'a, '_>) -> Result<Cow<'a, str>, Error> {
    let json = field.required()?;
    let key = match json.as_bytes().first() {
        Some(b'"') => text(json),
        Some(b'{' | b'[') | None => None,
        Some(_) => Some(Cow::Borrowed(json)),
    };
    let key = key.ok_or_else(|| Error::wrong(field.path(), "a non-empty string, a number or a boolean"))?;
    if key.len() > KEY_BYTES_MAX {
        return Err(Error::wrong(field.path(), format!("at most {KEY_BYTES_MAX} bytes long")));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn make(params: &[(&str, &str)]) -> Result<Settings, String> {
        let params = params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::new(params).map_err(|e| e.to_string())
    }

    fn count(settings: &Settings, values: &[&str]) -> String {
        let counts = values.iter().fold(Vec::new(), |counts, value| {
            let event = format!(r#"{{"payload":{{"state":{value}}}}}"#);
            settings.add(&counts, event.as_bytes()).unwrap()
        });
        String::from_utf8(counts).unwrap()
    }

    #[test]
    fn events_are_counted_by_value_in_sorted_order() {
        let settings = make(&[("by", "payload.state")]).unwrap();
        let counts = count(&settings, &["\"SP\"", "\"RJ\"", "\"SP\"", "7", "true", "1.0", "\"\\u0053P\""]);
        assert_eq!(counts, r#"{"total":7,"counts":{"1.0":1,"7":1,"RJ":1,"SP":3,"true":1}}"#);
    }

    #[test]
    fn keys_beyond_the_limit_are_counted_together() {
        let settings = make(&[("by", "payload.state"), ("keys_max", "2")]).unwrap();
        let counts = count(&settings, &["\"b\"", "\"a\"", "\"c\"", "\"d\"", "\"a\"", "\"c\""]);
        assert_eq!(counts, r#"{"total":6,"counts":{"_other":3,"a":2,"b":1}}"#);
    }

    #[test]
    fn hostile_events_are_named() {
        let settings = make(&[("by", "payload.state")]).unwrap();
        let error = |event: &str| settings.add(b"", event.as_bytes()).unwrap_err().to_string();
        assert_eq!(error(r#"{"payload":{}}"#), "payload.state is missing");
        assert_eq!(error(r#"{"payload":1}"#), "payload must be a JSON object");
        let type_error = "payload.state must be a non-empty string, a number or a boolean";
        assert_eq!(error(r#"{"payload":{"state":""}}"#), type_error);
        assert_eq!(error(r#"{"payload":{"state":{}}}"#), type_error);
        let long = format!(r#"{{"payload":{{"state":"{}"}}}}"#, "x".repeat(257));
        assert_eq!(error(&long), "payload.state must be at most 256 bytes long");
    }

    #[test]
    fn a_foreign_accumulator_is_refused() {
        let settings = make(&[("by", "a")]).unwrap();
        for accumulator in ["x", "{}", r#"{"total":-1,"counts":{}}"#, r#"{"total":1,"counts":{},"more":1}"#] {
            let error = settings.add(accumulator.as_bytes(), br#"{"a":1}"#).unwrap_err();
            assert_eq!(error.to_string(), r#"accumulator must be {"total":n,"counts":{…}}"#);
        }
    }

    #[test]
    fn bad_parameters_are_refused() {
        assert_eq!(make(&[]).unwrap_err(), "parameter `by` is missing");
        assert_eq!(
            make(&[("by", "a."), ("keys_max", "1")]).unwrap_err(),
            "parameter `by` has a path with an empty name"
        );
        for bad in ["0", "-1", "x", "100001", ""] {
            let error = make(&[("by", "a"), ("keys_max", bad)]).unwrap_err();
            assert_eq!(error, "parameter `keys_max` is not an integer from 1 to 100000", "{bad}");
        }
    }

    #[test]
    fn the_parameters_are_those_of_its_description() {
        let description = include_str!("../SmartModule.toml");
        let names: Vec<_> =
            description.split("[[params]]").skip(1).filter_map(|p| p.split('"').nth(1)).collect();
        let error = Settings::new(BTreeMap::from([("?".to_owned(), String::new())])).unwrap_err().to_string();
        assert_eq!(error, format!("unknown parameter `?`, known are {}", names.join(", ")));
    }
}
