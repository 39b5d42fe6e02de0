//! Bytes in JSON: text where they are UTF-8, else `{"base64": …}`.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

/// The JSON of some bytes; `null` for none.
pub fn to_json(bytes: Option<&Bytes>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => Value::from(text),
        Some((bytes, Err(_))) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// The bytes of such JSON.
///
/// # Errors
/// What was expected.
pub fn of_json(value: &Value) -> Result<Option<Bytes>, &'static str> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(Bytes::from(text.clone()))),
        Value::Object(fields) if fields.len() == 1 => {
            let text = fields.get("base64").and_then(Value::as_str).ok_or(EXPECTED)?;
            STANDARD.decode(text).map(|bytes| Some(bytes.into())).map_err(|_| "its base64 cannot be read")
        }
        _ => Err(EXPECTED),
    }
}

const EXPECTED: &str = "expected a text, {\"base64\": …} or null (in jq, 'tojson' makes a text of an object)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_were() {
        for bytes in [None, Some(Bytes::new()), Some(Bytes::from("é")), Some(Bytes::from_static(&[0xff, 0]))]
        {
            assert_eq!(of_json(&to_json(bytes.as_ref())), Ok(bytes));
        }
        assert!(of_json(&json!({ "payload": 1 })).is_err_and(|why| why.contains("tojson")));
        assert!(of_json(&json!({ "base64": "%" })).is_err());
    }
}
