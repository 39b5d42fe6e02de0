//! Progress: where reading starts, what is remembered, and for whom.

use std::collections::BTreeMap;

use millrace_core::{Class, Error, Start, Subscription};
use tokio::time::{Duration, timeout};

use super::{Rig, reader::Reader};

pub async fn a_new_group_starts_at_the_beginning(rig: Rig<'_>) {
    let topic = rig.topic("beginning", 2).await;
    rig.append_numbers(&topic, 0, 0..5).await;
    rig.append_numbers(&topic, 1, 5..8).await;
    let mut reader = Reader::open(rig.broker, rig.group_of("beginning", &topic)).await;
    reader.read(8).await;
    assert!(reader.assigned.values().all(|assignment| assignment.next_offset == 0));
    assert_eq!(reader.values(0).len(), 5);
    assert_eq!(progress_of(rig, "beginning", &topic).await, BTreeMap::new(), "nothing was committed");
}

pub async fn progress_survives(rig: Rig<'_>) {
    let topic = rig.topic("survives", 2).await;
    rig.append_numbers(&topic, 0, 0..10).await;
    rig.append_numbers(&topic, 1, 0..10).await;
    let mut reader = Reader::open(rig.broker, rig.group_of("survives", &topic)).await;
    reader.read(20).await;
    reader.commit_all().await;
    drop(reader);
    assert_eq!(progress_of(rig, "survives", &topic).await, BTreeMap::from([(0, 10), (1, 10)]));
    rig.append_numbers(&topic, 1, 10..12).await;
    let mut reader = Reader::open(rig.broker, rig.group_of("survives", &topic)).await;
    reader.until("both partitions", |reader| reader.assigned.len() == 2).await;
    assert_eq!(reader.assigned[&0].next_offset, 10);
    assert_eq!(reader.assigned[&1].next_offset, 10);
    reader.read(2).await;
    assert_eq!(reader.values(1), ["10", "11"]);
}

pub async fn what_is_not_committed_comes_again(rig: Rig<'_>) {
    let topic = rig.topic("again", 1).await;
    rig.append_numbers(&topic, 0, 0..10).await;
    let mut reader = Reader::open(rig.broker, rig.group_of("again", &topic)).await;
    reader.read(10).await;
    reader.commit(0, 2).await;
    reader.commit(0, 4).await;
    drop(reader);
    let mut reader = Reader::open(rig.broker, rig.group_of("again", &topic)).await;
    reader.read(6).await;
    assert_eq!(reader.assigned[&0].next_offset, 4);
    assert_eq!(reader.values(0), ["4", "5", "6", "7", "8", "9"]);
}

pub async fn a_start_holds_without_progress_only(rig: Rig<'_>) {
    let topic = rig.topic("start", 1).await;
    rig.append_numbers(&topic, 0, 0..10).await;
    let at_end = Subscription { start: Start::End, ..rig.group_of("start-end", &topic) };
    let mut reader = Reader::open(rig.broker, at_end.clone()).await;
    reader.until("the end", |reader| reader.ends.contains_key(&0)).await;
    assert_eq!((reader.assigned[&0].next_offset, reader.records.len()), (10, 0), "from the end");
    rig.append_numbers(&topic, 0, 10..11).await;
    reader.read(1).await;
    assert_eq!(reader.values(0), ["10"], "from the end");
    reader.commit(0, 3).await;
    drop(reader);
    let mut reader = Reader::open(rig.broker, at_end).await;
    reader.read(1).await;
    assert_eq!(reader.records[0].offset, 3, "progress wins over the start");
    let from_six = Subscription { start: Start::Offset(6), ..rig.group_of("start-six", &topic) };
    let mut reader = Reader::open(rig.broker, from_six).await;
    reader.read(5).await;
    assert_eq!(reader.values(0), ["6", "7", "8", "9", "10"], "from offset 6");
}

