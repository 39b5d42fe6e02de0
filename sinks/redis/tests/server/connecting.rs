//! Servers that are away, silent, gone in between, or refuse.

use std::io::Write as _;

use millrace_core::{Answer, Class, Error, Store};
use millrace_testkit::{
    message::message,
    views_suite::{self, Subject},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use crate::support::{Reader, open, prefix, variable};

/// Longer than any time-out set here, shorter than any default.
const SOON: Duration = Duration::from_millis(1_500);

/// The failure of one add, and how long it took to be known.
async fn failure(store: &dyn Store, prefix: &str) -> (Error, Duration) {
    let reader = Reader::single().await;
    let sink = Subject { store, reader: &reader, prefix }.timeline(10, 0);
    let add = json!({ "key": format!("{prefix}:feed"), "op": "add", "member": "m", "score": 1 });
    let calls = sink.encode(&[message(1, "a", &add.to_string())]).calls;
    let start = Instant::now();
    let answer = sink.send(&calls).await.remove(0);
    let Answer::Failed(error) = answer else { panic!("there is nobody to answer") };
    (error, start.elapsed())
}

#[tokio::test]
async fn a_wrong_password_is_fatal_at_once_and_never_shown() {
    let url = variable("MILLRACE_TEST_REDIS_AUTH");
    let server = format!("redis://{}", url.rsplit('@').next().unwrap());
    let wrong = [("url", server.as_str()), ("username", "millrace"), ("password", "not-this-one")];
    let (error, took) = failure(&open(&wrong), &prefix("wrong")).await;
    assert_eq!(error.class(), Class::Fatal);
    assert!(
        error.chain().contains("WRONGPASS") && !error.chain().contains("not-this-one"),
        "{}",
        error.chain()
    );
    assert!(took < SOON, "{took:?}");
}

#[tokio::test]
async fn a_password_may_stand_in_a_file() {
    let url = variable("MILLRACE_TEST_REDIS_AUTH");
    let (credentials, server) = url.trim_start_matches("redis://").rsplit_once('@').unwrap();
    let (username, password) = credentials.split_once(':').unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{password}").unwrap();
    let (server, path) = (format!("redis://{server}"), file.path().to_str().unwrap());
    let store = open(&[("url", &server), ("username", username), ("password_file", path)]);
    assert!(store.check().await.unwrap().iter().all(|finding| finding.ok));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_retried_soon() {
    let refused = open(&[("url", "redis://127.0.0.1:1")]);
    let cluster = open(&[("url", "redis://127.0.0.1:1,127.0.0.1:2"), ("cluster", "true")]);
    for store in [refused, cluster] {
        let (error, took) = failure(&store, &prefix("refused")).await;
        assert_eq!(error.class(), Class::Retry, "{}", error.chain());
        assert!(took < SOON, "{took:?}");
    }
}

#[tokio::test]
async fn a_silent_server_is_retried_after_the_time_out() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let store = open(&[("url", &url), ("connect_timeout", "200ms"), ("timeout", "200ms")]);
    let (error, took) = failure(&store, &prefix("silent")).await;
    assert_eq!(error.class(), Class::Retry, "{}", error.chain());
    assert!(took < SOON, "{took:?}");
}

#[tokio::test]
async fn a_server_that_stops_answering_is_retried_after_the_time_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        assert!(client.read(&mut buffer).await.unwrap() > 0);
        client.write_all(b"$25\r\n# Cluster\r\ncluster_enable\r\n").await.unwrap();
        while client.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    });
    let store = open(&[("url", &url), ("timeout", "200ms")]);
    let (error, took) = failure(&store, &prefix("stalled")).await;
    assert_eq!(error.class(), Class::Retry, "{}", error.chain());
    assert!(error.to_string().contains("no answer within 200ms"), "{error}");
    assert!(took < SOON, "{took:?}");
}

#[tokio::test]
async fn a_broken_connection_is_retried_and_then_replaced() {
    let server = variable("REDIS_URL").trim_start_matches("redis://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (cut, mut cuts) = tokio::sync::mpsc::channel::<()>(1);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut upstream = TcpStream::connect(&server).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut upstream) => {}
                _ = cuts.recv() => {}
            }
        }
    });
    let store = open(&[("url", &url)]);
    let (reader, prefix) = (Reader::single().await, prefix("broken"));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    for _ in 0..3 {
        views_suite::timeline::an_add_after_its_remove_has_no_effect(&subject).await;
        cut.send(()).await.unwrap();
    }
    views_suite::counter::a_redelivered_event_counts_once(&subject).await;
    reader.forget(&prefix).await;
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_fatal() {
    let url = variable("MILLRACE_TEST_REDIS_TLS");
    let (error, took) = failure(&open(&[("url", &url)]), &prefix("untrusted")).await;
    assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
    assert!(error.to_string().contains("ca_file"), "{error}");
    assert!(took < SOON, "{took:?}");
}

#[tokio::test]
async fn a_password_that_the_server_wants_and_does_not_get_is_fatal() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        assert!(client.read(&mut buffer).await.unwrap() > 0);
        client.write_all(b"-NOAUTH Authentication required.\r\n").await.unwrap();
    });
    let (error, _) = failure(&open(&[("url", &url)]), &prefix("noauth")).await;
    assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
}
