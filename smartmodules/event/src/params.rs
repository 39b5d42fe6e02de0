//! The `with:` parameters of a module, checked once at its start.

use std::collections::BTreeMap;

use crate::Error;

/// Parameters whose names are all known to the module.
#[derive(Debug, Clone, Default)]
pub struct Params {
    values: BTreeMap<String, String>,
}

impl Params {
    /// Refuses a parameter that is not among `known`.
    pub fn new(values: BTreeMap<String, String>, known: &[&str]) -> Result<Self, Error> {
        match values.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Error::UnknownParam { name: name.clone(), known: known.join(", ") }),
            None => Ok(Self { values }),
        }
    }

    /// The value as given, spaces around it removed; none where it is not given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.trim())
    }

    /// A value that must not be empty where it is given.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Error> {
        match self.get(name) {
            Some("") => Err(Error::param(name, "is empty")),
            value => Ok(value),
        }
    }

    /// A value that must be given and not be empty.
    pub fn required(&self, name: &str) -> Result<&str, Error> {
        self.text(name)?.ok_or_else(|| Error::param(name, "is missing"))
    }

    /// The items of a comma-separated list, `default` where it is not given. An empty value is an empty list.
    pub fn list<'p>(&'p self, name: &str, default: &'p str) -> Result<Vec<&'p str>, Error> {
        let value = self.get(name).unwrap_or(default);
        if value.is_empty() {
            return Ok(Vec::new());
        }
        let items: Vec<_> = value.split(',').map(str::trim).collect();
        if items.contains(&"") {
            return Err(Error::param(name, "has an empty item"));
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn params(values: &[(&str, &str)]) -> Result<Params, Error> {
        let values = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Params::new(values, &["hide", "by"])
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = params(&[("hide", "x"), ("hid", "y")]).unwrap_err();
        assert_eq!(error.to_string(), "unknown parameter `hid`, known are hide, by");
    }

    #[test]
    fn lists_are_trimmed_and_have_no_gaps() {
        let given = params(&[("hide", " A , B "), ("by", "a,,b")]).unwrap();
        assert_eq!(given.list("hide", "C").unwrap(), ["A", "B"]);
        assert_eq!(given.list("by", "").unwrap_err().to_string(), "parameter `by` has an empty item");
        assert_eq!(params(&[]).unwrap().list("hide", "C").unwrap(), ["C"]);
        assert!(params(&[("hide", " ")]).unwrap().list("hide", "C").unwrap().is_empty());
    }

    #[test]
    fn a_required_value_is_there_and_not_empty() {
        assert_eq!(params(&[]).unwrap().required("by").unwrap_err().to_string(), "parameter `by` is missing");
        let error = params(&[("by", " ")]).unwrap().required("by").unwrap_err();
        assert_eq!(error.to_string(), "parameter `by` is empty");
        assert_eq!(params(&[("by", "a.b")]).unwrap().required("by").unwrap(), "a.b");
    }
}
