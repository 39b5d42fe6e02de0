//! Compacted topics: who reads one from the beginning learns the newest value of each key. When the older ones
//! go is the broker's matter.

use std::collections::BTreeMap;

use bytes::Bytes;
use millrace_core::{Class, NewRecord, Start, TopicSpec};

use super::{Brief, Rig, reader::Reader};

pub async fn the_newest_of_each_key_stays(rig: Rig<'_>) {
    let topic = compacted(rig, "compact").await;
    for round in 0..3 {
        let value = format!("round {round}");
        let keys = ["a", "b", "c"];
        rig.append_all(&topic, keys.map(|key| NewRecord::keyed(key, &value)).to_vec()).await;
    }
    let tombstone = NewRecord { value: None, ..NewRecord::keyed("b", "") };
    rig.append_all(&topic, vec![tombstone, NewRecord::keyed("c", "last")]).await;
    let info = rig.broker.admin().topic(&topic).await.expect("a look").expect("it is there");
    assert_eq!(info.partitions[&0].end, 11, "offsets go on, whatever is removed");

    let mut reader = Reader::open(rig.broker, rig.alone(&topic, vec![0], Start::Beginning)).await;
    reader.until("the end", |reader| reader.ends.get(&0).is_some_and(|(end, _)| *end == 11)).await;
    let mut newest: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
    for record in &reader.records {
        newest.insert(record.key.clone().expect("a key"), record.value.clone());
    }
    let expected = [("a", Some("round 2")), ("b", None), ("c", Some("last"))];
    assert_eq!(newest, expected.map(|(key, value)| (key.into(), value.map(Bytes::from))).into());
    rig.append_all(&topic, vec![NewRecord::keyed("a", "later")]).await;
    reader.until("what comes later", |reader| reader.next[&0] == 12).await;
}

pub async fn a_record_without_a_key_is_rejected(rig: Rig<'_>) {
    let topic = compacted(rig, "compact-keyless").await;
    let answers = rig.append(&topic, vec![NewRecord::value("no key")]).await;
    let error = answers[0].as_ref().expect_err("a record without a key");
    assert_eq!(error.class(), Class::Reject, "{}", error.chain());
}

async fn compacted(rig: Rig<'_>, case: &str) -> String {
    rig.create(TopicSpec {
        name: format!("{}-{case}", rig.prefix),
        partitions: 1,
        retention_ms: None,
        retention_bytes: None,
        record_bytes_max: 1 << 20,
        replication: None,
        compact: true,
    })
    .await
}
