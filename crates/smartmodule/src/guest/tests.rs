//! Calls as a host makes them, on bytes that Fluvio's own codec wrote.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use eyre::eyre;
use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    dataplane::{core::Encoder, record::RecordKey},
    params::Lookback,
};

const VERSION: i32 = 22;

/// Record `k`/`val`, base offset 7, base time 9, as a Fluvio host encodes it.
const INPUT: &str = "0000000000000007000000100000000116000000\
    01026b0676616c00000000000000000000000000000009";

/// Makes a call as a host does: memory is lent, written and given back with the call.
fn call(input: &[u8], export: impl FnOnce(*mut u8, usize) -> i32) -> i32 {
    let pointer = exports::lend_for_tests(input);
    export(pointer, input.len())
}

/// The code and the answer to it.
fn answered(input: &[u8], export: impl FnOnce(*mut u8, usize) -> i32) -> (i32, Vec<u8>) {
    let code = call(input, export);
    (code, exports::answer_for_tests())
}

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex).unwrap()
}

fn input_of(records: &[Record]) -> Vec<u8> {
    let mut raw = u32::try_from(records.len()).unwrap().to_be_bytes().to_vec();
    for record in records {
        put_record(&mut raw, record);
    }
    let mut input = 100_i64.to_be_bytes().to_vec();
    input.extend(u32::try_from(raw.len()).unwrap().to_be_bytes());
    input.extend(raw);
    input.extend([0; 7]);
    input.extend(5_i64.to_be_bytes());
    input
}

fn record(offset_delta: i64, key: Option<&[u8]>, value: &[u8]) -> Record {
    let preamble = RecordHeader { attributes: 0, timestamp_delta: offset_delta * 3, offset_delta };
    Record { preamble, key: key.map(|key| key.to_vec().into()), value: value.to_vec().into(), headers: 0 }
}

#[test]
fn a_record_has_the_bytes_offset_and_time_that_the_host_gave_it() {
    let mut seen = Vec::new();
    let (code, answer) = answered(&bytes(INPUT), |pointer, length| {
        filter(pointer, length, VERSION, |record| {
            seen.push((record.offset(), record.timestamp(), record.key().cloned(), record.value().clone()));
            Ok(true)
        })
    });
    assert_eq!(code, 1);
    assert_eq!(hex::encode(answer), "000000011600000001026b0676616c0000");
    assert_eq!(seen, [(7, 9, Some("k".into()), "val".into())]);
}

#[test]
fn a_map_keeps_the_preamble() {
    let input = input_of(&[record(3, Some(b"k"), b"v")]);
    let (_, answer) = answered(&input, |pointer, length| {
        map(pointer, length, VERSION, |record| Ok((None, record.value.to_vec().repeat(2).into())))
    });
    assert_eq!(hex::encode(answer), "0000000110001206000476760000");
}

#[test]
fn an_array_map_tells_of_each_output_what_it_was_made_of() {
    let input = input_of(&[record(0, None, b"a"), record(4, Some(b"k"), b"b")]);
    let (code, answer) = answered(&input, |pointer, length| {
        array_map(pointer, length, VERSION, |record| {
            Ok(vec![(record.key.clone(), "1".into()), (None, "2".into())])
        })
    });
    assert_eq!(code, 4);
    let outputs = "0e000000000231 00"; // length, attributes, time, offset 0, no key, value, headers
    assert!(hex::encode(&answer).starts_with(&format!("00000004{}", outputs.replace(' ', ""))));
    let second = hex::encode(&answer[4 + 16..]);
    assert!(
        second.starts_with(concat!("12000008", "01026b", "0231", "00")),
        "offset 4 and the key: {second}"
    );
}

#[test]
fn an_error_ends_the_call_and_keeps_what_came_before() {
    let input = input_of(&[record(0, None, b"a"), record(1, Some(b"k"), b"no"), record(2, None, b"c")]);
    let mut seen = 0;
    let (code, answer) = answered(&input, |pointer, length| {
        filter(pointer, length, VERSION, |record| {
            seen += 1;
            if record.value.as_ref() == b"no" { Err(eyre!("refused")) } else { Ok(true) }
        })
    });
    assert_eq!((code, seen), (1, 2));
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(text.contains("refused"), "{text}");
    let end = concat!("0000000000000065", "00", "01026b", "046e6f"); // offset 101, filter, key, value
    assert!(hex::encode(&answer).ends_with(end));
}

#[test]
fn an_aggregate_answers_its_state_after_each_record() {
    let mut input = input_of(&[record(0, None, b"b"), record(1, None, b"!"), record(2, None, b"d")]);
    input.extend([0, 0, 0, 1, b'a']);
    let (code, answer) = answered(&input, |pointer, length| {
        aggregate(pointer, length, VERSION, |state, record| {
            if record.value.as_ref() == b"!" {
                return Err(eyre!("refused"));
            }
            Ok([state.as_ref(), record.value.as_ref()].concat().into())
        })
    });
    assert_eq!(code, 1);
    assert!(hex::encode(&answer).starts_with("000000011000000000046162"), "{}", hex::encode(&answer));
    assert!(hex::encode(&answer).ends_with("000000026162"), "the state before the error");
}

#[test]
fn an_aggregate_of_nothing_keeps_its_state() {
    let mut input = input_of(&[]);
    input.extend([0, 0, 0, 1, b'a']);
    let (code, answer) =
        answered(&input, |pointer, length| aggregate(pointer, length, VERSION, |state, _| Ok(state)));
    assert_eq!((code, hex::encode(answer).as_str()), (0, "00000000000000000161"));
}

