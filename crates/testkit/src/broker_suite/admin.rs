//! Topics: created once, listed with what they hold.

use std::collections::BTreeMap;

use millrace_core::{CreateOutcome, PartitionSpan, TopicSpec};

use super::Rig;

pub async fn a_topic_is_created_once(rig: Rig<'_>) {
    let admin = rig.broker.admin();
    let spec = TopicSpec {
        name: format!("{}-once", rig.prefix),
        partitions: 3,
        retention_ms: Some(3_600_000),
        retention_bytes: Some(64 << 20),
        record_bytes_max: 1 << 20,
        replication: Some(1),
        compact: false,
    };
    let first = admin.create_topic(&spec).await.expect("a topic is created");
    assert_eq!(first, CreateOutcome::Created, "is the prefix unique?");
    for partitions in [3, 5] {
        let again = admin.create_topic(&TopicSpec { partitions, ..spec.clone() }).await.expect("again");
        assert_eq!(again, CreateOutcome::Exists { partitions: 3 }, "created again with {partitions}");
    }
    let info = admin.topic(&spec.name).await.expect("a look at it").expect("it is there");
    let empty = PartitionSpan { start: 0, end: 0 };
    assert_eq!(info.partitions, BTreeMap::from([(0, empty), (1, empty), (2, empty)]));
}

pub async fn spans_tell_what_is_there(rig: Rig<'_>) {
    let topic = rig.topic("spans", 2).await;
    rig.append_numbers(&topic, 0, 0..7).await;
    rig.append_numbers(&topic, 1, 0..3).await;
    let admin = rig.broker.admin();
    let one = admin.topic(&topic).await.expect("a look at it").expect("it is there");
    assert_eq!(one.partitions[&0], PartitionSpan { start: 0, end: 7 });
    assert_eq!(one.partitions[&1], PartitionSpan { start: 0, end: 3 });
    let all = admin.topics().await.expect("a list");
    assert!(all.contains(&one), "the list has the topic as it is");
    assert!(all.is_sorted_by(|a, b| a.name < b.name), "the list is sorted by name");
    assert!(all.iter().all(|info| !info.name.starts_with("__")), "the list has no internal topic");
}

pub async fn an_unknown_topic_is_none(rig: Rig<'_>) {
    let found = rig.broker.admin().topic(&format!("{}-absent", rig.prefix)).await.expect("a look");
    assert_eq!(found, None);
}
