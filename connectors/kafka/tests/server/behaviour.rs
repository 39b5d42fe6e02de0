//! What only Kafka has: transactions, groups at work, brokers that are away, hostile producers.
#![expect(unsafe_code, reason = "only librdkafka itself can write a header name that is not UTF-8")]

use std::{ffi::CString, ptr};

use bytes::Bytes;
use millrace_core::{
    Broker, Class, Error, NewRecord, Record, Source, SourceEvent, Start, Subscription, TopicPartition,
    TopicSpec,
};
use rdkafka::{
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    bindings::{
        RD_KAFKA_MSG_F_COPY, rd_kafka_header_add, rd_kafka_headers_new, rd_kafka_producev,
        rd_kafka_vtype_t as Argument,
    },
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
    types::RDKafkaRespErr,
};
use tokio::time::{Duration, Instant, timeout};

use crate::rig::{native, open, plain, prefix, variable};

const PATIENCE: Duration = Duration::from_secs(30);

pub fn subscription(topic: &str) -> Subscription {
    Subscription {
        topic: topic.into(),
        group: Some(topic.into()),
        partitions: None,
        start: Start::Beginning,
        prefetch_bytes_max: 8 << 20,
        batch_records_max: 1_000,
    }
}

pub async fn topic(broker: &dyn Broker, test: &str, partitions: u32) -> String {
    let name = prefix(test);
    let spec = TopicSpec {
        name: name.clone(),
        partitions,
        retention_ms: None,
        retention_bytes: None,
        record_bytes_max: 1 << 20,
        replication: None,
        compact: false,
    };
    broker.admin().create_topic(&spec).await.expect("a topic");
    name
}

pub async fn next(source: &mut dyn Source) -> SourceEvent {
    loop {
        match timeout(PATIENCE, source.next()).await.expect("an event in time") {
            Ok(event) => return event.expect("it goes on"),
            Err(error) => assert_eq!(error.class(), Class::Retry, "{}", error.chain()),
        }
    }
}

