//! Progress that is set by somebody who does not read.

use std::collections::BTreeMap;

use millrace_core::Class;
use tokio::time::{Duration, Instant};

use super::{Rig, reader::Reader};

/// How long a member that has left may still be counted.
const LEAVES_WITHIN: Duration = Duration::from_secs(90);

pub async fn progress_is_set_from_outside(rig: Rig<'_>) {
    let (topic, group) = (rig.topic("set", 2).await, format!("{}-set", rig.prefix));
    rig.append_numbers(&topic, 0, 0..6).await;
    rig.append_numbers(&topic, 1, 0..6).await;
    let admin = rig.broker.admin();
    // Also of a group that has never read.
    set(rig, &group, &topic, [(0, 4)]).await;
    assert_eq!(admin.progress(&group, &topic).await.expect("progress"), BTreeMap::from([(0, 4)]));
    let mut reader = Reader::open(rig.broker, rig.group_of("set", &topic)).await;
    reader.read(8).await;
    assert_eq!((reader.values(0), reader.values(1).len()), (vec!["4".to_owned(), "5".to_owned()], 6));
    reader.commit_all().await;
    drop(reader);
    set(rig, &group, &topic, [(0, 1), (1, 5)]).await;
    assert_eq!(admin.progress(&group, &topic).await.expect("progress"), BTreeMap::from([(0, 1), (1, 5)]));
    let mut reader = Reader::open(rig.broker, rig.group_of("set", &topic)).await;
    reader.read(6).await;
    assert_eq!(reader.values(0), ["1", "2", "3", "4", "5"]);
    assert_eq!(reader.values(1), ["5"]);
}

pub async fn progress_is_forgotten(rig: Rig<'_>) {
    let (topic, group) = (rig.topic("forgotten", 1).await, format!("{}-forgotten", rig.prefix));
    let admin = rig.broker.admin();
    admin.forget_progress(&group, &topic).await.expect("there is none");
    rig.append_numbers(&topic, 0, 0..3).await;
    set(rig, &group, &topic, [(0, 2)]).await;
    admin.forget_progress(&group, &topic).await.expect("it is forgotten");
    assert_eq!(admin.progress(&group, &topic).await.expect("progress"), BTreeMap::new());
    admin.forget_progress(&group, &topic).await.expect("again");
    let mut reader = Reader::open(rig.broker, rig.group_of("forgotten", &topic)).await;
    reader.read(3).await;
    assert_eq!(reader.assigned[&0].next_offset, 0);
}

pub async fn a_time_leads_to_offsets(rig: Rig<'_>) {
    let topic = rig.topic("times", 2).await;
    rig.append_numbers(&topic, 0, 0..3).await;
    let mut reader = Reader::open(rig.broker, rig.group_of("times", &topic)).await;
    reader.read(3).await;
    let times: Vec<i64> = reader.records.iter().map(|record| record.timestamp_ms).collect();
    let admin = rig.broker.admin();
    let at = async |ms| admin.offsets_at(&topic, ms).await.expect("offsets");
    assert_eq!(at(0).await, BTreeMap::from([(0, 0), (1, 0)]));
    let first = times.iter().position(|time| *time == times[2]).expect("it is there");
    let first = i64::try_from(first).expect("a small number");
    assert_eq!(at(times[2]).await, BTreeMap::from([(0, first), (1, 0)]), "the first of its time");
    assert_eq!(at(times[2] + 1).await, BTreeMap::from([(0, 3), (1, 0)]), "later than all");
    let error = admin.offsets_at(&format!("{topic}-absent"), 0).await.expect_err("no topic");
    assert!(error.is_missing_topic(), "{}", error.chain());
}

/// Where it can be seen: a group in another process of the same machine may not be.
pub async fn a_group_that_is_read_as_is_left_alone(rig: Rig<'_>) {
    let (topic, group) = (rig.topic("read-as", 1).await, format!("{}-read-as", rig.prefix));
    rig.append_numbers(&topic, 0, 0..3).await;
    let mut reader = Reader::open(rig.broker, rig.group_of("read-as", &topic)).await;
    reader.read(3).await;
    reader.commit(0, 2).await;
    let admin = rig.broker.admin();
    let error =
        admin.set_progress(&group, &topic, &BTreeMap::from([(0, 0)])).await.expect_err("it is read as");
    assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
    let error = admin.forget_progress(&group, &topic).await.expect_err("it is read as");
    assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
    assert_eq!(admin.progress(&group, &topic).await.expect("progress"), BTreeMap::from([(0, 2)]));
    drop(reader);
    set(rig, &group, &topic, [(0, 0)]).await;
    assert_eq!(admin.progress(&group, &topic).await.expect("progress"), BTreeMap::from([(0, 0)]));
}

/// Sets progress as soon as the members that have left are not counted any more.
async fn set<const N: usize>(rig: Rig<'_>, group: &str, topic: &str, offsets: [(i32, i64); N]) {
    let (admin, deadline) = (rig.broker.admin(), Instant::now() + LEAVES_WITHIN);
    loop {
        match admin.set_progress(group, topic, &BTreeMap::from(offsets)).await {
            Ok(()) => return,
            Err(error) => assert!(Instant::now() < deadline, "progress is set: {}", error.chain()),
        }
        tokio::task::yield_now().await;
    }
}
