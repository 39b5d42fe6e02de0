//! The bytes of the ABI: fixed vectors taken from a Fluvio host, and properties.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use millrace_core::LookBack;
use proptest::{collection::vec, option, prelude::*};
use tokio::time::Duration;

use super::*;

const RAW_AT: usize = 12;

/// The input as a guest gets it.
fn written(base: Base, records: &[RecordIn<'_>], accumulator: Option<&[u8]>) -> Vec<u8> {
    let input = RecordsInput::new(base, records.iter().copied(), accumulator);
    let mut place = vec![9; input.length()];
    input.write(&mut place);
    place
}

/// An answer that passes the records of an encoded input on: its records, then `no error`.
fn echo(input: &[u8]) -> Vec<u8> {
    let length = u32::from_be_bytes(input[8..RAW_AT].try_into().unwrap()) as usize;
    let mut answer = input[RAW_AT..RAW_AT + length].to_vec();
    answer.push(0);
    answer
}

fn records_of(answer: &[u8]) -> Vec<RecordOut> {
    let mut records = Vec::new();
    decode_answer(answer, false, usize::MAX, &mut records).unwrap();
    records
}

#[test]
fn an_input_has_the_bytes_fluvio_writes() {
    let record = RecordIn { timestamp_delta: 0, offset_delta: 0, key: Some(b"k"), value: b"val" };
    let base = Base { offset: 7, timestamp_ms: 9 };
    let expected = concat!(
        "0000000000000007", // base offset
        "00000010",         // bytes of records
        "00000001",         // records
        "16000000",         // length, attributes, timestamp, offset
        "01026b",           // key
        "0676616c",         // value
        "00",               // headers
        "000000",           // parameters, look-back
        "00000000",         // join record
        "0000000000000009", // base timestamp
    );
    assert_eq!(hex::encode(written(base, &[record], None)), expected);
    assert_eq!(hex::encode(written(base, &[record], Some(b"ab"))), format!("{expected}000000026162"));
}

#[test]
fn parameters_have_the_bytes_fluvio_writes() {
    let params = BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), String::new())]);
    assert_eq!(
        hex::encode(encode_params(&params, None).unwrap()),
        "00020001610000000162000132".to_owned() + "00"
    );
    let look_back = LookBack { records_max: 3, age_max: Some(Duration::new(1, 2)) };
    assert_eq!(
        hex::encode(encode_params(&BTreeMap::new(), Some(look_back)).unwrap()),
        "0000010000000000000003010000000000000001".to_owned() + "00000002"
    );
    let long = BTreeMap::from([("a".to_owned(), "x".repeat(65_536))]);
    assert!(encode_params(&long, None).unwrap_err().contains("65536 bytes"));
}

#[test]
fn an_error_carries_hint_and_offset() {
    let answer = hex::decode("00000000010002686900000000000000650001026b0676616c").unwrap();
    let mut records = Vec::new();
    let decoded = decode_answer(&answer, false, 1, &mut records).unwrap();
    let refusal = decoded.refusal.unwrap();
    assert_eq!((refusal.hint, refusal.offset), (b"hi".as_slice(), 101));
    let look_back = hex::decode("0002686900000000000000650000").unwrap();
    assert_eq!(decode_refusal(&look_back).unwrap(), refusal);
}

#[test]
fn an_aggregate_ends_with_its_accumulator() {
    let answer = hex::decode("0000000000000000026162").unwrap();
    let mut records = Vec::new();
    let decoded = decode_answer(&answer, true, 1, &mut records).unwrap();
    assert_eq!(decoded.accumulator, Some(b"ab".as_slice()));
    let error = decode_answer(&answer[..10], true, 1, &mut records).unwrap_err();
    assert_eq!(error, DecodeError::Malformed("the accumulator"));
}

#[test]
fn claims_are_checked_before_they_are_believed() {
    let decode = |hex: &str, records_max| {
        let bytes = hex::decode(hex).unwrap();
        decode_answer(&bytes, false, records_max, &mut Vec::new()).map(|_| ()).unwrap_err()
    };
    assert_eq!(decode("ffffffff", 1_000), DecodeError::TooMany(u32::MAX));
    assert_eq!(decode("ffffffff", usize::MAX), DecodeError::Malformed("the record count"));
    // One record whose length is one more, one less, and minus one.
    for length in ["0e", "0a", "01"] {
        let answer = format!("00000001{length}000000000000" /* a record of six bytes */);
        assert_eq!(decode(&(answer + "00"), 9), DecodeError::Malformed("a record's length"), "{length}");
    }
    assert_eq!(decode("000000010c0000000200000000", 9), DecodeError::Malformed("a key's presence"));
    // A value of 2^62 bytes.
    let huge = "000000012a00000000feffffffffffffffff01000000";
    assert_eq!(decode(huge, 9), DecodeError::Malformed("a value"));
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        offset in any::<i64>(),
        timestamp_ms in any::<i64>(),
        records in vec((0..=DELTA_MAX, any::<i64>(), option::of(vec(any::<u8>(), 0..40)), vec(any::<u8>(), 0..300)), 0..20),
    ) {
        let inputs: Vec<_> = records.iter().map(|(timestamp, offset, key, value)| RecordIn {
            timestamp_delta: *timestamp,
            offset_delta: *offset,
            key: key.as_deref(),
            value,
        }).collect();
        let buffer = written(Base { offset, timestamp_ms }, &inputs, None);
        prop_assert_eq!(&buffer[..8], &offset.to_be_bytes());
        prop_assert_eq!(&buffer[buffer.len() - 8..], &timestamp_ms.to_be_bytes());
        let answer = echo(&buffer);
        let decoded = records_of(&answer);
        prop_assert_eq!(decoded.len(), records.len());
        for (out, (_, offset_delta, key, value)) in decoded.iter().zip(&records) {
            prop_assert_eq!(out.offset_delta, *offset_delta);
            prop_assert_eq!(out.key.clone().map(|range| answer[range].to_vec()), key.clone());
            prop_assert_eq!(&answer[out.value.clone()], value.as_slice());
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in vec(any::<u8>(), 0..200), aggregate: bool) {
        let mut records = Vec::new();
        if decode_answer(&bytes, aggregate, 1_000, &mut records).is_ok() {
            prop_assert!(records.iter().all(|record| record.value.end <= bytes.len()));
        }
        let _ = decode_refusal(&bytes);
        let _ = decode_hint(&bytes);
    }

    /// Arbitrary bytes rarely get far; a valid answer with one changed byte does.
    #[test]
    fn a_damaged_answer_never_panics(
        values in vec(vec(any::<u8>(), 0..80), 1..6),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let inputs = values.iter().map(|value| RecordIn { timestamp_delta: 5, offset_delta: 6, key: Some(b"key"), value });
        let inputs: Vec<_> = inputs.collect();
        let buffer = written(Base { offset: 0, timestamp_ms: 0 }, &inputs, None);
        let mut answer = echo(&buffer);
        let at = at.index(answer.len());
        answer[at] = byte;
        let mut records = Vec::new();
        if decode_answer(&answer, false, 1_000, &mut records).is_ok() {
            prop_assert!(records.iter().all(|record| record.value.end <= answer.len()));
        }
    }
}
