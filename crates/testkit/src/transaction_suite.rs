//! The conformance suite for brokers with transactions: what came of a batch is visible with its progress, or not
//! at all; states come back with the progress they belong to; a former owner changes nothing.
//!
//! Each case panics at the first thing that is wrong.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use millrace_core::{
    Assignment, Broker, Class, CommitOutcome, CreateOutcome, NewRecord, Record, Result, Source, SourceEvent,
    Start, States, Subscription, TopicSpec, Transactor,
};
use tokio::time::{Duration, timeout};

const PATIENCE: Duration = Duration::from_secs(60);

/// What the suite runs against.
#[derive(Clone, Copy)]
pub struct Rig<'a> {
    /// The broker under test.
    pub broker: &'a dyn Broker,
    /// Begins the name of every topic and group the suite makes: unique per run, lowercase letters, digits
    /// and `-`.
    pub prefix: &'a str,
}

/// All cases.
pub async fn run(rig: Rig<'_>) {
    assert!(rig.broker.has_transactions(), "the broker says that it has transactions");
    outputs_and_progress_are_visible_together(rig).await;
    what_is_dropped_leaves_nothing(rig).await;
    more_than_fits_into_memory_is_one_transaction(rig).await;
    only_the_record_that_is_too_large_is_refused(rig).await;
    what_is_refused_late_is_refused_alone(rig).await;
    a_missing_topic_is_fatal(rig).await;
    states_come_back_with_their_progress(rig).await;
    a_former_owner_commits_nothing(rig).await;
    what_is_rewound_begins_without_states_and_is_appended_again(rig).await;
}

/// Nothing is seen before the commit; then all is, in order, in the partitions of its keys.
pub async fn outputs_and_progress_are_visible_together(rig: Rig<'_>) {
    let (source_topic, out) = (rig.topic("atomic", 1).await, rig.topic("atomic-out", 3).await);
    let (_source, transactor, group) = rig.open("atomic", &source_topic).await;
    let wanted: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    for (offset, chunk) in wanted.chunks(10).enumerate() {
        let records = chunk.iter().map(|text| keyed(text, offset as i64)).collect();
        all_ok(transactor.send(&out, records).await);
    }
    assert!(rig.visible(&out).await.is_empty(), "nothing is visible before the commit");
    assert_eq!(rig.progress(&group, &source_topic).await, None);
    committed(transactor.commit(3, &States::new()).await);
    assert_eq!(rig.progress(&group, &source_topic).await, Some(3));
    let records = rig.wait_for(&out, 30).await;
    for partition in 0..3 {
        let of_it: Vec<u32> = records.iter().filter(|r| r.partition == partition).map(number).collect();
        assert!(of_it.is_sorted() && !of_it.is_empty(), "partition {partition} keeps the order: {of_it:?}");
    }
    committed(transactor.commit(4, &States::new()).await);
    assert_eq!(rig.progress(&group, &source_topic).await, Some(4), "progress alone is a transaction, too");
}

/// Dropping a transactor aborts; the next one of the partition is not held up by it.
pub async fn what_is_dropped_leaves_nothing(rig: Rig<'_>) {
    let (source_topic, out) = (rig.topic("dropped", 1).await, rig.topic("dropped-out", 1).await);
    let (source, transactor, group) = rig.open("dropped", &source_topic).await;
    for n in 0..8 {
        all_ok(transactor.send(&out, vec![large(n)]).await);
    }
    drop((source, transactor));
    let (_source, transactor, _) = rig.open("dropped", &source_topic).await;
    all_ok(transactor.send(&out, vec![keyed("7", 0)]).await);
    committed(transactor.commit(1, &States::new()).await);
    let records = rig.wait_for(&out, 1).await;
    assert_eq!(records.iter().map(number).collect::<Vec<_>>(), [7]);
    assert_eq!(rig.progress(&group, &source_topic).await, Some(1));
}

