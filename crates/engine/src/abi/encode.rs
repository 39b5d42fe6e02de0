//! Host to guest: records, parameters and the accumulator, written straight to where the guest wants them.

use std::{collections::BTreeMap, mem};

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

/// What is written into a guest, which is asked for the place first.
pub(crate) trait Input {
    /// Its length in bytes.
    fn length(&self) -> usize;

    /// Writes it to a place of that length.
    fn write(&self, place: &mut [u8]);
}

/// The input of a transform or of `look_back`.
pub(crate) struct RecordsInput<'a, R> {
    base: Base,
    records: R,
    /// An aggregate reads it after the records.
    accumulator: Option<&'a [u8]>,
    count: u32,
    /// Of the records, without their count.
    bytes: usize,
}

/// Writes from the front of what is left.
struct Writer<'a>(&'a mut [u8]);

/// After the records: no parameters (they go to `init`), no look-back, an empty join record.
const AFTER_RECORDS: [u8; 2 + 1 + 4] = [0; 7];

impl<'a, 'r, R: Iterator<Item = RecordIn<'r>> + Clone> RecordsInput<'a, R> {
    pub(crate) fn new(base: Base, records: R, accumulator: Option<&'a [u8]>) -> Self {
        let (mut count, mut bytes) = (0, 0);
        for record in records.clone() {
            let length = record_length(&record);
            bytes += varint_length(bounded_i64(length)) + length;
            count += 1;
        }
        RecordsInput { base, records, accumulator, count, bytes }
    }
}

impl<'r, R: Iterator<Item = RecordIn<'r>> + Clone> Input for RecordsInput<'_, R> {
    fn length(&self) -> usize {
        let accumulator = self.accumulator.map_or(0, |accumulator| 4 + accumulator.len());
        8 + 4 + 4 + self.bytes + AFTER_RECORDS.len() + 8 + accumulator
    }

    fn write(&self, place: &mut [u8]) {
        let mut writer = Writer(place);
        writer.put(&self.base.offset.to_be_bytes());
        writer.put(&bounded_u32(4 + self.bytes).to_be_bytes());
        writer.put(&self.count.to_be_bytes());
        for record in self.records.clone() {
            writer.record(&record);
        }
        writer.put(&AFTER_RECORDS);
        writer.put(&self.base.timestamp_ms.to_be_bytes());
        if let Some(accumulator) = self.accumulator {
            writer.put(&bounded_u32(accumulator.len()).to_be_bytes());
            writer.put(accumulator);
        }
    }
}

impl Input for [u8] {
    fn length(&self) -> usize {
        self.len()
    }

    fn write(&self, place: &mut [u8]) {
        place.copy_from_slice(self);
    }
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

const HEADERS: i64 = 0;

/// What a record's length says: without itself.
fn record_length(record: &RecordIn<'_>) -> usize {
    let key = record.key.map_or(0, |key| varint_length(length_of(key)) + key.len());
    1 + varint_length(record.timestamp_delta)
        + varint_length(record.offset_delta)
        + 1
        + key
        + varint_length(length_of(record.value))
        + record.value.len()
        + varint_length(HEADERS)
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let (place, rest) = mem::take(&mut self.0).split_at_mut(bytes.len());
        place.copy_from_slice(bytes);
        self.0 = rest;
    }

    fn record(&mut self, record: &RecordIn<'_>) {
        const ATTRIBUTES: u8 = 0;
        self.varint(bounded_i64(record_length(record)));
        self.put(&[ATTRIBUTES]);
        self.varint(record.timestamp_delta);
        self.varint(record.offset_delta);
        match record.key {
            None => self.put(&[0]),
            Some(key) => {
                self.put(&[1]);
                self.data(key);
            }
        }
        self.data(record.value);
        self.varint(HEADERS);
    }

    fn data(&mut self, bytes: &[u8]) {
        self.varint(length_of(bytes));
        self.put(bytes);
    }

    fn varint(&mut self, number: i64) {
        let mut rest = zigzag(number);
        while rest >= 0x80 {
            // The cast keeps the low bits, of which seven are meant.
            self.put(&[rest as u8 | 0x80]);
            rest >>= 7;
        }
        self.put(&[rest as u8]);
    }
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
