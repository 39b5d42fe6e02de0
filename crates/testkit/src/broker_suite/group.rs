//! Groups of several members: partitions are shared, handed over with their progress, and nothing is lost.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use millrace_core::{NewRecord, Subscription};
use tokio::{sync::Notify, time::Duration};

use super::{Brief, Rig, reader::Reader};

const PARTITIONS: i32 = 6;

/// What all members have seen together.
#[derive(Default)]
struct Seen {
    records: Mutex<Vec<(i32, i64)>>,
    changed: Notify,
}

impl Seen {
    fn add(&self, new: impl Iterator<Item = (i32, i64)>) {
        self.records.lock().expect("invariant: no holder panics").extend(new);
        self.changed.notify_waiters();
    }

    fn count(&self) -> (usize, usize) {
        let records = self.records.lock().expect("invariant: no holder panics");
        (records.iter().collect::<BTreeSet<_>>().len(), records.len())
    }

    async fn until_different(&self, count: usize) {
        let reached = tokio::time::timeout(Duration::from_secs(45), async {
            loop {
                let changed = self.changed.notified();
                if self.count().0 >= count {
                    return;
                }
                changed.await;
            }
        });
        assert!(reached.await.is_ok(), "the members have seen {:?} of {count}", self.count());
    }
}

/// A member of the group that goes on until it is told to stop; then it commits and leaves.
async fn member(mut reader: Reader, seen: Arc<Seen>, stop: Arc<Notify>) {
    loop {
        let before = reader.records.len();
        tokio::select! {
            biased;
            () = stop.notified() => break,
            event = reader.step() => event.expect("a source that works"),
        }
        seen.add(reader.records[before..].iter().map(|record| (record.partition, record.offset)));
    }
    reader.commit_all().await;
}

async fn append_round(rig: Rig<'_>, topic: &str) {
    let records = (0..120_i32)
        .map(|n| NewRecord { partition: Some(n % PARTITIONS), ..NewRecord::value(&n.to_string()) });
    rig.append_all(topic, records.collect()).await;
}

pub async fn members_share_the_partitions(rig: Rig<'_>) {
    let topic = rig.topic("members", PARTITIONS.unsigned_abs()).await;
    let group: Subscription = rig.group_of("members", &topic);
    let (seen, stop_first, stop_second) =
        (Arc::new(Seen::default()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    append_round(rig, &topic).await;
    let first = Reader::open(rig.broker, group.clone()).await;
    let first = tokio::spawn(member(first, seen.clone(), stop_first.clone()));
    seen.until_different(120).await;

    let mut second = Reader::open(rig.broker, group.clone()).await;
    second.until("a share of the partitions", |reader| !reader.assigned.is_empty()).await;
    let share = second.assigned.len();
    assert!(share < 6, "the second member takes a share, not all");
    let second = tokio::spawn(member(second, seen.clone(), stop_second.clone()));
    append_round(rig, &topic).await;
    seen.until_different(240).await;

    stop_first.notify_one();
    first.await.expect("the first member ends well");
    append_round(rig, &topic).await;
    seen.until_different(360).await;
    stop_second.notify_one();
    second.await.expect("the second member ends well");
    let (different, all) = seen.count();
    assert_eq!((different, all), (360, 360), "each record is seen once, as each hand-over committed");
}

pub async fn a_commit_inside_a_revoke_is_kept(rig: Rig<'_>) {
    let topic = rig.topic("handover", PARTITIONS.unsigned_abs()).await;
    let group = rig.group_of("handover", &topic);
    append_round(rig, &topic).await;
    let mut first = Reader::open(rig.broker, group.clone()).await;
    first.read(120).await;
    let leases: Vec<_> =
        first.assigned.values().map(|one| (one.partition.partition, one.lease.clone())).collect();
    let (seen, stop) = (Arc::new(Seen::default()), Arc::new(Notify::new()));
    let first = tokio::spawn(member(first, seen, stop.clone()));
    let mut second = Reader::open(rig.broker, group).await;
    second.until("a share of the partitions", |reader| !reader.assigned.is_empty()).await;
    for (partition, assignment) in &second.assigned {
        assert_eq!(assignment.next_offset, 20, "partition {partition}: committed inside the revoke");
        let (_, lease) = leases.iter().find(|(number, _)| number == partition).expect("it had all");
        assert!(!lease.is_valid(), "partition {partition}: the former owner's lease has ended");
    }
    stop.notify_one();
    first.await.expect("the first member ends well");
}
