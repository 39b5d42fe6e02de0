//! Fields of a JSON object, found in one pass and borrowed raw: a field that nobody asks for is skipped, one that is
//! copied keeps every digit as it was written.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::Error;

/// The largest integer that every JSON reader and Redis script represents exactly, 2^53 - 1.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// One field of an object, present or not. JSON's null counts as not present.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a, 'n> {
    object: &'n str,
    name: &'n str,
    raw: Option<&'a str>,
}

impl<'a, 'n> Field<'a, 'n> {
    /// The full name, as errors have it.
    pub fn path(&self) -> String {
        join(self.object, self.name)
    }

    /// The JSON of the field as it was written.
    pub fn raw(&self) -> Option<&'a str> {
        self.raw
    }

    /// This field, or `other` where only that one is there.
    pub fn or(self, other: Self) -> Self {
        if self.raw.is_none() && other.raw.is_some() { other } else { self }
    }

    /// The JSON of a field that must be there.
    pub fn required(&self) -> Result<&'a str, Error> {
        self.raw.ok_or_else(|| Error::Missing { field: self.path() })
    }

    /// A string that must be there and not empty.
    pub fn text(&self) -> Result<Cow<'a, str>, Error> {
        text(self.required()?).ok_or_else(|| Error::wrong(self.path(), "a non-empty string"))
    }

    /// A non-empty string if the field is there.
    pub fn optional_text(&self) -> Result<Option<Cow<'a, str>>, Error> {
        self.raw.map(|_| self.text()).transpose()
    }

    /// An integer from 0 to [`INTEGER_MAX`] that must be there.
    pub fn integer(&self) -> Result<u64, Error> {
        let raw = self.required()?;
        raw.parse()
            .ok()
            .filter(|n| *n <= INTEGER_MAX && !raw.starts_with('+'))
            .ok_or_else(|| Error::wrong(self.path(), format!("an integer from 0 to {INTEGER_MAX}")))
    }

    /// An integer from 0 to [`INTEGER_MAX`] if the field is there.
    pub fn optional_integer(&self) -> Result<Option<u64>, Error> {
        self.raw.map(|_| self.integer()).transpose()
    }

    /// A non-empty string or an integer that must be there, as text. An integer keeps its digits.
    pub fn id(&self) -> Result<Cow<'a, str>, Error> {
        let raw = self.required()?;
        let integer = raw.parse::<i64>().is_ok() || raw.parse::<u64>().is_ok();
        if integer { Some(Cow::Borrowed(raw)) } else { text(raw) }
            .ok_or_else(|| Error::wrong(self.path(), "a non-empty string or an integer"))
    }

    /// The fields called `names` of the object that must be here.
    pub fn pick<'m, const N: usize>(
        &self,
        path: &'m str,
        names: [&'m str; N],
    ) -> Result<[Field<'a, 'm>; N], Error> {
        pick(self.required()?, path, names)
    }
}

/// The decoded text of a JSON string that is not empty, none for other JSON; borrowed where it has no escapes.
pub fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    let text = if inner.contains('\\') {
        Cow::Owned(serde_json::from_str::<String>(raw).ok()?)
    } else {
        Cow::Borrowed(inner)
    };
    (!text.is_empty()).then_some(text)
}

/// The fields called `names` of the object `json`, in the order of `names`. `path` is the object's own name for
/// errors, empty for the event itself. One of `names` that stands there twice is an error.
pub fn pick<'a, 'n, const N: usize>(
    json: &'a str,
    path: &'n str,
    names: [&'n str; N],
) -> Result<[Field<'a, 'n>; N], Error> {
    let mut found: [Option<&'a str>; N] = [None; N];
    let mut twice = None;
    each(json, path, |name, raw| {
        for (slot, wanted) in found.iter_mut().zip(names) {
            if name == wanted && slot.replace(raw).is_some() {
                twice = Some(wanted);
            }
        }
    })?;
    if let Some(name) = twice {
        return Err(Error::Twice { field: join(path, name) });
    }
    let mut raws = found.into_iter();
    Ok(names.map(|name| {
        let raw = raws.next().flatten().filter(|raw| *raw != "null");
        Field { object: path, name, raw }
    }))
}

/// Calls `visit` with the decoded name and the raw value of each field of the object `json`, in order.
pub fn each<'a>(json: &'a str, path: &str, visit: impl FnMut(&str, &'a str)) -> Result<(), Error> {
    object(json, path)?;
    let mut reader = serde_json::Deserializer::from_str(json);
    reader.deserialize_map(Entries { visit }).and_then(|()| reader.end()).map_err(|e| Error::NotJson {
        field: whole(path).into(),
        line: e.line(),
        column: e.column(),
    })
}

/// Refuses JSON that does not begin as an object.
pub fn object(json: &str, path: &str) -> Result<(), Error> {
    match json.trim_start_matches([' ', '\t', '\r', '\n']).as_bytes().first() {
        Some(b'{') => Ok(()),
        _ => Err(Error::wrong(whole(path), "a JSON object")),
    }
}

fn whole(path: &str) -> &str {
    if path.is_empty() { "event" } else { path }
}

fn join(object: &str, name: &str) -> String {
    if object.is_empty() { name.into() } else { format!("{object}.{name}") }
}

struct Entries<F> {
    visit: F,
}

impl<'de, F: FnMut(&str, &'de str)> Visitor<'de> for Entries<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Name<'de>>()? {
            let raw: &'de RawValue = map.next_value()?;
            (self.visit)(&name.0, raw.get());
        }
        Ok(())
    }
}

