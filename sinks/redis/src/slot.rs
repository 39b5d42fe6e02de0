//! Keys and their companions: both in one slot, so that one script may write both.
//!
//! Redis Cluster hashes the part of a key between its first `{` and the next `}` if there is one and it is not
//! empty, else the whole key. A companion therefore puts the whole key into braces, or leaves a tag that the key
//! brings along.

use bytes::{BufMut, BytesMut};
use millrace_core::{Error, Result};

/// How a key is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    /// As a whole; it has no brace.
    Whole,
    /// By the tag it holds.
    Held,
    /// As a whole, but it has braces that would read as another tag inside a companion.
    Broken,
}

/// Whether companions of the key can be named.
///
/// # Errors
/// Reject when the key has braces that form no tag: no companion of it would be in its slot.
pub(crate) fn check(key: &str) -> Result<()> {
    match tag(key) {
        Tag::Broken => Err(Error::reject(
            "redis key",
            "has braces that form no hash tag; a tag is '{', some text and '}'",
        )),
        Tag::Whole | Tag::Held => Ok(()),
    }
}

/// Writes the companion of a checked key: `removed:{feed:u1}` for `feed:u1`, `removed:{u1}:feed` for `{u1}:feed`.
pub(crate) fn write_companion(buffer: &mut BytesMut, role: &str, key: &str) {
    buffer.reserve(role.len() + key.len() + 3);
    buffer.put_slice(role.as_bytes());
    buffer.put_u8(b':');
    let braces = tag(key) == Tag::Whole;
    if braces {
        buffer.put_u8(b'{');
    }
    buffer.put_slice(key.as_bytes());
    if braces {
        buffer.put_u8(b'}');
    }
}

fn tag(key: &str) -> Tag {
    let Some(open) = key.find('{') else {
        return if key.contains('}') { Tag::Broken } else { Tag::Whole };
    };
    match key[open + 1..].find('}') {
        Some(length) if length > 0 => Tag::Held,
        _ => Tag::Broken,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use redis::cluster_routing::Slot;

    use super::*;

    fn companion(key: &str) -> String {
        let mut buffer = BytesMut::new();
        write_companion(&mut buffer, "removed", key);
        String::from_utf8(buffer.to_vec()).unwrap()
    }

    #[test]
    fn a_companion_is_in_the_slot_of_its_key() {
        let keys = ["feed:u1", "{u1}:feed", "feed:{u1}", "a}b{c}", "a{b}{c}d", "a{{b}", "é {ü}", "x", "{a}}"];
        for key in keys {
            check(key).unwrap();
            assert_eq!(Slot::for_key(companion(key)), Slot::for_key(key), "{key} and {}", companion(key));
        }
        assert_eq!(companion("feed:u1"), "removed:{feed:u1}");
        assert_eq!(companion("feed:{u1}"), "removed:feed:{u1}");
    }

    #[test]
    fn braces_that_form_no_tag_are_rejected() {
        for key in ["a{b", "a}b", "{}", "a{}b", "a{}{b}", "}{"] {
            let error = check(key).unwrap_err();
            assert_eq!(error.class(), millrace_core::Class::Reject, "{key}");
        }
    }
}
