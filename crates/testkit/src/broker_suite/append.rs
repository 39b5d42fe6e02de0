//! Appending: order, partitions, bytes and refusals.

use std::collections::BTreeMap;

use bytes::Bytes;
use millrace_core::{Class, Error, Header, NewRecord, Start, partition_for_key};

use super::{Brief, Rig, noise, reader::Reader};

pub async fn each_partition_keeps_the_order(rig: Rig<'_>) {
    let topic = rig.topic("order", 4).await;
    let mut expected: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for round in 0..5 {
        let values: Vec<String> = (0..200).map(|n| format!("{round}.{n}")).collect();
        let records = values.iter().enumerate().map(|(n, v)| NewRecord::keyed(&format!("k{}", n % 37), v));
        let positions = rig.append_all(&topic, records.collect()).await;
        for (position, value) in positions.iter().zip(values) {
            let before = expected.entry(position.partition).or_default();
            assert_eq!(position.offset, i64::try_from(before.len()).expect("few"), "{topic}: {position:?}");
            before.push(value);
        }
    }
    assert_eq!(expected.len(), 4, "37 keys reach 4 partitions");
    let mut reader = Reader::open(rig.broker, rig.alone(&topic, vec![0, 1, 2, 3], Start::Beginning)).await;
    reader.read(1_000).await;
    for (partition, values) in expected {
        assert_eq!(reader.values(partition), values, "{topic}/{partition}");
    }
    let stamps: Vec<i64> = reader.records.iter().map(|record| record.timestamp_ms).collect();
    let (first, last) = (stamps.iter().min().expect("some"), stamps.iter().max().expect("some"));
    assert!(*first > 1_600_000_000_000, "records are stamped with the time of the append, not {first}");
    assert!(last - first < 120_000, "all were appended now, not over {} ms", last - first);
}

pub async fn keys_decide_the_partition(rig: Rig<'_>) {
    let topic = rig.topic("keys", 7).await;
    let long = "x".repeat(300);
    let keys = ["", "a", "user-1", "user-2", "ключ", "0123456789abcdef", long.as_str()];
    let positions = rig.append_all(&topic, keys.iter().map(|key| NewRecord::keyed(key, "v")).collect()).await;
    for (key, position) in keys.iter().zip(&positions) {
        let expected = partition_for_key(key.as_bytes(), 7);
        assert_eq!(u32::try_from(position.partition).expect("a number"), expected, "key '{key}'");
    }
    let given = NewRecord { partition: Some(5), ..NewRecord::keyed("a", "v") };
    assert_eq!(rig.append_all(&topic, vec![given]).await[0].partition, 5, "a given partition wins");
    let keyless = rig.append_all(&topic, vec![NewRecord::value("v")]).await;
    assert!((0..7).contains(&keyless[0].partition), "without a key: {:?}", keyless[0]);
}

pub async fn bytes_come_back_unchanged(rig: Rig<'_>) {
    let topic = rig.topic("bytes", 1).await;
    let header = |name: &str, value: Option<&'static [u8]>| Header {
        name: name.into(),
        value: value.map(Bytes::from_static),
    };
    let records = vec![
        NewRecord { key: Some(Bytes::from_static(b"gone")), value: None, ..NewRecord::default() },
        NewRecord { value: Some(Bytes::new()), ..NewRecord::default() },
        NewRecord { key: Some(Bytes::new()), ..NewRecord::value("empty key") },
        NewRecord { value: Some(noise(900_000)), ..NewRecord::keyed("large", "") },
        NewRecord { key: Some(Bytes::from_static(&[0, 159, 255])), ..NewRecord::value("\0\n\u{1F980}") },
        NewRecord {
            headers: vec![
                header("trace", Some(b"00-ab")),
                header("absent", None),
                header("empty", Some(b"")),
                header("trace", Some(&[0, 255])),
                header("имя", Some(b"v")),
            ],
            ..NewRecord::keyed("with headers", "v")
        },
        NewRecord::value("after"),
    ];
    rig.append_all(&topic, records.clone()).await;
    let mut reader = Reader::open(rig.broker, rig.alone(&topic, vec![0], Start::Beginning)).await;
    reader.read(records.len()).await;
    for (index, (read, sent)) in reader.records.iter().zip(&records).enumerate() {
        assert!(read.key == sent.key, "record {index}: key {:?} for {:?}", read.key, sent.key);
        let lengths = (read.value.as_ref().map(Bytes::len), sent.value.as_ref().map(Bytes::len));
        assert!(read.value == sent.value, "record {index}: the value differs, lengths {lengths:?}");
        assert_eq!(&*read.headers, sent.headers.as_slice(), "record {index}: headers");
    }
}

pub async fn only_the_record_that_is_too_large_is_rejected(rig: Rig<'_>) {
    let topic = rig.topic_of("too-large", 1, 1 << 20).await;
    let records = vec![
        NewRecord::value("before"),
        NewRecord { value: Some(noise(3 << 20)), ..NewRecord::default() },
        NewRecord::value("after"),
    ];
    let answers = rig.append(&topic, records).await;
    assert!(answers[0].is_ok(), "before: {:?}", answers[0]);
    assert_eq!(answers[1].as_ref().map_err(Error::class), Err(Class::Reject), "3 MiB of 1 MiB");
    assert!(answers[2].is_ok(), "after: {:?}", answers[2]);
    let mut reader = Reader::open(rig.broker, rig.alone(&topic, vec![0], Start::Beginning)).await;
    reader.read(2).await;
    assert_eq!(reader.values(0), ["before", "after"]);
}

pub async fn a_small_topic_takes_many_small_records(rig: Rig<'_>) {
    let topic = rig.topic_of("small", 1, 16 << 10).await;
    let values: Vec<String> = (0..2_000).map(|n| format!("{n:0>1000}")).collect();
    rig.append_all(&topic, values.iter().map(|value| NewRecord::value(value)).collect()).await;
    let mut reader = Reader::open(rig.broker, rig.alone(&topic, vec![0], Start::Beginning)).await;
    reader.read(values.len()).await;
    assert_eq!(reader.values(0), values);
}

pub async fn an_unknown_topic_is_fatal(rig: Rig<'_>) {
    let absent = format!("{}-absent", rig.prefix);
    for answer in rig.append(&absent, vec![NewRecord::value("a"), NewRecord::value("b")]).await {
        let error = answer.expect_err("there is no such topic");
        assert!(error.is_missing_topic(), "{}", error.chain());
        assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
    }
}

pub async fn two_senders_share_the_producer(rig: Rig<'_>) {
    let topic = rig.topic("senders", 2).await;
    tokio::join!(rig.append_numbers(&topic, 0, 0..500), rig.append_numbers(&topic, 1, 500..1_000));
    let mut reader = Reader::open(rig.broker, rig.alone(&topic, vec![0, 1], Start::Beginning)).await;
    reader.read(1_000).await;
    for (partition, numbers) in [(0, 0..500_u64), (1, 500..1_000)] {
        let expected: Vec<String> = numbers.map(|n| n.to_string()).collect();
        assert_eq!(reader.values(partition), expected, "{topic}/{partition}");
    }
}
