//! Whether a value fits the declared type of its field, as Elasticsearch has it: what is refused there is
//! refused here, so that a pipeline leaves the same dead letters.

use std::net::IpAddr;

use indexmap::IndexMap;
use jiff::{Timestamp, civil};
use millrace_core::{Error, views::FieldType};
use serde_json::Value;

/// Checks the fields of a change against the declared types.
///
/// # Errors
/// Reject, naming the first field that does not fit; never its value.
pub(crate) fn check(
    declared: &[(String, FieldType)],
    fields: &IndexMap<String, String>,
) -> Result<(), Error> {
    for (name, kind) in declared {
        let fits = match fields.get(name) {
            Some(raw) => serde_json::from_str(raw).is_ok_and(|value| fits(*kind, &value)),
            None => nested(name, fields).is_none_or(|value| fits(*kind, &value)),
        };
        if !fits {
            return Err(Error::reject(format!("field '{name}'"), format!("is not {}", article(*kind))));
        }
    }
    Ok(())
}

/// The value that a dotted name leads to.
fn nested(name: &str, fields: &IndexMap<String, String>) -> Option<Value> {
    let (first, rest) = name.split_once('.')?;
    let mut value: Value = serde_json::from_str(fields.get(first)?).ok()?;
    for step in rest.split('.') {
        value = value.get_mut(step)?.take();
    }
    Some(value)
}

fn fits(kind: FieldType, value: &Value) -> bool {
    match (kind, value) {
        (_, Value::Null) => true,
        (_, Value::Array(items)) => items.iter().all(|item| fits(kind, item)),
        (FieldType::Flattened, other) => other.is_object(),
        (_, Value::Object(_)) => false,
        (FieldType::Text | FieldType::Keyword, _) => true,
        (FieldType::Long, Value::Number(number)) => number.is_i64() || number.as_f64().is_some_and(in_long),
        (FieldType::Long, Value::String(text)) => {
            text.is_empty() || text.parse::<i64>().is_ok() || text.parse().is_ok_and(in_long)
        }
        (FieldType::Double, Value::Number(number)) => number.as_f64().is_some_and(f64::is_finite),
        (FieldType::Double, Value::String(text)) => {
            text.is_empty() || text.parse::<f64>().is_ok_and(f64::is_finite)
        }
        (FieldType::Boolean, Value::Bool(_)) => true,
        (FieldType::Boolean, Value::String(text)) => matches!(text.as_str(), "true" | "false" | ""),
        (FieldType::Date, Value::Number(number)) => number.is_i64(),
        (FieldType::Date, Value::String(text)) => is_date(text),
        (FieldType::Ip, Value::String(text)) => text.parse::<IpAddr>().is_ok(),
        _ => false,
    }
}

/// Within the integers of 64 bits; 2^63 itself is the first that is not.
fn in_long(number: f64) -> bool {
    (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number)
}

/// A time, a date, a month, or milliseconds since 1970 as text.
fn is_date(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    (!digits.is_empty() && digits.len() <= 19 && digits.bytes().all(|b| b.is_ascii_digit()))
        || text.parse::<Timestamp>().is_ok()
        || text.parse::<civil::DateTime>().is_ok()
        || text.parse::<civil::Date>().is_ok()
        || (text.len() == 7 && format!("{text}-01").parse::<civil::Date>().is_ok())
}

fn article(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Text => "a text",
        FieldType::Keyword => "a keyword",
        FieldType::Long => "an integer of 64 bits",
        FieldType::Double => "a finite number",
        FieldType::Boolean => "a boolean",
        FieldType::Date => "a date",
        FieldType::Ip => "an IP address",
        FieldType::Flattened => "an object",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn accepts_what_elasticsearch_coerces_and_no_more() {
        let cases: [(FieldType, &[&str], &[&str]); 8] = [
            (FieldType::Text, &["\"a\"", "1", "true", "[\"a\",null]", "null"], &["{}", "[{}]"]),
            (FieldType::Keyword, &["\"a\"", "1.5"], &["{\"a\":1}"]),
            (FieldType::Long, &["1", "-5.7", "\"12\"", "\"\"", "[1,2]"], &["\"many\"", "1e19", "true", "{}"]),
            (FieldType::Double, &["1.10", "\"2.5\"", "-0"], &["\"NaN\"", "\"x\"", "false"]),
            (FieldType::Boolean, &["true", "\"false\""], &["1", "\"yes\""]),
            (
                FieldType::Date,
                &[
                    "1424129760000",
                    "\"2015-02-16T23:36:00Z\"",
                    "\"2015-02-16\"",
                    "\"2015-02\"",
                    "\"1424129760000\"",
                ],
                &["\"yesterday\"", "1.5", "\"\"", "\"2015-13-01\""],
            ),
            (FieldType::Ip, &["\"10.0.0.1\"", "\"::1\""], &["\"10.0.0\"", "1"]),
            (FieldType::Flattened, &["{\"a\":{\"b\":1}}", "[{}]"], &["\"a\"", "1"]),
        ];
        for (kind, good, bad) in cases {
            let of = |raw: &str| check(&[("f".into(), kind)], &[("f".to_owned(), raw.to_owned())].into());
            for raw in good {
                assert!(of(raw).is_ok(), "{kind:?} {raw}");
            }
            for raw in bad {
                assert!(of(raw).is_err(), "{kind:?} {raw}");
            }
        }
    }

    #[test]
    fn a_dotted_name_leads_into_objects_and_errors_keep_values_to_themselves() {
        let declared = [("a.b".to_owned(), FieldType::Long)];
        let with = |raw: &str| check(&declared, &[("a".to_owned(), raw.to_owned())].into());
        assert!(with(r#"{"b":1}"#).is_ok() && with(r#"{"c":"x"}"#).is_ok() && with("7").is_ok());
        let error = with(r#"{"b":"secret"}"#).unwrap_err();
        assert_eq!(error.chain(), "field 'a.b': is not an integer of 64 bits");
    }
}
