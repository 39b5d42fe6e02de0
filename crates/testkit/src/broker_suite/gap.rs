//! Gaps: records that disappeared before they were read are told, never skipped in silence.

use millrace_core::{NewRecord, Subscription};

use super::{Rig, noise, reader::Reader};

pub async fn a_gap_is_told(rig: Rig<'_>) {
    let topic = rig.topic("gap", 2).await;
    rig.append_numbers(&topic, 0, 0..10).await;
    rig.append_numbers(&topic, 1, 0..10).await;
    let mut reader = Reader::open(rig.broker, rig.group_of("gap", &topic)).await;
    reader.read(20).await;
    reader.commit(0, 2).await;
    reader.commit(1, 6).await;
    let partitions = [reader.partition(0), reader.partition(1)];
    drop(reader);
    for partition in partitions {
        (rig.discard)(partition, 6).await;
    }
    let mut reader = Reader::open(rig.broker, rig.group_of("gap", &topic)).await;
    reader.read(8).await;
    assert_eq!(reader.gaps, [(0, 2, 6)], "one lost range, and none where progress is at the log's start");
    assert_eq!(reader.values(0), ["6", "7", "8", "9"], "reading goes on at the first that is there");
    assert_eq!(reader.values(1), ["6", "7", "8", "9"]);
}

pub async fn a_new_group_has_no_gap(rig: Rig<'_>) {
    let topic = rig.topic("no-gap", 1).await;
    rig.append_numbers(&topic, 0, 0..10).await;
    let group = rig.group_of("no-gap", &topic);
    let reader = Reader::open(rig.broker, group.clone()).await;
    let partition = reader.partition(0);
    drop(reader);
    (rig.discard)(partition, 7).await;
    let mut reader = Reader::open(rig.broker, group).await;
    reader.read(3).await;
    assert_eq!((reader.assigned[&0].next_offset, reader.gaps.len()), (7, 0));
    assert_eq!(reader.values(0), ["7", "8", "9"]);
}

/// The reader holds back for so long that retention overtakes it.
pub async fn a_gap_that_opens_while_reading_is_told(rig: Rig<'_>) {
    let topic = rig.topic("late-gap", 1).await;
    let tight = Subscription {
        prefetch_bytes_max: 64 << 10,
        batch_records_max: 10,
        ..rig.group_of("late-gap", &topic)
    };
    let value = noise(10_000);
    let records =
        |count: usize| vec![NewRecord { value: Some(value.clone()), ..NewRecord::default() }; count];
    rig.append_all(&topic, records(100)).await;
    let mut reader = Reader::open(rig.broker, tight).await;
    reader.read(1).await;
    rig.append_all(&topic, records(100)).await;
    (rig.discard)(reader.partition(0), 195).await;
    reader.until("the end", |reader| reader.next[&0] == 200).await;
    let read = i64::try_from(reader.records.len()).expect("few");
    let lost: i64 = reader.gaps.iter().map(|(_, from, to)| to - from).sum();
    assert_eq!(read + lost, 200, "each record was read or told as lost: {:?}", reader.gaps);
    assert!(lost > 0, "more was prefetched than the bound allows: {read} records of 10 kB");
}