#[test]
fn init_takes_what_was_given_and_says_what_it_refuses() {
    let params = BTreeMap::from([("a".to_owned(), String::new()), ("b".to_owned(), "2".to_owned())]);
    let given = SmartModuleExtraParams::new(
        params,
        Some(Lookback { last: 3, age: Some(std::time::Duration::new(1, 2)) }),
    );
    let mut input = Vec::new();
    given.encode(&mut input, 22).unwrap();
    assert_eq!(
        hex::encode(&input),
        "000200016100000001620001320100000000000000030100000000000000010000000".to_owned() + "2"
    );
    assert_eq!(input.len(), given.write_size(22));
    let code = call(&input, |pointer, length| {
        init(pointer, length, VERSION, |params| {
            assert_eq!(params, given);
            Ok(())
        })
    });
    assert_eq!(code, 0);
    let (code, answer) =
        answered(&input, |pointer, length| init(pointer, length, VERSION, |_| Err(eyre!("no"))));
    assert_eq!(code, -2);
    assert_eq!(&answer[2..4], b"no");
}

#[test]
fn look_back_ends_at_an_error() {
    let input = input_of(&[record(0, None, b"a"), record(1, None, b"b")]);
    let all = call(&input, |pointer, length| look_back(pointer, length, VERSION, |_| Ok(())));
    assert_eq!(all, 0);
    let (code, answer) =
        answered(&input, |pointer, length| look_back(pointer, length, VERSION, |_| Err(eyre!("no"))));
    assert_eq!(code, -99);
    assert!(hex::encode(answer).ends_with(concat!("0000000000000064", "00", "0261")));
}

#[test]
fn a_hint_is_cut_between_characters() {
    let mut out = Vec::new();
    put_string(&mut out, &"ü".repeat(40_000));
    assert_eq!((&out[..2], out.len()), ([0xff, 0xfe].as_slice(), 2 + 65_534));
}

#[test]
fn another_version_and_another_buffer_are_refused() {
    let refused =
        |version| call(&bytes(INPUT), |pointer, length| filter(pointer, length, version, |_| Ok(true)));
    assert_eq!((refused(22), refused(21), refused(23)), (1, -11, -11));
    let stranger = filter(std::ptr::dangling_mut(), 44, VERSION, |_| Ok(true));
    assert_eq!(stranger, -11);
    assert_eq!(init(std::ptr::dangling_mut(), 3, VERSION, |_| Ok(())), -10);
    assert_eq!(look_back(std::ptr::dangling_mut(), 3, VERSION, |_| Ok(())), -66);
}

proptest! {
    #[test]
    fn what_passes_a_filter_is_what_came(
        records in vec((any::<i64>(), option::of(vec(any::<u8>(), 0..40)), vec(any::<u8>(), 0..300)), 0..20),
    ) {
        let records: Vec<Record> =
            records.iter().map(|(delta, key, value)| {
                let mut made = record(0, key.as_deref(), value);
                made.preamble.set_offset_delta(*delta);
                made.preamble.set_timestamp_delta(delta.wrapping_mul(7));
                made
            }).collect();
        let input = input_of(&records);
        let mut seen = Vec::new();
        let (code, kept) = answered(&input, |pointer, length| {
            filter(pointer, length, VERSION, |record| { seen.push(record.clone().into_inner()); Ok(true) })
        });
        let (_, mapped) = answered(&input, |pointer, length| {
            map(pointer, length, VERSION, |record| Ok((record.key.clone(), record.value.clone())))
        });
        prop_assert_eq!(usize::try_from(code).unwrap(), records.len());
        prop_assert_eq!(&seen, &records);
        let raw = u32::from_be_bytes(input[8..12].try_into().unwrap()) as usize;
        prop_assert_eq!(&kept[..raw], &input[12..12 + raw]);
        prop_assert_eq!(kept, mapped);
    }

    #[test]
    fn no_input_makes_the_guest_panic(input in vec(any::<u8>(), 0..200), at in 0_usize..60, byte: u8) {
        let mut damaged = input_of(&[record(0, Some(b"k"), b"v"), record(1, None, b"w")]);
        let at = at % damaged.len();
        damaged[at] = byte;
        for input in [input, damaged] {
            call(&input, |pointer, length| filter(pointer, length, VERSION, |_| Ok(true)));
            call(&input, |pointer, length| aggregate(pointer, length, VERSION, |state, _| Ok(state)));
            call(&input, |pointer, length| look_back(pointer, length, VERSION, |_| Ok(())));
            call(&input, |pointer, length| init(pointer, length, VERSION, |_| Ok(())));
        }
    }
}

#[test]
fn keys_and_values_are_made_of_what_authors_have() {
    let made = Record::new_key_value("k", vec![1, 2]);
    assert_eq!(
        (made.key.as_deref().map(|key| &key[..]), &made.value[..]),
        (Some(b"k".as_slice()), [1, 2].as_slice())
    );
    assert_eq!(Record::new_key_value(RecordKey::NULL, "v"), Record::new("v".to_owned()));
    assert_eq!(RecordData::from("text").describe(), "text: 'text'");
    assert_eq!(format!("{:?}", RecordData::from(vec![0, 1])), "values binary: (2 bytes)");
    assert!(RecordData::from(vec![0xff]).as_str().is_err());
}
