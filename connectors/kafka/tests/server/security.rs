//! Logins and encryption: what is right works, what is wrong is told at once and by name.

use millrace_core::{Broker, Class, Error, NewRecord, Start, Subscription, TopicSpec};
use millrace_kafka::KafkaBroker;
use tokio::time::{Duration, timeout};

use crate::rig::{open, prefix, variable};

/// Well under the time-outs: nobody waits for a login that was refused.
const AT_ONCE: Duration = Duration::from_secs(8);

fn spec(name: &str) -> TopicSpec {
    TopicSpec {
        name: name.into(),
        partitions: 1,
        retention_ms: None,
        retention_bytes: None,
        record_bytes_max: 1 << 20,
        replication: None,
        compact: false,
    }
}

fn subscription(topic: &str) -> Subscription {
    Subscription {
        topic: topic.into(),
        group: Some(topic.into()),
        partitions: None,
        start: Start::Beginning,
        prefetch_bytes_max: 1 << 20,
        batch_records_max: 10,
    }
}

/// A record goes there and back, and its progress is stored.
async fn round_trip(broker: &KafkaBroker, topic: &str) {
    broker.admin().create_topic(&spec(topic)).await.expect("a topic");
    let record = NewRecord { value: Some("hello".into()), ..NewRecord::default() };
    let answers = broker.producer().await.expect("a producer").send(topic, vec![record]).await;
    answers.into_iter().for_each(|answer| assert_eq!(answer.expect("appended").offset, 0));
    let mut source = broker.subscribe(subscription(topic)).await.expect("a source");
    let batch = timeout(Duration::from_secs(30), async {
        loop {
            match source.next().await.expect("it works").expect("it goes on") {
                millrace_core::SourceEvent::Batch(batch) => return batch,
                _ => continue,
            }
        }
    });
    let batch = batch.await.expect("the record comes");
    assert_eq!(batch.records[0].value.as_deref(), Some(&b"hello"[..]));
    source.control().commit(&[(batch.topic_partition(), 1)]).await.expect("a commit");
    assert_eq!(broker.admin().progress(topic, topic).await.expect("progress")[&0], 1);
}

/// The errors of looking, appending and reading.
async fn refusals(broker: &KafkaBroker) -> [Error; 3] {
    let looking = timeout(AT_ONCE, broker.admin().topics()).await.expect("at once").expect_err("refused");
    let producer = broker.producer().await.expect("a producer");
    let appending = timeout(AT_ONCE, producer.send("t", vec![NewRecord::default()])).await.expect("at once");
    let appending = appending.into_iter().next().expect("an answer").expect_err("refused");
    let mut source = broker.subscribe(subscription("t")).await.expect("a source");
    let reading = timeout(AT_ONCE, async {
        loop {
            match source.next().await {
                Err(error) if error.class() == Class::Retry => {}
                answer => return answer.expect_err("refused"),
            }
        }
    });
    [looking, appending, reading.await.expect("at once")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mechanism_logs_in() {
    let (bootstrap, ca_file) = (variable("MILLRACE_TEST_KAFKA_SASL"), variable("MILLRACE_TEST_CA_FILE"));
    let (username, password) =
        (variable("MILLRACE_TEST_KAFKA_USER"), variable("MILLRACE_TEST_KAFKA_PASSWORD"));
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let broker = open(&[
            ("bootstrap", &bootstrap),
            ("security", "sasl_tls"),
            ("sasl_mechanism", mechanism),
            ("username", &username),
            ("password", &password),
            ("ca_file", &ca_file),
        ]);
        round_trip(&broker.expect("it opens"), &prefix("sasl")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_fatal_at_once() {
    let (bootstrap, ca_file) = (variable("MILLRACE_TEST_KAFKA_SASL"), variable("MILLRACE_TEST_CA_FILE"));
    let username = variable("MILLRACE_TEST_KAFKA_USER");
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let broker = open(&[
            ("bootstrap", &bootstrap),
            ("security", "sasl_tls"),
            ("sasl_mechanism", mechanism),
            ("username", &username),
            ("password", "open-sesame"),
            ("ca_file", &ca_file),
        ])
        .expect("it opens");
        for error in refusals(&broker).await {
            assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
            assert!(error.why().contains("check 'username', 'password'"), "{}", error.chain());
            assert!(!error.chain().contains("open-sesame"), "{}", error.chain());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_untrusted_authority_is_fatal_at_once() {
    let bootstrap = variable("MILLRACE_TEST_KAFKA_SASL");
    let broker =
        open(&[("bootstrap", &bootstrap), ("security", "sasl_tls"), ("username", "u"), ("password", "p")])
            .expect("it opens");
    for error in refusals(&broker).await {
        assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
        assert!(error.why().contains("check 'ca_file'"), "{}", error.chain());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_shown() {
    let (bootstrap, ca_file) = (variable("MILLRACE_TEST_KAFKA_TLS"), variable("MILLRACE_TEST_CA_FILE"));
    let (cert_file, key_file) = (variable("MILLRACE_TEST_CLIENT_CERT"), variable("MILLRACE_TEST_CLIENT_KEY"));
    let without = [("bootstrap", bootstrap.as_str()), ("security", "tls"), ("ca_file", &ca_file)];
    let with = [&without[..], &[("cert_file", &cert_file), ("key_file", &key_file)]].concat();
    round_trip(&open(&with).expect("it opens"), &prefix("mtls")).await;
    for error in refusals(&open(&without).expect("it opens")).await {
        assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
        assert!(error.why().contains("check 'cert_file'"), "{}", error.chain());
    }
}

#[test]
fn a_missing_file_is_fatal() {
    let plain = [("bootstrap", "127.0.0.1:1"), ("security", "tls"), ("ca_file", "/nowhere/ca.pem")];
    let login = [
        ("bootstrap", "127.0.0.1:1"),
        ("security", "sasl_plaintext"),
        ("username", "u"),
        ("password_file", "/nowhere/password"),
    ];
    for (pairs, missing) in [(&plain[..], "/nowhere/ca.pem"), (&login[..], "/nowhere/password")] {
        let error = open(pairs).err().expect("no such file");
        assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
        assert!(error.chain().contains(missing), "{}", error.chain());
    }
}