/// Outputs of many megabytes are still all or nothing.
pub async fn more_than_fits_into_memory_is_one_transaction(rig: Rig<'_>) {
    let (source_topic, out) = (rig.topic("much", 1).await, rig.topic("much-out", 1).await);
    let (_source, transactor, _) = rig.open("much", &source_topic).await;
    for n in 0..24 {
        all_ok(transactor.send(&out, vec![large(n)]).await);
    }
    assert!(rig.visible(&out).await.is_empty(), "nothing is visible before the commit");
    committed(transactor.commit(1, &States::new()).await);
    let records = rig.wait_for(&out, 24).await;
    let order: Vec<usize> = records.iter().map(|r| r.key.as_ref().map_or(0, Bytes::len)).collect();
    assert_eq!(order, (1..=24).collect::<Vec<_>>(), "in order");
}

/// A record that its topic does not take costs neither its company nor the transaction.
pub async fn only_the_record_that_is_too_large_is_refused(rig: Rig<'_>) {
    let (source_topic, out) = (rig.topic("large", 1).await, rig.topic_of("large-out", 1, 100_000).await);
    let (_source, transactor, _) = rig.open("large", &source_topic).await;
    let too_large = NewRecord { value: Some(vec![b'x'; 300_000].into()), ..keyed("2", 0) };
    let answers = transactor.send(&out, vec![keyed("1", 0), too_large, keyed("3", 0)]).await;
    let classes: Vec<_> = answers.iter().map(|a| a.as_ref().map_err(millrace_core::Error::class)).collect();
    assert_eq!(classes, [Ok(&()), Err(Class::Reject), Ok(&())]);
    committed(transactor.commit(1, &States::new()).await);
    let records = rig.wait_for(&out, 2).await;
    assert_eq!(records.iter().map(number).collect::<Vec<_>>(), [1, 3]);
}

/// A record that only the log itself can judge is found in the end, and nothing else is refused with it.
pub async fn what_is_refused_late_is_refused_alone(rig: Rig<'_>) {
    let (source_topic, out) = (rig.topic("late", 1).await, rig.topic("late-compact-out", 1).await);
    let (_source, transactor, _) = rig.open("late", &source_topic).await;
    let mut attempts = 0;
    loop {
        let keyless = NewRecord { key: None, ..keyed("2", 1) };
        let answers = transactor.send(&out, vec![keyed("1", 0), keyless, keyed("3", 2)]).await;
        let classes: Vec<_> =
            answers.iter().map(|a| a.as_ref().map_err(millrace_core::Error::class)).collect();
        assert_eq!((classes[0], classes[2]), (Ok(&()), Ok(&())), "a compacted topic takes what has a key");
        match transactor.commit(3, &States::new()).await.expect("an answer") {
            CommitOutcome::Committed => {
                assert_eq!(classes[1], Err(Class::Reject));
                break;
            }
            CommitOutcome::Aborted(_) => assert_eq!(classes[1], Ok(&())),
        }
        attempts += 1;
        assert!(attempts < 5, "the record at fault is found");
    }
    let records = rig.wait_for(&out, 2).await;
    assert_eq!(records.iter().map(number).collect::<Vec<_>>(), [1, 3]);
}

/// Nobody else is asked to make it.
pub async fn a_missing_topic_is_fatal(rig: Rig<'_>) {
    let source_topic = rig.topic("missing", 1).await;
    let (_source, transactor, _) = rig.open("missing", &source_topic).await;
    let absent = format!("{}-absent-out", rig.prefix);
    let answers = transactor.send(&absent, vec![keyed("1", 0)]).await;
    let error = answers.into_iter().next().expect("an answer").expect_err("the topic is not there");
    assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
}

/// States are those of the last commit, each step's own, whatever was begun after it.
pub async fn states_come_back_with_their_progress(rig: Rig<'_>) {
    let source_topic = rig.topic("states", 2).await;
    let state = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let big = Bytes::from(vec![b'b'; 1 << 20]);
    let (source, transactor, _) = rig.open("states", &source_topic).await;
    let first = States::from([("sum".into(), state("1")), ("big".into(), big.clone())]);
    committed(transactor.commit(1, &first).await);
    committed(transactor.commit(2, &States::from([("sum".into(), state("3"))])).await);
    all_ok(transactor.send(&source_topic, vec![NewRecord { partition: Some(1), ..keyed("9", 2) }]).await);
    drop((source, transactor));
    let mut source = rig.subscribe("states", &source_topic).await;
    for assignment in assigned(&mut *source).await {
        let transactor = source.control().transactor(&assignment).expect("a group's source has one");
        let restored = timeout(PATIENCE, transactor.restore()).await.expect("in time").expect("states");
        let wanted = match assignment.partition.partition {
            0 => States::from([("sum".into(), state("3")), ("big".into(), big.clone())]),
            _ => States::new(),
        };
        assert!(restored == wanted, "partition {}", assignment.partition.partition);
        assert_eq!(assignment.next_offset, if wanted.is_empty() { 0 } else { 2 });
    }
}

