//! A call from the host: its records, one after the other, through the author's function, and the answer.
//!
//! The public functions are what `#[smartmodule(...)]` generates calls of; they are no part of the SDK's face.

use bytes::Bytes;

use crate::{
    Result,
    error::{
        SmartModuleInitErrorStatus, SmartModuleInitRuntimeError, SmartModuleKind,
        SmartModuleLookbackErrorStatus, SmartModuleLookbackRuntimeError, SmartModuleTransformErrorStatus,
        SmartModuleTransformRuntimeError,
    },
    exports,
    params::{SMARTMODULE_TIMESTAMPS_VERSION, SmartModuleExtraParams},
    record::{Record, RecordData, RecordHeader, SmartModuleRecord},
    wire::{Frame, Reader, put_error, put_record, put_string},
};

/// A key and a value, as authors' functions give them.
type KeyValue = (Option<RecordData>, RecordData);

/// A call's input, and what stands around its records.
struct Input {
    bytes: Bytes,
    frame: Frame,
}

/// A record for the author, and its bytes as they came.
struct Incoming<'a> {
    record: SmartModuleRecord,
    bytes: &'a [u8],
}

/// Goes over the records of a call.
struct Records<'a> {
    input: &'a Input,
    reader: Reader<'a>,
    left: u32,
}

/// The answer while it is written.
struct Answer<'a> {
    out: &'a mut Vec<u8>,
    count: u32,
}

/// A record is not what the ABI says.
struct Malformed;

#[doc(hidden)]
pub fn filter(
    input: *mut u8,
    length: usize,
    version: i32,
    mut keeps: impl FnMut(&SmartModuleRecord) -> Result<bool>,
) -> i32 {
    transform(input, length, version, SmartModuleKind::Filter, |incoming, answer| {
        if keeps(&incoming.record)? {
            answer.out.extend_from_slice(incoming.bytes);
            answer.count += 1;
        }
        Ok(())
    })
}

#[doc(hidden)]
pub fn map(
    input: *mut u8,
    length: usize,
    version: i32,
    mut makes: impl FnMut(&SmartModuleRecord) -> Result<KeyValue>,
) -> i32 {
    transform(input, length, version, SmartModuleKind::Map, |incoming, answer| {
        answer.put_made_of(&incoming.record, makes(&incoming.record)?);
        Ok(())
    })
}

#[doc(hidden)]
pub fn filter_map(
    input: *mut u8,
    length: usize,
    version: i32,
    mut makes: impl FnMut(&SmartModuleRecord) -> Result<Option<KeyValue>>,
) -> i32 {
    transform(input, length, version, SmartModuleKind::FilterMap, |incoming, answer| {
        if let Some(made) = makes(&incoming.record)? {
            answer.put_made_of(&incoming.record, made);
        }
        Ok(())
    })
}

#[doc(hidden)]
pub fn array_map(
    input: *mut u8,
    length: usize,
    version: i32,
    mut makes: impl FnMut(&SmartModuleRecord) -> Result<Vec<KeyValue>>,
) -> i32 {
    transform(input, length, version, SmartModuleKind::ArrayMap, |incoming, answer| {
        // New records, but each tells the one it was made of.
        let offset_delta = incoming.record.offset_delta();
        for (key, value) in makes(&incoming.record)? {
            let preamble = RecordHeader { offset_delta, ..RecordHeader::default() };
            answer.put(&Record { preamble, key, value, headers: 0 });
        }
        Ok(())
    })
}

#[doc(hidden)]
pub fn aggregate(
    input: *mut u8,
    length: usize,
    version: i32,
    mut folds: impl FnMut(RecordData, &SmartModuleRecord) -> Result<RecordData>,
) -> i32 {
    let kind = SmartModuleKind::Aggregate;
    let Some(input) = Input::take(input, length, version, true) else {
        return SmartModuleTransformErrorStatus::DecodingBaseInput as i32;
    };
    // What there is before an error stays.
    let mut accumulator = RecordData::of(input.bytes.slice(input.frame.accumulator.clone()));
    exports::answer(|out| {
        let code = run(&input, out, kind, |incoming, answer| {
            accumulator = folds(accumulator.clone(), &incoming.record)?;
            let made = (incoming.record.key().cloned(), accumulator.clone());
            answer.put_made_of(&incoming.record, made);
            Ok(())
        });
        let length = u32::try_from(accumulator.len()).expect("invariant: memory ends below 4 GiB");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&accumulator);
        (code, code >= 0)
    })
}

