//! Headers as one blob: for each its name and its value, both with their length before them. None where a
//! record has none, which costs nothing.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{Header, Headers};

/// Stands for the length of an absent value.
const ABSENT: u32 = u32::MAX;

/// The blob; none without headers. None as well where a length does not fit 32 bits, which
/// the bound on records has refused before.
pub(crate) fn encode(headers: &[Header]) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut blob = Vec::with_capacity(headers.len() * 32);
    for header in headers {
        put(&mut blob, header.name.as_bytes())?;
        match &header.value {
            None => blob.extend(ABSENT.to_le_bytes()),
            Some(value) => put(&mut blob, value)?,
        }
    }
    Some(blob)
}

/// The headers of a blob; none when it is damaged.
pub(crate) fn decode(blob: &[u8]) -> Option<Headers> {
    let mut rest = blob;
    let mut headers = Vec::new();
    while !rest.is_empty() {
        let name = take(&mut rest)??;
        let name = Arc::from(std::str::from_utf8(name).ok()?);
        let value = take(&mut rest)?.map(Bytes::copy_from_slice);
        headers.push(Header { name, value });
    }
    Some(headers.into())
}

/// Bytes of names and values.
pub(crate) fn size_bytes(headers: &[Header]) -> usize {
    headers.iter().map(|header| header.name.len() + header.value.as_ref().map_or(0, Bytes::len)).sum()
}

fn put(blob: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length != ABSENT)?;
    blob.extend(length.to_le_bytes());
    blob.extend(bytes);
    Some(())
}

/// The outer none is damage, the inner one an absent value.
fn take<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    if length == ABSENT {
        *rest = after;
        return Some(None);
    }
    let (bytes, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(Some(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn comes_back_as_it_was(pairs in vec((".{0,20}", option::of(vec(any::<u8>(), 0..50))), 1..8)) {
            let headers: Vec<Header> = pairs
                .into_iter()
                .map(|(name, value)| Header { name: name.into(), value: value.map(Bytes::from) })
                .collect();
            let blob = encode(&headers).unwrap();
            prop_assert_eq!(&*decode(&blob).unwrap(), headers.as_slice());
        }

        #[test]
        fn damage_is_noticed_or_harmless(blob in vec(any::<u8>(), 0..200)) {
            if let Some(headers) = decode(&blob) {
                prop_assert!(size_bytes(&headers) <= blob.len());
            }
        }
    }

    #[test]
    fn a_cut_blob_is_damaged() {
        let headers = [Header { name: "name".into(), value: Some(Bytes::from_static(b"value")) }];
        let blob = encode(&headers).unwrap();
        assert!((1..blob.len()).all(|end| decode(&blob[..end]).is_none()));
        assert_eq!(encode(&[]), None);
    }
}
