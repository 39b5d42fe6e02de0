//! The guest's side that every module shares: parameters in, settings made once per instance. It knows no SDK, so that
//! each module chooses its own.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::Error;

/// How a module makes its settings from its parameters.
pub type Make<S> = fn(BTreeMap<String, String>) -> Result<S, Error>;

/// Makes the settings from the parameters of `init`, in the encoding of the ABI: an SDK's `SmartModuleExtraParams` answers
/// for a name but does not list its names, which its encoding begins with. A host calls `init` once; another call
/// changes nothing.
pub fn init<S>(settings: &OnceLock<S>, encoded: &[u8], make: Make<S>) -> Result<(), Error> {
    let params = names_and_values(encoded).expect("invariant: the SDK has encoded what it had decoded");
    let made = make(params)?;
    settings.get_or_init(|| made);
    Ok(())
}

/// The settings; those of no parameters where the host has not called `init`.
pub fn settings<S>(settings: &OnceLock<S>, make: Make<S>) -> Result<&S, Error> {
    match settings.get() {
        Some(made) => Ok(made),
        None => {
            let made = make(BTreeMap::new())?;
            Ok(settings.get_or_init(|| made))
        }
    }
}

/// A count of two bytes, then names and values in turn, each with a length of two bytes before it.
fn names_and_values(mut encoded: &[u8]) -> Option<BTreeMap<String, String>> {
    fn number(bytes: &mut &[u8]) -> Option<usize> {
        let (number, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(u16::from_be_bytes(*number).into())
    }
    fn text(bytes: &mut &[u8]) -> Option<String> {
        let length = number(bytes)?;
        let (text, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        String::from_utf8(text.to_vec()).ok()
    }
    let count = number(&mut encoded)?;
    (0..count).map(|_| Some((text(&mut encoded)?, text(&mut encoded)?))).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn names_and_values_are_read_from_the_encoding() {
        let encoded = b"\0\x02\0\x01a\0\0\0\x01b\0\x022!\0";
        let expected = BTreeMap::from([("a".to_owned(), String::new()), ("b".to_owned(), "2!".to_owned())]);
        assert_eq!(names_and_values(encoded).unwrap(), expected);
        assert_eq!(names_and_values(&encoded[..9]), None, "cut off");
    }

    #[test]
    fn settings_are_made_once() {
        let cell = OnceLock::new();
        let make: Make<usize> = |params| Ok(params.len());
        init(&cell, b"\0\x01\0\x01a\0\0", make).unwrap();
        init(&cell, b"\0\0", make).unwrap();
        assert_eq!(settings(&cell, make).unwrap(), &1);
        assert_eq!(settings(&OnceLock::new(), make).unwrap(), &0);
    }
}
