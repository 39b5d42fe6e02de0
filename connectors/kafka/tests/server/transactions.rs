//! Transactions on a real server: the suite, and what only groups of several processes have.

use std::sync::Arc;

use millrace_core::{
    Assignment, Broker, Class, CommitOutcome, NewRecord, Source, SourceEvent, Start, States, Subscription,
    Transactor,
};
use millrace_kafka::KafkaBroker;
use millrace_testkit::transaction_suite::{self, Rig};
use tokio::time::{Duration, timeout};

use crate::{
    behaviour::{next, read_to_end, subscription, topic},
    rig::{self, open, plain, variable},
};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_suite() {
    let (broker, prefix) = (plain(), rig::prefix("txn"));
    transaction_suite::run(Rig { broker: &broker, prefix: &prefix }).await;
}

/// Assigned, and the transactor of partition 0.
async fn member(
    broker: &KafkaBroker,
    topic: &str,
) -> (Box<dyn Source>, Vec<Assignment>, Arc<dyn Transactor>) {
    let mut source = broker.subscribe(subscription(topic)).await.expect("a source");
    let SourceEvent::Assigned(all) = next(&mut *source).await else { unreachable!("assigned comes first") };
    let transactor = source.control().transactor(&all[0]).expect("a group has one");
    (source, all, transactor)
}

fn numbered(number: i64) -> Vec<NewRecord> {
    vec![NewRecord { value: Some(number.to_string().into()), ..NewRecord::default() }]
}

async fn appended(broker: &KafkaBroker, out: &str) -> Vec<i64> {
    let alone = Subscription { group: None, start: Start::Beginning, ..subscription(out) };
    let mut source = broker.subscribe(alone).await.expect("a source");
    let (records, _) = read_to_end(&mut *source).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).parse().expect("a number");
    records.iter().map(|record| text(record.value.as_deref().unwrap_or_default())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_place_is_taken_commits_nothing() {
    let bootstrap = variable("KAFKA_BROKERS");
    let named = || open(&[("bootstrap", &bootstrap), ("heartbeat", "10s"), ("group_instance_id", "one")]);
    let (first, second) = (named().expect("it opens"), named().expect("it opens"));
    let (from, out) = (topic(&first, "zombie", 1).await, topic(&first, "zombie-out", 1).await);
    let (_former, all, transactor) = member(&first, &from).await;
    transactor.restore().await.expect("states");
    assert!(transactor.send(&out, numbered(1)).await[0].is_ok());
    // The other one takes the place, and does not yet touch the transactional id.
    let mut latter = second.subscribe(subscription(&from)).await.expect("a source");
    assert!(matches!(next(&mut *latter).await, SourceEvent::Assigned(_)));
    let outcome = timeout(PATIENCE, transactor.commit(7, &States::new())).await.expect("in time");
    assert!(!matches!(outcome, Ok(CommitOutcome::Committed)), "lease: {}", all[0].lease.is_valid());
    assert!(appended(&second, &out).await.is_empty());
    let progress = second.admin().progress(&from, &from).await.expect("progress");
    assert!(progress.is_empty(), "{progress:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_go_on_while_the_group_changes() {
    let broker = plain();
    let (from, out) = (topic(&broker, "churn", 4).await, topic(&broker, "churn-out", 1).await);
    let (mut source, all, transactor) = member(&broker, &from).await;
    transactor.restore().await.expect("states");
    let (mut offset, mut aborted, mut is_ours) = (0, Vec::new(), true);
    while offset < 3 {
        assert!(transactor.send(&out, numbered(offset)).await[0].is_ok());
        let outcome = transactor.commit(offset + 1, &States::new()).await.expect("an answer");
        assert!(matches!(outcome, CommitOutcome::Committed), "alone in its group: {outcome:?}");
        offset += 1;
    }
    // It may take the partition at once, before anything else is committed.
    let mut second = Some(broker.subscribe(subscription(&from)).await.expect("a source"));
    while is_ours && (second.is_some() || offset < 20) {
        assert!(transactor.send(&out, numbered(offset)).await[0].is_ok());
        match transactor.commit(offset + 1, &States::new()).await {
            Ok(CommitOutcome::Committed) => offset += 1,
            Ok(CommitOutcome::Aborted(error)) => aborted.push(error.chain()),
            Err(error) => assert_eq!(error.class(), Class::Retry, "{}", error.chain()),
        }
        match timeout(Duration::from_millis(20), source.next()).await {
            Ok(Ok(Some(SourceEvent::Revoked { partitions, .. }))) => {
                is_ours = !partitions.contains(&all[0].partition);
            }
            Ok(event) => drop(event.expect("it works")),
            Err(_) => {}
        }
        let Some(member) = &mut second else { continue };
        if let Ok(Ok(Some(SourceEvent::Assigned(_)))) =
            timeout(Duration::from_millis(20), member.next()).await
        {
            second = None;
        }
    }
    drop(source);
    assert_eq!(appended(&broker, &out).await, (0..offset).collect::<Vec<_>>(), "aborted: {aborted:?}");
    let progress = broker.admin().progress(&from, &from).await.expect("progress");
    assert_eq!(progress.get(&all[0].partition.partition), Some(&offset));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_without_their_topic_are_not_forgotten_in_silence() {
    let bootstrap = variable("KAFKA_BROKERS");
    let named =
        |prefix: &str| open(&[("bootstrap", &bootstrap), ("group_prefix", prefix)]).expect("it opens");
    let prefix = format!("{}.", rig::prefix("states"));
    let broker = named(&prefix);
    let from = topic(&broker, "lost", 1).await;
    assert!(broker.producer().await.expect("a producer").send(&from, numbered(0)).await[0].is_ok());
    let (source, _, transactor) = member(&broker, &from).await;
    transactor.restore().await.expect("states");
    let states = States::from([("sum".into(), "1".into())]);
    let outcome = transactor.commit(1, &states).await.expect("an answer");
    assert!(matches!(outcome, CommitOutcome::Committed), "{outcome:?}");
    drop((source, transactor));
    let (_source, _, transactor) = member(&broker, &from).await;
    assert_eq!(transactor.restore().await.expect("states"), states);
    rig::discard_topic(&format!("{prefix}state")).await;
    let error = transactor.restore().await.expect_err("the state is gone");
    assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
    assert!(error.why().contains("reset the progress of group"), "{}", error.chain());
}