pub async fn chosen_partitions_are_read_alone(rig: Rig<'_>) {
    let topic = rig.topic("chosen", 3).await;
    for partition in 0..3 {
        rig.append_numbers(&topic, partition, 0..6).await;
    }
    let mut first = Reader::open(rig.broker, rig.alone(&topic, vec![0, 2], Start::Offset(2))).await;
    let mut second = Reader::open(rig.broker, rig.alone(&topic, vec![2], Start::Beginning)).await;
    first.until("both ends", |reader| reader.ends.len() == 2).await;
    second.until("the end", |reader| reader.ends.len() == 1).await;
    assert_eq!(first.assigned.keys().copied().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(first.values(0), ["2", "3", "4", "5"]);
    assert_eq!(first.values(2), ["2", "3", "4", "5"]);
    assert_eq!(second.values(2).len(), 6, "two readers without a group do not share");
    first.commit(0, 5).await;
    let mut again = Reader::open(rig.broker, rig.alone(&topic, vec![0], Start::Beginning)).await;
    again.read(6).await;
    assert_eq!(again.values(0).len(), 6, "without a group nothing is remembered");
}

pub async fn chosen_partitions_keep_the_groups_progress(rig: Rig<'_>) {
    let topic = rig.topic("chosen-group", 2).await;
    rig.append_numbers(&topic, 0, 0..4).await;
    rig.append_numbers(&topic, 1, 0..4).await;
    let chosen = Subscription { partitions: Some(vec![1]), ..rig.group_of("chosen-group", &topic) };
    let mut reader = Reader::open(rig.broker, chosen.clone()).await;
    reader.read(4).await;
    reader.commit(1, 3).await;
    drop(reader);
    assert_eq!(progress_of(rig, "chosen-group", &topic).await, BTreeMap::from([(1, 3)]));
    let mut reader = Reader::open(rig.broker, chosen).await;
    reader.read(1).await;
    assert_eq!(reader.values(1), ["3"]);
}

pub async fn a_foreign_partition_is_not_committed(rig: Rig<'_>) {
    let topic = rig.topic("foreign", 2).await;
    rig.append_numbers(&topic, 0, 0..4).await;
    let chosen = Subscription { partitions: Some(vec![0]), ..rig.group_of("foreign", &topic) };
    let mut reader = Reader::open(rig.broker, chosen).await;
    reader.read(4).await;
    let offsets = [(reader.partition(0), 4), (reader.partition(1), 2)];
    reader.control.commit(&offsets).await.expect("a foreign partition is ignored");
    assert_eq!(progress_of(rig, "foreign", &topic).await, BTreeMap::from([(0, 4)]));
}

pub async fn an_unknown_topic_is_fatal(rig: Rig<'_>) {
    let absent = format!("{}-absent", rig.prefix);
    let chosen = rig.alone(&absent, vec![0], Start::Beginning);
    for subscription in [rig.group_of("absent", &absent), chosen] {
        let error = timeout(Duration::from_secs(30), first_error(rig, subscription)).await;
        let error = error.expect("an unknown topic is told in time");
        assert!(error.is_missing_topic(), "{}", error.chain());
        assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
        assert!(error.chain().contains(&absent), "the error names the topic: {}", error.chain());
    }
}

async fn first_error(rig: Rig<'_>, subscription: Subscription) -> Error {
    let mut source = match rig.broker.subscribe(subscription).await {
        Ok(source) => source,
        Err(error) => return error,
    };
    loop {
        match source.next().await {
            Err(error) if error.class() == Class::Retry => {}
            Err(error) => return error,
            Ok(event) => panic!("an unknown topic yields {event:?}"),
        }
    }
}

async fn progress_of(rig: Rig<'_>, case: &str, topic: &str) -> BTreeMap<i32, i64> {
    let group = format!("{}-{case}", rig.prefix);
    rig.broker.admin().progress(&group, topic).await.expect("the group's progress")
}
