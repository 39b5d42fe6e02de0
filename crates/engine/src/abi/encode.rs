//! Host to guest: records, parameters and the accumulator, written into one buffer that is used again.

use std::collections::BTreeMap;

use millrace_core::LookBack;

/// What the deltas of a call's records count from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
}

/// A record as it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordIn<'a> {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: &'a [u8],
}

/// Writes the input of a transform or of `look_back` in place of what the buffer held.
pub(crate) fn encode_input<'a>(
    buffer: &mut Vec<u8>,
    base: Base,
    records: impl Iterator<Item = RecordIn<'a>>,
) {
    const LENGTH_AT: usize = 8;
    const COUNT_AT: usize = 12;
    buffer.clear();
    buffer.extend_from_slice(&base.offset.to_be_bytes());
    // The length of the encoded records and their count are known at the end.
    buffer.extend_from_slice(&[0; 8]);
    let mut count = 0_u32;
    for record in records {
        put_record(buffer, &record);
        count += 1;
    }
    let length = bounded_u32(buffer.len() - COUNT_AT);
    buffer[LENGTH_AT..COUNT_AT].copy_from_slice(&length.to_be_bytes());
    buffer[COUNT_AT..COUNT_AT + 4].copy_from_slice(&count.to_be_bytes());
    // No parameters (they go to `init`), no look-back, an empty join record.
    buffer.extend_from_slice(&[0; 2 + 1 + 4]);
    buffer.extend_from_slice(&base.timestamp_ms.to_be_bytes());
}

/// Appends the accumulator to an input: an aggregate reads it there.
pub(crate) fn encode_accumulator(buffer: &mut Vec<u8>, accumulator: &[u8]) {
    buffer.extend_from_slice(&bounded_u32(accumulator.len()).to_be_bytes());
    buffer.extend_from_slice(accumulator);
}

/// The input of `init`, or what about the parameters cannot be encoded.
pub(crate) fn encode_params(
    params: &BTreeMap<String, String>,
    look_back: Option<LookBack>,
) -> Result<Vec<u8>, String> {
    let mut buffer = Vec::new();
    let count = u16::try_from(params.len()).map_err(|_| format!("has {} parameters", params.len()))?;
    buffer.extend_from_slice(&count.to_be_bytes());
    for (name, value) in params {
        for text in [name, value] {
            let length = u16::try_from(text.len())
                .map_err(|_| format!("parameter is {} bytes long, at most {} fit", text.len(), u16::MAX))?;
            buffer.extend_from_slice(&length.to_be_bytes());
            buffer.extend_from_slice(text.as_bytes());
        }
    }
    match look_back {
        None => buffer.push(0),
        Some(look_back) => {
            buffer.push(1);
            buffer.extend_from_slice(&u64::from(look_back.records_max).to_be_bytes());
            match look_back.age_max {
                None => buffer.push(0),
                Some(age) => {
                    buffer.push(1);
                    buffer.extend_from_slice(&age.as_secs().to_be_bytes());
                    buffer.extend_from_slice(&age.subsec_nanos().to_be_bytes());
                }
            }
        }
    }
    Ok(buffer)
}

fn put_record(buffer: &mut Vec<u8>, record: &RecordIn<'_>) {
    const ATTRIBUTES: u8 = 0;
    const HEADERS: i64 = 0;
    let key_length = record.key.map_or(0, |key| varint_length(length_of(key)) + key.len());
    let length = 1
        + varint_length(record.timestamp_delta)
        + varint_length(record.offset_delta)
        + 1
        + key_length
        + varint_length(length_of(record.value))
        + record.value.len()
        + varint_length(HEADERS);
    buffer.reserve(length + 10);
    put_varint(buffer, bounded_i64(length));
    buffer.push(ATTRIBUTES);
    put_varint(buffer, record.timestamp_delta);
    put_varint(buffer, record.offset_delta);
    match record.key {
        None => buffer.push(0),
        Some(key) => {
            buffer.push(1);
            put_varint(buffer, length_of(key));
            buffer.extend_from_slice(key);
        }
    }
    put_varint(buffer, length_of(record.value));
    buffer.extend_from_slice(record.value);
    put_varint(buffer, HEADERS);
}

fn put_varint(buffer: &mut Vec<u8>, number: i64) {
    let mut rest = zigzag(number);
    while rest >= 0x80 {
        // The cast keeps the low bits, of which seven are meant.
        buffer.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    buffer.push(rest as u8);
}

fn varint_length(number: i64) -> usize {
    let bits = 64 - zigzag(number).leading_zeros() as usize;
    bits.div_ceil(7).max(1)
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn length_of(bytes: &[u8]) -> i64 {
    bounded_i64(bytes.len())
}

fn bounded_i64(length: usize) -> i64 {
    i64::try_from(length).expect("invariant: no slice is longer than isize::MAX")
}

fn bounded_u32(length: usize) -> u32 {
    u32::try_from(length).expect("invariant: a call's input is bounded by the memory limit, below 4 GiB")
}
