//! Against a real Elasticsearch: the conformance suite, and what only the server can show.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod cluster;

use millrace_core::{Answer, Class, Message, Sink, Store, settings::Problems, views::FieldType};
use millrace_elasticsearch::{Elasticsearch, Options};
use millrace_testkit::{
    index_suite::{self, IndexReader},
    message::message,
};
use serde_json::{Value, json};

use cluster::{Cluster, settings};

fn put(id: &str, version: i64, document: &str) -> Message {
    message(0, "e", &format!(r#"{{"op":"put","id":"{id}","v":{version},"doc":{document}}}"#))
}

async fn deliver(sink: &dyn Sink, messages: &[Message]) -> Vec<Answer> {
    sink.send(&sink.encode(messages).calls).await
}

async fn deliver_all(sink: &dyn Sink, messages: &[Message]) {
    for answer in deliver(sink, messages).await {
        if let Answer::Failed(error) = answer {
            panic!("{}", error.chain());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_index_suite() {
    let cluster = Cluster::open("suite");
    let rig = index_suite::Rig {
        store: &cluster.store,
        reader: &cluster,
        prefix: &cluster.prefix,
        types_checked: true,
    };
    index_suite::run(rig).await;
    cluster.clean().await;
}

#[tokio::test]
async fn check_finds_the_cluster_fit() {
    let cluster = Cluster::open("check");
    let findings = cluster.store.check().await.unwrap();
    assert!(findings.iter().all(|finding| finding.ok), "{findings:?}");
    assert!(findings.iter().any(|finding| finding.what.starts_with("version 8.")), "{findings:?}");
    assert!(findings.iter().any(|finding| finding.what.contains("cluster '")), "{findings:?}");
}

#[tokio::test]
async fn another_type_is_fatal_and_a_new_field_is_added() {
    let cluster = Cluster::open("mapping");
    let index = cluster.index("posts");
    let declared = [("title", FieldType::Text), ("likes", FieldType::Long)];
    cluster.sink(&index, "merge", &declared).prepare().await.unwrap();

    let other = cluster.sink(&index, "merge", &[("likes", FieldType::Keyword)]);
    let error = other.prepare().await.unwrap_err();
    assert_eq!(error.class(), Class::Fatal);
    assert!(
        error.why().contains("field 'likes' is declared as keyword, the index has it as long"),
        "{error}"
    );

    let replace = cluster.sink(&index, "replace", &declared);
    assert!(replace.prepare().await.unwrap_err().why().contains("do not mix"));

    let more = [("title", FieldType::Text), ("a.b", FieldType::Keyword), ("at", FieldType::Date)];
    let wider = cluster.sink(&index, "merge", &more);
    wider.prepare().await.unwrap();
    wider.prepare().await.unwrap();
    deliver_all(&*wider, &[put("p", 1, r#"{"a":{"b":"x"},"at":"2015-02-16T23:36:00Z","unknown":{"y":1}}"#)])
        .await;
    cluster.refresh(&index).await;
    let found = |query: Value| cluster.search_count(&index, query);
    assert_eq!(found(json!({ "term": { "a.b": "x" } })).await, 1);
    assert_eq!(
        found(json!({ "range": { "at": { "gte": 1_424_129_760_000_i64, "format": "epoch_millis" } } })).await,
        1
    );
    assert_eq!(found(json!({ "term": { "unknown.y": 1 } })).await, 0, "an undeclared field is not indexed");
    cluster.clean().await;
}

#[tokio::test]
async fn shards_and_replicas_come_from_the_declaration() {
    let cluster = Cluster::open("shards");
    let index = cluster.index("posts");
    cluster.sink_with(&index, "merge", &[], Some(3), Some(0)).prepare().await.unwrap();
    let told = cluster.get(&format!("{index}/_settings")).await;
    let settings = &told[format!("{index}-000001")]["settings"]["index"];
    assert_eq!((&settings["number_of_shards"], &settings["number_of_replicas"]), (&json!("3"), &json!("0")));
    cluster.clean().await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_fatal() {
    let cluster = Cluster::open("taken");
    let index = cluster.index("posts");
    cluster.put(&index, &json!({})).await;
    let error = cluster.sink(&index, "merge", &[]).prepare().await.unwrap_err();
    assert_eq!(error.class(), Class::Fatal);
    assert!(error.why().contains("is no alias but an index"), "{error}");
    cluster.delete(&index).await;
}

#[tokio::test]
async fn an_index_made_by_an_operator_is_taken_over() {
    let cluster = Cluster::open("theirs");
    let index = cluster.index("posts");
    let mapping =
        json!({ "mappings": { "properties": { "title": { "type": "text", "analyzer": "whitespace" } } } });
    cluster.put(&format!("{index}-000001"), &mapping).await;
    let sink = cluster.sink(&index, "merge", &[("title", FieldType::Text), ("n", FieldType::Long)]);
    sink.prepare().await.unwrap();
    deliver_all(&*sink, &[put("a", 1, r#"{"title":"One-Two","free":"text"}"#)]).await;
    deliver_all(&*sink, &[message(1, "d", r#"{"op":"delete","id":"b","v":1}"#)]).await;
    cluster.refresh(&index).await;
    assert_eq!(
        cluster.search_count(&index, json!({ "match_all": {} })).await,
        1,
        "the alias hides tombstones"
    );
    let told = cluster.get(&index).await;
    let mapping = &told[format!("{index}-000001")]["mappings"];
    assert_eq!(mapping["properties"]["title"]["analyzer"], "whitespace");
    assert_eq!(mapping["properties"].get("free"), None, "no field is guessed");
    assert_eq!(mapping["properties"]["n"]["type"], "long");
    cluster.clean().await;
}

#[tokio::test]
async fn writes_follow_the_alias_and_never_make_an_index() {
    let cluster = Cluster::open("alias");
    let index = cluster.index("posts");
    for mode in ["merge", "replace"] {
        let sink = cluster.sink(&index, mode, &[("n", FieldType::Long)]);
        sink.prepare().await.unwrap();
        deliver_all(&*sink, &[put("a", 1, r#"{"n":1}"#)]).await;
        cluster.delete(&format!("{index}-000001")).await;
        let answers = deliver(&*sink, &[put("b", 1, r#"{"n":1}"#)]).await;
        assert!(
            matches!(&answers[..], [Answer::Failed(error)] if error.class() == Class::Fatal),
            "{mode}: {answers:?}"
        );
        assert_eq!(cluster.get(&index).await["status"], 404, "{mode}: no index with a guessed mapping");
        sink.prepare().await.unwrap();
        deliver_all(&*sink, &[put("b", 1, r#"{"n":1}"#)]).await;
        cluster.delete(&format!("{index}-000001")).await;
    }
}

#[tokio::test]
async fn digits_stay_through_merges() {
    let cluster = Cluster::open("digits");
    let index = cluster.index("posts");
    let sink = cluster.sink(&index, "merge", &[("n", FieldType::Double)]);
    sink.prepare().await.unwrap();
    deliver_all(&*sink, &[put("a", 1, r#"{"n":1.10,"big":18446744073709551617,"text":"\u00e9"}"#)]).await;
    deliver_all(&*sink, &[put("a", 2, r#"{"more":2.50}"#)]).await;
    let source = cluster.text(&format!("{index}/_source/a")).await;
    let expected = r#"{"n":1.10,"big":18446744073709551617,"text":"\u00e9","more":2.50,"millrace":{"deleted":false,"version":2,"versions":{"n":1,"big":1,"text":1}}}"#;
    assert_eq!(source, expected);
    // A redelivery reads and writes nothing.
    let before = cluster.get(&format!("{index}/_doc/a")).await["_seq_no"].clone();
    deliver_all(&*sink, &[put("a", 1, r#"{"n":1.10}"#), put("a", 2, r#"{"more":2.50}"#)]).await;
    assert_eq!(cluster.get(&format!("{index}/_doc/a")).await["_seq_no"], before);
    cluster.clean().await;
}

/// There is no cluster with TLS here, but a handshake needs none: another server's certificate of the test
/// authority is trusted with `ca_file` and not without.
#[tokio::test]
async fn the_authorities_of_ca_file_are_trusted() {
    let variable = |name: &str| {
        std::env::var(name).unwrap_or_else(|_| {
            panic!("{name} is not set: run scripts/test, or: eval \"$(scripts/services env)\"")
        })
    };
    let url = variable("MILLRACE_TEST_REDIS_TLS").replace("rediss://", "https://");
    let ca = variable("MILLRACE_TEST_CA_FILE");
    let failure = async |pairs: &[(&str, &str)]| {
        let options = Options::read(&settings(pairs), &mut Problems::default()).unwrap();
        Elasticsearch::open("tls", &options).unwrap().check().await.unwrap_err()
    };
    let stranger = failure(&[("url", &url)]).await;
    assert_eq!(stranger.class(), Class::Fatal);
    assert!(stranger.chain().contains("not trusted; see 'ca_file'"), "{}", stranger.chain());
    let trusted = failure(&[("url", &url), ("ca_file", &ca)]).await;
    assert_eq!(trusted.class(), Class::Retry, "{}", trusted.chain());
    assert!(!trusted.chain().contains("certificate"), "{}", trusted.chain());

    let missing =
        Options::read(&settings(&[("url", &url), ("ca_file", "absent.pem")]), &mut Problems::default());
    let error = Elasticsearch::open("tls", &missing.unwrap()).err().unwrap();
    assert_eq!(error.class(), Class::Fatal);
    assert!(error.chain().contains("certificate file absent.pem: cannot be read"), "{}", error.chain());
}