/// The name of a field, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.into())))
            }
        }
        reader.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn one<'a>(json: &'a str) -> Field<'a, 'static> {
        let [field] = pick(json, "payload", ["a"]).unwrap();
        field
    }

    #[test]
    fn fields_are_found_under_escaped_names_and_keep_their_digits() {
        let [a, b, none] =
            pick(r#" {"\u0061": 1.50e+3, "x": [{}], "b": null} "#, "", ["a", "b", "c"]).unwrap();
        assert_eq!(a.raw(), Some("1.50e+3"));
        assert_eq!((b.raw(), none.raw()), (None, None));
    }

    #[test]
    fn what_is_not_an_object_is_refused_without_quoting_it() {
        for json in ["", " ", "secret", "\"secret\"", "[1]", "12", "null"] {
            assert_eq!(pick(json, "", ["a"]).unwrap_err().to_string(), "event must be a JSON object");
        }
        let error = pick(r#"{"a":secret}"#, "payload", ["a"]).unwrap_err();
        assert_eq!(error.to_string(), "payload is not valid JSON at line 1 column 6");
        for json in [
            "{",
            r#"{"a"}"#,
            r#"{"a":1"#,
            r#"{"a":1}x"#,
            r#"{"\ud800":1}"#,
            r#"{"a":"\q"}"#,
            "{\"a\":\"\n\"}",
        ] {
            assert!(matches!(pick(json, "", ["a"]).unwrap_err(), Error::NotJson { .. }), "{json}");
        }
    }

    #[test]
    fn a_wanted_field_must_not_stand_twice() {
        let error = pick(r#"{"a":1,"\u0061":2}"#, "payload", ["a"]).unwrap_err();
        assert_eq!(error.to_string(), "payload.a is there twice");
        assert!(pick(r#"{"b":1,"b":2,"a":1}"#, "payload", ["a"]).is_ok());
    }

    #[test]
    fn text_is_decoded_and_not_empty() {
        assert_eq!(one(r#"{"a":"x\n\u00e9"}"#).text().unwrap(), "x\né");
        for json in [r#"{"a":""}"#, r#"{"a":1}"#, r#"{"a":"\ud800"}"#, r#"{"a":["x"]}"#] {
            assert_eq!(one(json).text().unwrap_err().to_string(), "payload.a must be a non-empty string");
        }
        assert_eq!(one(r#"{"a":null}"#).text().unwrap_err().to_string(), "payload.a is missing");
        assert_eq!(one("{}").optional_text().unwrap(), None);
        assert!(one(r#"{"a":false}"#).optional_text().is_err());
    }

    #[test]
    fn integers_have_a_range_and_no_fraction() {
        assert_eq!(one(r#"{"a":9007199254740991}"#).integer().unwrap(), INTEGER_MAX);
        for bad in ["9007199254740992", "-1", "-0", "1.0", "1e3", "\"1\"", "true", "18446744073709551616"] {
            let json = format!("{{\"a\":{bad}}}");
            let error = one(&json).integer().unwrap_err().to_string();
            assert_eq!(error, "payload.a must be an integer from 0 to 9007199254740991", "{bad}");
        }
        assert_eq!(one("{}").optional_integer().unwrap(), None);
    }

    #[test]
    fn ids_are_strings_or_integers() {
        assert_eq!(one(r#"{"a":"p1"}"#).id().unwrap(), "p1");
        assert_eq!(one(r#"{"a":-5}"#).id().unwrap(), "-5");
        assert_eq!(one(r#"{"a":18446744073709551615}"#).id().unwrap(), "18446744073709551615");
        for bad in ["1.5", "\"\"", "{}", "true", "99999999999999999999"] {
            assert!(one(&format!("{{\"a\":{bad}}}")).id().is_err(), "{bad}");
        }
    }

    #[test]
    fn deep_nesting_is_skipped_without_recursion() {
        let deep = format!("{{\"b\":{}{},\"a\":1}}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(one(&deep).integer().unwrap(), 1);
    }
}
