//! Flow: ends, pauses, bounds, cancellation.

use millrace_core::{NewRecord, Start, Subscription};

use super::{Brief, Rig, noise, reader::Reader};

pub async fn the_end_is_told_each_time(rig: Rig<'_>) {
    let topic = rig.topic("ends", 2).await;
    let mut reader = Reader::open(rig.broker, rig.group_of("ends", &topic)).await;
    reader.until("both ends, empty", |reader| reader.ends.len() == 2).await;
    assert_eq!((reader.ends[&0].0, reader.ends[&1].0), (0, 0));
    for round in 1..=3_u64 {
        rig.append_numbers(&topic, 0, (round - 1) * 10..round * 10).await;
        let end = i64::try_from(round * 10).expect("few");
        reader.until(&format!("end {end}"), |reader| reader.ends[&0].0 == end).await;
        assert_eq!(reader.next[&0], end, "all records come before the end is told");
    }
    assert_eq!(reader.ends[&1].0, 0, "the other partition is as it was");
}

pub async fn an_empty_topic_has_an_end(rig: Rig<'_>) {
    let topic = rig.topic("empty", 1).await;
    for start in [Start::Beginning, Start::End] {
        let mut reader = Reader::open(rig.broker, rig.alone(&topic, vec![0], start)).await;
        reader.until("the end", |reader| reader.ends.contains_key(&0)).await;
        assert_eq!(reader.ends[&0].0, 0, "{start:?}");
    }
}

pub async fn a_paused_partition_holds_back(rig: Rig<'_>) {
    let topic = rig.topic("pause", 2).await;
    let mut reader = Reader::open(rig.broker, rig.group_of("pause", &topic)).await;
    reader.until("both ends", |reader| reader.ends.len() == 2).await;
    reader.control.pause(&[reader.partition(0)]);
    // What was fetched before may still come, so the pause holds once five rounds in a row bring nothing.
    let (mut round, mut silent) = (0_u64, 0);
    while silent < 5 {
        assert!(round < 100, "partition 0 goes on though it is paused");
        rig.append_numbers(&topic, 0, round..round + 1).await;
        rig.append_numbers(&topic, 1, round..round + 1).await;
        round += 1;
        let (before, due) = (reader.values(0).len(), i64::try_from(round).expect("few"));
        reader.until("the other partition", |reader| reader.next[&1] == due).await;
        silent = if reader.values(0).len() == before { silent + 1 } else { 0 };
    }
    reader.control.resume(&[reader.partition(0)]);
    let due = i64::try_from(round).expect("few");
    reader.until("what was held back", |reader| reader.next[&0] == due).await;
    let all: Vec<String> = (0..round).map(|n| n.to_string()).collect();
    assert_eq!(reader.values(0), all, "held back, not lost and not repeated");
}

pub async fn batches_are_bounded(rig: Rig<'_>) {
    let topic = rig.topic("batches", 1).await;
    rig.append_numbers(&topic, 0, 0..100).await;
    let small = Subscription { batch_records_max: 7, ..rig.group_of("batches", &topic) };
    let mut reader = Reader::open(rig.broker, small).await;
    reader.read(100).await;
    assert_eq!(reader.values(0).len(), 100);
}

pub async fn a_small_prefetch_still_moves(rig: Rig<'_>) {
    let topic = rig.topic("prefetch", 2).await;
    for partition in 0..2 {
        let large = noise(20_000);
        let record = NewRecord { partition: Some(partition), value: Some(large), ..NewRecord::default() };
        rig.append_all(&topic, vec![record; 100]).await;
    }
    let tight = Subscription { prefetch_bytes_max: 64 << 10, ..rig.group_of("prefetch", &topic) };
    let mut reader = Reader::open(rig.broker, tight).await;
    reader.read(200).await;
    assert_eq!((reader.values(0).len(), reader.values(1).len()), (100, 100));
}

pub async fn many_partitions_are_read(rig: Rig<'_>) {
    let topic = rig.topic("many", 48).await;
    let records = (0..480).map(|n: usize| NewRecord {
        partition: i32::try_from(n % 48).ok(),
        ..NewRecord::value(&n.to_string())
    });
    rig.append_all(&topic, records.collect()).await;
    let mut reader = Reader::open(rig.broker, rig.group_of("many", &topic)).await;
    reader.until("all ends", |reader| reader.ends.len() == 48).await;
    assert_eq!(reader.records.len(), 480);
    assert!(reader.ends.values().all(|(end, _)| *end == 10), "each partition has 10: {:?}", reader.ends);
}

pub async fn a_cancelled_next_loses_nothing(rig: Rig<'_>) {
    let topic = rig.topic("cancel", 1).await;
    let tight =
        Subscription { batch_records_max: 3, prefetch_bytes_max: 64 << 10, ..rig.group_of("cancel", &topic) };
    let mut reader = Reader::open(rig.broker, tight).await;
    for round in 0..20_u64 {
        rig.append_numbers(&topic, 0, round * 50..(round + 1) * 50).await;
        for _ in 0..20 {
            reader.poll_once().await;
        }
    }
    reader.read(1_000).await;
    let all: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    assert_eq!(reader.values(0), all);
}