/// The records up to the first end that is told, and that end.
pub async fn read_to_end(source: &mut dyn Source) -> (Vec<Record>, i64) {
    let mut records = Vec::new();
    loop {
        match next(source).await {
            SourceEvent::Batch(batch) => records.extend(batch.records),
            SourceEvent::CaughtUp { next_offset, .. } => return (records, next_offset),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_covers_transactions() {
    let broker = plain();
    let topic = topic(&broker, "txn", 1).await;
    let id = topic.clone();
    let native = native().set("transactional.id", &id).clone();
    let write = tokio::task::spawn_blocking(move || {
        let producer: ThreadedProducer<DefaultProducerContext> = native.create().expect("a producer");
        producer.init_transactions(PATIENCE).expect("transactions");
        for (values, commit) in [(["a", "b"], true), (["c", "d"], false)] {
            producer.begin_transaction().expect("begun");
            for value in values {
                producer.send(BaseRecord::<str, str>::to(&id).payload(value)).expect("taken");
            }
            producer.flush(PATIENCE).expect("flushed");
            let ended = if commit {
                producer.commit_transaction(PATIENCE)
            } else {
                producer.abort_transaction(PATIENCE)
            };
            ended.expect("ended");
        }
    });
    write.await.expect("written");
    let mut source = broker.subscribe(subscription(&topic)).await.expect("a source");
    let (records, end) = read_to_end(&mut *source).await;
    let values: Vec<_> = records.iter().filter_map(|record| record.value.clone()).collect();
    assert_eq!(values, ["a", "b"], "what was aborted is not shown");
    assert_eq!(end, 6, "two records and a marker each: the end is behind what is never shown");
    let span = broker.admin().topic(&topic).await.expect("a look").expect("it is there").partitions[&0];
    assert_eq!((span.start, span.end), (0, 6));
    source
        .control()
        .commit(&[(TopicPartition { topic: topic.as_str().into(), partition: 0 }, 6)])
        .await
        .expect("ok");
    assert_eq!(broker.admin().progress(&topic, &topic).await.expect("progress")[&0], 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_header_name_is_read() {
    let broker = plain();
    let topic = topic(&broker, "hostile", 1).await;
    let name = topic.clone();
    let config = native();
    let write = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = config.create().expect("a producer");
        let topic = CString::new(name).expect("no NUL");
        // SAFETY: the pointers live through the call, which copies them; on success librdkafka owns the headers.
        let answer = unsafe {
            let headers = rd_kafka_headers_new(1);
            rd_kafka_header_add(headers, [0xffu8, b'x'].as_ptr().cast(), 2, b"v".as_ptr().cast(), 1);
            rd_kafka_producev(
                producer.client().native_ptr(),
                Argument::RD_KAFKA_VTYPE_TOPIC,
                topic.as_ptr(),
                Argument::RD_KAFKA_VTYPE_MSGFLAGS,
                RD_KAFKA_MSG_F_COPY,
                Argument::RD_KAFKA_VTYPE_HEADERS,
                headers,
                Argument::RD_KAFKA_VTYPE_END,
                ptr::null::<u8>(),
            )
        };
        assert_eq!(answer, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
        producer.flush(PATIENCE).expect("flushed");
    });
    write.await.expect("written");
    let mut source = broker.subscribe(subscription(&topic)).await.expect("a source");
    let (records, _) = read_to_end(&mut *source).await;
    assert_eq!(&*records[0].headers[0].name, "\u{FFFD}x");
    assert_eq!(records[0].header("\u{FFFD}x"), Some(&b"v"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_leaves_says_goodbye() {
    let broker = plain();
    let topic = topic(&broker, "goodbye", 2).await;
    let mut first = broker.subscribe(subscription(&topic)).await.expect("a source");
    let SourceEvent::Assigned(all) = next(&mut *first).await else { unreachable!("assigned comes first") };
    assert_eq!(all.len(), 2);
    let control = first.control();
    drop(first);
    let left = Instant::now();
    let mut second = broker.subscribe(subscription(&topic)).await.expect("a source");
    let mut owned = 0;
    while owned < 2 {
        if let SourceEvent::Assigned(some) = next(&mut *second).await {
            owned += some.len();
        }
    }
    assert!(left.elapsed() < Duration::from_secs(20), "the session of 40 s was waited out");
    assert!(all.iter().all(|one| one.lease.is_revoked()), "a source that is gone has no leases");
    control.commit(&[(all[0].partition.clone(), 0)]).await.expect("what is not ours is ignored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_do_not_fail_while_the_group_changes() {
    let broker = plain();
    let topic = topic(&broker, "generations", 4).await;
    let mut first = broker.subscribe(subscription(&topic)).await.expect("a source");
    let SourceEvent::Assigned(all) = next(&mut *first).await else { unreachable!("assigned comes first") };
    let (control, mut owned) = (first.control(), all.len());
    let offsets: Vec<_> = all.iter().map(|one| (one.partition.clone(), 0)).collect();
    for _ in 0..2 {
        let mut second = Some(broker.subscribe(subscription(&topic)).await.expect("a source"));
        // Until the second has a share, and then until it has left and the first has all again.
        while second.is_some() || owned < 4 {
            control.commit(&offsets).await.expect("a commit in the middle of a rebalance");
            match timeout(Duration::from_millis(20), first.next()).await {
                Ok(Ok(Some(SourceEvent::Revoked { partitions, lost, .. }))) => {
                    assert!(!lost);
                    owned -= partitions.len();
                }
                Ok(Ok(Some(SourceEvent::Assigned(some)))) => owned += some.len(),
                Ok(event) => drop(event.expect("it works")),
                Err(_) => {}
            }
            let Some(member) = &mut second else { continue };
            if let Ok(Ok(Some(SourceEvent::Assigned(_)))) =
                timeout(Duration::from_millis(20), member.next()).await
            {
                assert!(owned < 4, "the second has a share that the first had given up");
                second = None;
            }
        }
    }
    assert_eq!(owned, 4);
    let progress = broker.admin().progress(&topic, &topic).await.expect("progress");
    assert_eq!(progress.len(), 4, "all partitions were committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chosen_partitions_of_a_running_group_are_not_committed() {
    let broker = plain();
    let topic = topic(&broker, "running", 1).await;
    let mut member = broker.subscribe(subscription(&topic)).await.expect("a source");
    assert!(matches!(next(&mut *member).await, SourceEvent::Assigned(_)));
    let chosen = Subscription { partitions: Some(vec![0]), ..subscription(&topic) };
    let mut outsider = broker.subscribe(chosen).await.expect("a source");
    let SourceEvent::Assigned(assignments) = next(&mut *outsider).await else { unreachable!("assigned") };
    let commit = outsider.control().commit(&[(assignments[0].partition.clone(), 0)]).await;
    let error = commit.expect_err("the group's members decide");
    assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_instance_elsewhere_ends_the_first() {
    let bootstrap = variable("KAFKA_BROKERS");
    let named = || open(&[("bootstrap", &bootstrap), ("heartbeat", "200ms"), ("group_instance_id", "one")]);
    let (first, second) = (named().expect("it opens"), named().expect("it opens"));
    let topic = topic(&first, "fenced", 1).await;
    let mut former = first.subscribe(subscription(&topic)).await.expect("a source");
    let SourceEvent::Assigned(all) = next(&mut *former).await else { unreachable!("assigned comes first") };
    let mut latter = second.subscribe(subscription(&topic)).await.expect("a source");
    assert!(matches!(next(&mut *latter).await, SourceEvent::Assigned(_)));
    let error = timeout(PATIENCE, async {
        loop {
            if let Err(error) = former.next().await {
                return error;
            }
        }
    });
    let error = error.await.expect("in time");
    assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
    assert!(error.why().contains("group_instance_id"), "{}", error.chain());
    assert!(all[0].lease.is_revoked(), "the former owner writes nothing any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_beyond_the_end_is_fatal() {
    let broker = plain();
    let topic = topic(&broker, "beyond", 1).await;
    let mut source = broker.subscribe(subscription(&topic)).await.expect("a source");
    let SourceEvent::Assigned(all) = next(&mut *source).await else { unreachable!("assigned comes first") };
    source.control().commit(&[(all[0].partition.clone(), 7)]).await.expect("Kafka stores any offset");
    drop(source);
    let mut source = broker.subscribe(subscription(&topic)).await.expect("a source");
    let error = timeout(PATIENCE, async {
        loop {
            match source.next().await {
                Err(error) if error.class() == Class::Retry => {}
                answer => return answer.expect_err("what is appended next would be skipped"),
            }
        }
    });
    let error = error.await.expect("in time");
    assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
    assert!(error.why().contains("up to offset 7, but ends at 0"), "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_allows_less_than_before_is_found_out() {
    let broker = plain();
    let topic = topic(&broker, "shrunk", 1).await;
    let producer = broker.producer().await.expect("a producer");
    let records = || vec![NewRecord { value: Some(vec![7; 1_000].into()), ..NewRecord::default() }; 100];
    assert!(producer.send(&topic, records()).await.iter().all(Result::is_ok));
    let admin: AdminClient<DefaultClientContext> = native().create().expect("an admin client");
    let smaller = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", "20000");
    admin.alter_configs([&smaller], &AdminOptions::new()).await.expect("an answer")[0]
        .as_ref()
        .expect("altered");
    let answers = producer.send(&topic, records()).await;
    let classes: Vec<_> = answers.iter().map(|answer| answer.as_ref().map_err(Error::class)).collect();
    assert!(classes.contains(&Err(Class::Retry)), "the batch is too large, its records are not: {classes:?}");
    assert!(!classes.contains(&Err(Class::Reject)), "{classes:?}");
    let answers = producer.send(&topic, records()).await;
    assert!(answers.iter().all(Result::is_ok), "alone each is accepted: {answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_not_there_is_fatal() {
    let broker = plain();
    let topic = topic(&broker, "partition", 2).await;
    let chosen = Subscription { group: None, partitions: Some(vec![1, 2]), ..subscription(&topic) };
    let mut source = broker.subscribe(chosen).await.expect("a source");
    let error = timeout(PATIENCE, source.next()).await.expect("in time").expect_err("no partition 2");
    assert_eq!(
        (error.class(), error.why().contains("no partition 2")),
        (Class::Fatal, true),
        "{}",
        error.chain()
    );
    assert!(matches!(source.next().await, Ok(None)), "after a fatal error there is nothing more");
    let record = NewRecord { partition: Some(7), ..NewRecord::default() };
    let answers = broker.producer().await.expect("a producer").send(&topic, vec![record]).await;
    let error = answers.into_iter().next().expect("an answer").expect_err("no partition 7");
    assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_is_retried() {
    let broker = open(&[("bootstrap", "127.0.0.1:1"), ("request_timeout", "1s"), ("delivery_timeout", "1s")]);
    let broker = broker.expect("nothing is connected");
    let error = broker.admin().topics().await.expect_err("nobody is there");
    assert_eq!(error.class(), Class::Retry, "{}", error.chain());
    assert!(error.chain().contains("127.0.0.1:1"), "the error says who is away: {}", error.chain());
    let answers = broker.producer().await.expect("a producer").send("t", vec![NewRecord::default()]).await;
    assert_eq!(answers[0].as_ref().map_err(Error::class), Err(Class::Retry));
    let mut source = broker.subscribe(subscription("t")).await.expect("a source");
    for _ in 0..2 {
        let error = timeout(PATIENCE, source.next()).await.expect("in time").expect_err("nobody is there");
        assert_eq!(error.class(), Class::Retry, "{}", error.chain());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_pipeline_keeps_its_partitions_and_loses_nothing() {
    let broker = plain();
    let topic = topic(&broker, "stalled", 2).await;
    let value = Bytes::from(vec![7; 10_000]);
    let records = (0..2_000).map(|n| NewRecord {
        partition: Some(n % 2),
        value: Some(value.clone()),
        ..NewRecord::default()
    });
    broker.producer().await.expect("a producer").send(&topic, records.collect()).await;
    let small = Subscription { prefetch_bytes_max: 1 << 20, ..subscription(&topic) };
    let mut source = broker.subscribe(small).await.expect("a source");
    let SourceEvent::Assigned(all) = next(&mut *source).await else { unreachable!("assigned comes first") };
    // Nobody reads for longer than a mailbox is waited out, so the partitions are paused.
    let another = Subscription { group: Some(format!("{topic}-other")), ..subscription(&topic) };
    let mut other = broker.subscribe(another).await.expect("a source");
    let started = Instant::now();
    let mut read = 0;
    while read < 2_000 || started.elapsed() < Duration::from_secs(2) {
        match timeout(Duration::from_millis(200), other.next()).await {
            Ok(Ok(Some(SourceEvent::Batch(batch)))) => read += batch.records.len(),
            Ok(other) => drop(other.expect("it works")),
            Err(_) => {}
        }
    }
    assert!(all.iter().all(|one| one.lease.is_valid()), "the thread polls though nobody takes anything");
    let mut offsets = [0_i64; 2];
    while offsets != [1_000, 1_000] {
        if let SourceEvent::Batch(batch) = next(&mut *source).await {
            let offset = &mut offsets[usize::try_from(batch.partition).expect("0 or 1")];
            assert_eq!(batch.records[0].offset, *offset, "nothing is lost or repeated across the pause");
            *offset = batch.next_offset();
        }
    }
}