#[doc(hidden)]
pub fn init(
    input: *mut u8,
    length: usize,
    version: i32,
    takes: impl FnOnce(SmartModuleExtraParams) -> Result<()>,
) -> i32 {
    let input = exports::input(input, length).filter(|_| is_known(version));
    let Some(params) = input.and_then(|input| Reader::new(&input).params()) else {
        return SmartModuleInitErrorStatus::DecodingInput as i32;
    };
    match takes(params) {
        Ok(()) => 0,
        Err(error) => exports::answer(|out| {
            put_string(out, &SmartModuleInitRuntimeError::new(error).hint);
            (SmartModuleInitErrorStatus::InitError as i32, true)
        }),
    }
}

#[doc(hidden)]
pub fn look_back(
    input: *mut u8,
    length: usize,
    version: i32,
    mut sees: impl FnMut(&SmartModuleRecord) -> Result<()>,
) -> i32 {
    let Some(input) = Input::take(input, length, version, false) else {
        return SmartModuleLookbackErrorStatus::DecodingBaseInput as i32;
    };
    let Some(records) = input.records() else {
        return SmartModuleLookbackErrorStatus::DecodingRecords as i32;
    };
    for incoming in records {
        let Ok(incoming) = incoming else { return SmartModuleLookbackErrorStatus::DecodingRecords as i32 };
        if let Err(error) = sees(&incoming.record) {
            let error =
                SmartModuleLookbackRuntimeError::new(&incoming.record, input.frame.base_offset, error);
            return exports::answer(|out| {
                put_error(out, &error.hint, error.offset, None, &incoming.record);
                (SmartModuleLookbackErrorStatus::PropagatedError as i32, true)
            });
        }
    }
    0
}

fn transform(
    input: *mut u8,
    length: usize,
    version: i32,
    kind: SmartModuleKind,
    each: impl FnMut(&Incoming<'_>, &mut Answer<'_>) -> Result<()>,
) -> i32 {
    let Some(input) = Input::take(input, length, version, false) else {
        return SmartModuleTransformErrorStatus::DecodingBaseInput as i32;
    };
    exports::answer(|out| {
        let code = run(&input, out, kind, each);
        (code, code >= 0)
    })
}

/// Writes the records of an answer, up to the author's first error and with it; gives their number, or a code.
fn run(
    input: &Input,
    out: &mut Vec<u8>,
    kind: SmartModuleKind,
    mut each: impl FnMut(&Incoming<'_>, &mut Answer<'_>) -> Result<()>,
) -> i32 {
    const DECODING: i32 = SmartModuleTransformErrorStatus::DecodingRecords as i32;
    let Some(records) = input.records() else { return DECODING };
    // Most answers are no longer than their input.
    out.reserve(input.bytes.len());
    out.extend_from_slice(&[0; 4]);
    let mut answer = Answer { out, count: 0 };
    let mut error = None;
    for incoming in records {
        let Ok(incoming) = incoming else { return DECODING };
        if let Err(why) = each(&incoming, &mut answer) {
            let base = input.frame.base_offset;
            error =
                Some((SmartModuleTransformRuntimeError::new(&incoming.record, base, kind, why), incoming));
            break;
        }
    }
    let Answer { out, count } = answer;
    out[..4].copy_from_slice(&count.to_be_bytes());
    out.push(error.is_some().into());
    if let Some((error, incoming)) = error {
        put_error(out, &error.hint, error.offset, Some(kind), &incoming.record);
    }
    i32::try_from(count).expect("invariant: memory ends before so many records")
}

fn is_known(version: i32) -> bool {
    version == i32::from(SMARTMODULE_TIMESTAMPS_VERSION)
}

impl Input {
    fn take(pointer: *mut u8, length: usize, version: i32, aggregate: bool) -> Option<Self> {
        let bytes = exports::input(pointer, length).filter(|_| is_known(version)).map(Bytes::from)?;
        let frame = Reader::new(&bytes).frame(aggregate)?;
        Some(Input { bytes, frame })
    }

    fn records(&self) -> Option<Records<'_>> {
        let mut reader = Reader::within(&self.bytes, &self.frame.records)?;
        let left = reader.u32()?;
        Some(Records { input: self, reader, left })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = std::result::Result<Incoming<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let Some(at) = self.reader.record() else { return Some(Err(Malformed)) };
        let Input { bytes, frame } = self.input;
        let inner = Record {
            preamble: at.header,
            key: at.key.map(|key| RecordData::of(bytes.slice(key))),
            value: RecordData::of(bytes.slice(at.value)),
            headers: at.headers,
        };
        let record = SmartModuleRecord::new(inner, frame.base_offset, frame.base_timestamp);
        Some(Ok(Incoming { record, bytes: &bytes[at.whole] }))
    }
}

impl Answer<'_> {
    fn put(&mut self, record: &Record) {
        put_record(self.out, record);
        self.count += 1;
    }

    /// The record with another key and another value.
    fn put_made_of(&mut self, record: &Record, (key, value): KeyValue) {
        self.put(&Record { preamble: record.preamble.clone(), key, value, headers: record.headers });
    }
}

#[cfg(test)]
mod tests;