/// A worker that goes on after its partition was taken over commits neither outputs nor progress.
pub async fn a_former_owner_commits_nothing(rig: Rig<'_>) {
    let (source_topic, out) = (rig.topic("former", 1).await, rig.topic("former-out", 1).await);
    let (source, former, group) = rig.open("former", &source_topic).await;
    all_ok(former.send(&out, vec![keyed("1", 0)]).await);
    drop(source);
    let (_source, owner, _) = rig.open("former", &source_topic).await;
    all_ok(owner.send(&out, vec![keyed("2", 0)]).await);
    committed(owner.commit(2, &States::new()).await);
    let late = timeout(PATIENCE, former.commit(1, &States::new())).await.expect("in time");
    assert!(!matches!(late, Ok(CommitOutcome::Committed)), "a former owner commits nothing");
    all_ok(owner.send(&out, vec![keyed("3", 2)]).await);
    loop {
        // A log may need a second attempt where the former owner has meddled; nothing is doubled by it.
        match timeout(PATIENCE, owner.commit(3, &States::new())).await.expect("in time") {
            Ok(CommitOutcome::Committed) => break,
            Ok(CommitOutcome::Aborted(_)) => all_ok(owner.send(&out, vec![keyed("3", 2)]).await),
            Err(error) => assert_eq!(error.class(), Class::Retry, "{}", error.chain()),
        }
    }
    let records = rig.wait_for(&out, 2).await;
    assert_eq!(records.iter().map(number).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(rig.progress(&group, &source_topic).await, Some(3));
}

/// Progress that is set from outside is that of steps which have seen nothing, and outputs are made anew.
pub async fn what_is_rewound_begins_without_states_and_is_appended_again(rig: Rig<'_>) {
    let (source_topic, out) = (rig.topic("rewound", 1).await, rig.topic("rewound-out", 1).await);
    let (source, transactor, group) = rig.open("rewound", &source_topic).await;
    all_ok(transactor.send(&source_topic, vec![keyed("0", 0)]).await);
    all_ok(transactor.send(&out, vec![keyed("1", 0)]).await);
    let states = States::from([("sum".into(), Bytes::from_static(b"1"))]);
    committed(transactor.commit(1, &states).await);
    drop((source, transactor));
    let (admin, back) = (rig.broker.admin(), BTreeMap::from([(0, 0)]));
    let rewound = async {
        // Members that have left may be counted for a while.
        while admin.set_progress(&group, &source_topic, &back).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, rewound).await.expect("in time");
    let mut source = rig.subscribe("rewound", &source_topic).await;
    let assignment = assigned(&mut *source).await.remove(0);
    assert_eq!(assignment.next_offset, 0);
    let transactor = source.control().transactor(&assignment).expect("a group's source has one");
    let restored = timeout(PATIENCE, transactor.restore()).await.expect("in time").expect("states");
    assert!(restored.is_empty(), "{restored:?}");
    all_ok(transactor.send(&out, vec![keyed("1", 0)]).await);
    committed(transactor.commit(1, &States::new()).await);
    assert_eq!(rig.wait_for(&out, 2).await.len(), 2);
}

impl Rig<'_> {
    async fn topic(&self, case: &str, partitions: u32) -> String {
        self.topic_of(case, partitions, 2 << 20).await
    }

    async fn topic_of(&self, case: &str, partitions: u32, record_bytes_max: usize) -> String {
        let name = format!("{}-{case}", self.prefix);
        let spec = TopicSpec {
            name: name.clone(),
            partitions,
            retention_ms: None,
            retention_bytes: None,
            record_bytes_max,
            replication: None,
            compact: case.contains("compact"),
        };
        let outcome = self.broker.admin().create_topic(&spec).await.expect("a topic is created");
        assert_eq!(outcome, CreateOutcome::Created, "{name}: is the prefix unique?");
        if case.ends_with("-out") {
            return name;
        }
        let producer = self.broker.producer().await.expect("a producer");
        for answer in producer.send(&name, (0..5).map(|n| keyed(&n.to_string(), 0)).collect()).await {
            answer.expect("an appended record");
        }
        name
    }

    async fn subscribe(&self, case: &str, topic: &str) -> Box<dyn Source> {
        let subscription = Subscription {
            topic: topic.to_owned(),
            group: Some(format!("{}-{case}", self.prefix)),
            partitions: None,
            start: Start::Beginning,
            prefetch_bytes_max: 4 << 20,
            batch_records_max: 500,
        };
        self.broker.subscribe(subscription).await.expect("a source")
    }

    /// A member of the case's group, and the transactor of its partition 0.
    async fn open(&self, case: &str, topic: &str) -> (Box<dyn Source>, Arc<dyn Transactor>, String) {
        let mut source = self.subscribe(case, topic).await;
        let assignments = assigned(&mut *source).await;
        let first = assignments.iter().find(|one| one.partition.partition == 0).expect("partition 0");
        let transactor = source.control().transactor(first).expect("a group's source has one");
        timeout(PATIENCE, transactor.restore()).await.expect("in time").expect("states");
        (source, transactor, format!("{}-{case}", self.prefix))
    }

    async fn progress(&self, group: &str, topic: &str) -> Option<i64> {
        let progress = self.broker.admin().progress(group, topic).await.expect("progress");
        progress.get(&0).copied()
    }

    /// What a reader sees of a topic now, by partition.
    async fn visible(&self, topic: &str) -> Vec<Record> {
        self.read(topic, 0).await
    }

    /// What a reader sees when it has waited for `count` records and the end after them.
    async fn wait_for(&self, topic: &str, count: usize) -> Vec<Record> {
        let records = self.read(topic, count).await;
        assert_eq!(records.len(), count, "{topic}");
        records
    }

    async fn read(&self, topic: &str, count: usize) -> Vec<Record> {
        let info = self.broker.admin().topic(topic).await.expect("a look").expect("it is there");
        let subscription = Subscription {
            topic: topic.to_owned(),
            group: None,
            partitions: Some(info.partitions.keys().copied().collect()),
            start: Start::Beginning,
            prefetch_bytes_max: 4 << 20,
            batch_records_max: 500,
        };
        let mut source = self.broker.subscribe(subscription).await.expect("a source");
        let mut records = Vec::new();
        let mut ended = BTreeMap::new();
        while records.len() < count || ended.len() < info.partitions.len() {
            match next(&mut *source).await {
                SourceEvent::Batch(batch) => records.extend(batch.records),
                SourceEvent::CaughtUp { partition, next_offset } => {
                    ended.insert(partition.partition, next_offset);
                }
                _ => {}
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }
}

async fn next(source: &mut dyn Source) -> SourceEvent {
    loop {
        match timeout(PATIENCE, source.next()).await.expect("an event in time") {
            Ok(event) => return event.expect("the source goes on"),
            Err(error) => assert_eq!(error.class(), Class::Retry, "{}", error.chain()),
        }
    }
}

async fn assigned(source: &mut dyn Source) -> Vec<Assignment> {
    loop {
        if let SourceEvent::Assigned(assignments) = next(source).await {
            return assignments;
        }
    }
}

fn keyed(text: &str, source_offset: i64) -> NewRecord {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    NewRecord {
        key: Some(bytes.clone()),
        value: Some(bytes),
        source_offset: Some(source_offset),
        ..NewRecord::default()
    }
}

/// One of a megabyte, told by the length of its key.
fn large(n: usize) -> NewRecord {
    NewRecord {
        key: Some(vec![b'k'; n + 1].into()),
        value: Some(vec![b'x'; 1 << 20].into()),
        source_offset: Some(0),
        ..NewRecord::default()
    }
}

fn number(record: &Record) -> u32 {
    let text = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
    text.parse().expect("a number")
}

fn all_ok(answers: Vec<Result<()>>) {
    for answer in answers {
        answer.expect("it can be part of the transaction");
    }
}

fn committed(outcome: Result<CommitOutcome>) {
    match outcome.expect("an answer") {
        CommitOutcome::Committed => {}
        CommitOutcome::Aborted(error) => assert_eq!(error.chain(), "", "it was aborted"),
    }
}
