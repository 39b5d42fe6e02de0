//! The ABI's bytes: integers are big endian; a string is a u16 length and bytes; a list is a u32 count and its items;
//! an option is a byte and the value; a varint is zigzag LEB128.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use crate::{
    error::SmartModuleKind,
    params::{Lookback, SmartModuleExtraParams},
    record::{Record, RecordHeader},
};

/// Reads from the front; none where the bytes are not what is expected there.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A record of the input by where its parts lie.
pub(crate) struct RecordAt {
    /// The whole record, its length included.
    pub(crate) whole: Range<usize>,
    pub(crate) header: RecordHeader,
    pub(crate) key: Option<Range<usize>>,
    pub(crate) value: Range<usize>,
    pub(crate) headers: i64,
}

/// What stands around the records of a call.
pub(crate) struct Frame {
    pub(crate) base_offset: i64,
    pub(crate) base_timestamp: i64,
    /// The records, their count first.
    pub(crate) records: Range<usize>,
    /// Of an aggregate.
    pub(crate) accumulator: Range<usize>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Reads within the range only.
    pub(crate) fn within(bytes: &'a [u8], range: &Range<usize>) -> Option<Self> {
        Some(Reader { bytes: bytes.get(..range.end)?, at: range.start })
    }

    fn range(&mut self, length: usize) -> Option<Range<usize>> {
        let start = self.at;
        let end = start.checked_add(length)?;
        if end > self.bytes.len() {
            return None;
        }
        self.at = end;
        Some(start..end)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let range = self.range(N)?;
        self.bytes[range].try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }

    #[inline]
    fn varint(&mut self) -> Option<i64> {
        let mut bits = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            bits |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed());
            }
        }
        None
    }

    fn list(&mut self) -> Option<Range<usize>> {
        let length = self.u32()?;
        self.range(usize::try_from(length).ok()?)
    }

    fn data(&mut self) -> Option<Range<usize>> {
        let length = usize::try_from(self.varint()?).ok()?;
        self.range(length)
    }

    fn string(&mut self) -> Option<String> {
        let length = self.array().map(u16::from_be_bytes)?;
        let range = self.range(length.into())?;
        String::from_utf8(self.bytes[range].to_vec()).ok()
    }

    pub(crate) fn params(&mut self) -> Option<SmartModuleExtraParams> {
        let count = self.array().map(u16::from_be_bytes)?;
        let params: Option<BTreeMap<_, _>> =
            (0..count).map(|_| Some((self.string()?, self.string()?))).collect();
        let lookback = if self.flag()? { Some(self.lookback()?) } else { None };
        Some(SmartModuleExtraParams::new(params?, lookback))
    }

    fn lookback(&mut self) -> Option<Lookback> {
        let last = self.u64()?;
        let age = if self.flag()? { Some(Duration::new(self.u64()?, self.u32()?)) } else { None };
        Some(Lookback { last, age })
    }

    /// The input of a transform; with `aggregate`, its accumulator too.
    pub(crate) fn frame(&mut self, aggregate: bool) -> Option<Frame> {
        let base_offset = self.i64()?;
        let records = self.list()?;
        self.params()?;
        // The other side of a join, of which there are none any more.
        self.list()?;
        let base_timestamp = self.i64()?;
        let accumulator = if aggregate { self.list()? } else { 0..0 };
        Some(Frame { base_offset, base_timestamp, records, accumulator })
    }

    #[inline]
    pub(crate) fn record(&mut self) -> Option<RecordAt> {
        let start = self.at;
        let length = usize::try_from(self.varint()?).ok()?;
        let end = self.at.checked_add(length)?;
        let attributes = self.u8()?.cast_signed();
        let timestamp_delta = self.varint()?;
        let offset_delta = self.varint()?;
        let key = if self.flag()? { Some(self.data()?) } else { None };
        let value = self.data()?;
        let headers = self.varint()?;
        let header = RecordHeader { attributes, timestamp_delta, offset_delta };
        (self.at == end).then_some(RecordAt { whole: start..end, header, key, value, headers })
    }
}

pub(crate) fn put_record(out: &mut Vec<u8>, record: &Record) {
    let header = &record.preamble;
    let key = record.key.as_ref();
    let length = 1
        + varint_length(header.timestamp_delta)
        + varint_length(header.offset_delta)
        + 1
        + key.map_or(0, |key| varint_length(signed(key.len())) + key.len())
        + varint_length(signed(record.value.len()))
        + record.value.len()
        + varint_length(record.headers);
    out.reserve(length + 10);
    put_varint(out, signed(length));
    out.push(header.attributes.cast_unsigned());
    put_varint(out, header.timestamp_delta);
    put_varint(out, header.offset_delta);
    put_key_and_value(out, record);
    put_varint(out, record.headers);
}

/// What a record has in its middle and an error at its end.
fn put_key_and_value(out: &mut Vec<u8>, record: &Record) {
    match &record.key {
        None => out.push(0),
        Some(key) => {
            out.push(1);
            put_data(out, key);
        }
    }
    put_data(out, &record.value);
}

fn put_data(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, signed(bytes.len()));
    out.extend_from_slice(bytes);
}

/// An author's error about a record; `look_back`, which is no kind, leaves that out.
pub(crate) fn put_error(
    out: &mut Vec<u8>,
    hint: &str,
    offset: i64,
    kind: Option<SmartModuleKind>,
    record: &Record,
) {
    put_string(out, hint);
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend(kind.map(tag));
    put_key_and_value(out, record);
}

/// A text, of which only so much is kept as its length can say.
pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(u16::MAX.into())];
    let length = u16::try_from(text.len()).expect("invariant: it was cut to fit");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_varint(out: &mut Vec<u8>, number: i64) {
    let mut rest = zigzag(number);
    while rest >= 0x80 {
        // The cast keeps the low bits, of which seven are meant.
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn varint_length(number: i64) -> usize {
    let bits = 64 - zigzag(number).leading_zeros() as usize;
    bits.div_ceil(7).max(1)
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).expect("invariant: no slice is longer than isize::MAX")
}

fn tag(kind: SmartModuleKind) -> u8 {
    match kind {
        SmartModuleKind::Filter => 0,
        SmartModuleKind::Map => 1,
        SmartModuleKind::ArrayMap => 2,
        SmartModuleKind::Aggregate => 3,
        SmartModuleKind::FilterMap => 4,
        SmartModuleKind::Join => 5,
        SmartModuleKind::Generic => 6,
    }
}
