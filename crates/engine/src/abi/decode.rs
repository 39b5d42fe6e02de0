//! Guest to host: outputs, hints and accumulators, borrowed from the guest's memory. Every length is a claim of
//! the guest and is checked before it is believed.

use std::ops::Range;

/// An output record; key and value are ranges of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordOut {
    pub(crate) offset_delta: i64,
    pub(crate) key: Option<Range<usize>>,
    pub(crate) value: Range<usize>,
}

/// The rest of an answer, beside its records.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) refusal: Option<Refusal<'a>>,
    /// Of an aggregate only.
    pub(crate) accumulator: Option<&'a [u8]>,
}

/// What the author's function said to a record, and which record that was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal<'a> {
    pub(crate) hint: &'a [u8],
    pub(crate) offset: i64,
}

/// Why an answer cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// It is not what the ABI says, and where.
    Malformed(&'static str),
    /// It claims more records than are allowed.
    TooMany(u32),
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Decoded<T> = Result<T, DecodeError>;

/// Reads the answer of a transform. The records replace what `records` held.
pub(crate) fn decode_answer<'a>(
    bytes: &'a [u8],
    aggregate: bool,
    records_max: usize,
    records: &mut Vec<RecordOut>,
) -> Decoded<Answer<'a>> {
    const RECORD_BYTES_MIN: usize = 7;
    records.clear();
    let mut reader = Reader { bytes, at: 0 };
    let count = reader.u32("the record count")?;
    if usize::try_from(count).map_or(true, |count| count > records_max) {
        return Err(DecodeError::TooMany(count));
    }
    if reader.left() / RECORD_BYTES_MIN < count as usize {
        return Err(DecodeError::Malformed("the record count"));
    }
    records.reserve(count as usize);
    for _ in 0..count {
        records.push(reader.record()?);
    }
    let refusal = if reader.flag("the error's presence")? { Some(reader.refusal(true)?) } else { None };
    let accumulator = if aggregate {
        let length = reader.u32("the accumulator's length")? as usize;
        Some(reader.take(length, "the accumulator")?)
    } else {
        None
    };
    Ok(Answer { refusal, accumulator })
}

/// Reads what `look_back` says of a record it refuses.
pub(crate) fn decode_refusal(bytes: &[u8]) -> Decoded<Refusal<'_>> {
    Reader { bytes, at: 0 }.refusal(false)
}

/// Reads what `init` says of parameters it refuses.
pub(crate) fn decode_hint(bytes: &[u8]) -> Decoded<&[u8]> {
    Reader { bytes, at: 0 }.string("the hint")
}

impl<'a> Reader<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, length: usize, what: &'static str) -> Decoded<&'a [u8]> {
        let range = self.range(length, what)?;
        Ok(&self.bytes[range])
    }

    fn range(&mut self, length: usize, what: &'static str) -> Decoded<Range<usize>> {
        if length > self.left() {
            return Err(DecodeError::Malformed(what));
        }
        let start = self.at;
        self.at += length;
        Ok(start..self.at)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Decoded<[u8; N]> {
        let bytes = self.take(N, what)?;
        Ok(bytes.try_into().expect("invariant: take gives the length asked for"))
    }

    fn u8(&mut self, what: &'static str) -> Decoded<u8> {
        Ok(self.array::<1>(what)?[0])
    }

    fn u32(&mut self, what: &'static str) -> Decoded<u32> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    fn flag(&mut self, what: &'static str) -> Decoded<bool> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Malformed(what)),
        }
    }

    fn varint(&mut self, what: &'static str) -> Decoded<i64> {
        let mut bits = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            bits |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed());
            }
        }
        Err(DecodeError::Malformed(what))
    }

    fn string(&mut self, what: &'static str) -> Decoded<&'a [u8]> {
        let length = u16::from_be_bytes(self.array(what)?);
        self.take(length.into(), what)
    }

    fn bytes(&mut self, what: &'static str) -> Decoded<Range<usize>> {
        let length = usize::try_from(self.varint(what)?).map_err(|_| DecodeError::Malformed(what))?;
        self.range(length, what)
    }

    fn record(&mut self) -> Decoded<RecordOut> {
        const LENGTH: &str = "a record's length";
        let length = usize::try_from(self.varint(LENGTH)?).map_err(|_| DecodeError::Malformed(LENGTH))?;
        let end = self.at.checked_add(length).ok_or(DecodeError::Malformed(LENGTH))?;
        self.u8("a record's attributes")?;
        self.varint("a record's timestamp")?;
        let offset_delta = self.varint("a record's offset")?;
        let key = if self.flag("a key's presence")? { Some(self.bytes("a key")?) } else { None };
        let value = self.bytes("a value")?;
        self.varint("a record's headers")?;
        if self.at == end {
            Ok(RecordOut { offset_delta, key, value })
        } else {
            Err(DecodeError::Malformed(LENGTH))
        }
    }

    fn refusal(&mut self, with_kind: bool) -> Decoded<Refusal<'a>> {
        let hint = self.string("the error's hint")?;
        let offset = i64::from_be_bytes(self.array("the error's offset")?);
        if with_kind {
            self.u8("the error's kind")?;
        }
        if self.flag("the error's key")? {
            self.bytes("the error's key")?;
        }
        self.bytes("the error's value")?;
        Ok(Refusal { hint, offset })
    }
}
