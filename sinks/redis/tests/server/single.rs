//! One server: the conformance suite, and what only Redis can show.

use millrace_core::{Answer, Class, Store};
use millrace_testkit::{
    message::message,
    views_suite::{self, Subject, send_all},
};
use serde_json::json;

use crate::support::{Reader, open, prefix, variable};

#[tokio::test]
async fn passes_the_suite() {
    let store = open(&[("url", &variable("REDIS_URL"))]);
    let (reader, prefix) = (Reader::single().await, prefix("suite"));
    views_suite::all(&Subject { store: &store, reader: &reader, prefix: &prefix }).await;
    reader.forget(&prefix).await;
}

#[tokio::test]
async fn passes_the_suite_of_timelines_with_a_password_and_with_tls() {
    let (reader, ca_file) = (Reader::single().await, variable("MILLRACE_TEST_CA_FILE"));
    let auth = [("url", variable("MILLRACE_TEST_REDIS_AUTH"))];
    let tls = [("url", variable("MILLRACE_TEST_REDIS_TLS")), ("ca_file", ca_file)];
    for pairs in [&auth[..], &tls[..]] {
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, text)| (*key, text.as_str())).collect();
        let (store, prefix) = (open(&pairs), prefix("secured"));
        let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
        views_suite::timeline::every_order_gives_the_same(&subject).await;
        reader.forget(&prefix).await;
    }
}

#[tokio::test]
async fn a_key_of_another_type_harms_no_other() {
    let store = open(&[("url", &variable("REDIS_URL"))]);
    let (reader, prefix) = (Reader::single().await, prefix("wrongtype"));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    let (good, bad, after) = (subject.key("good"), subject.key("bad"), subject.key("after"));
    let _: i64 = reader.ask(&["LPUSH", &bad, "a list"]).await;

    let cases = [
        (subject.timeline(10, 0), json!({ "op": "add", "member": "m", "score": 1 })),
        (subject.members(), json!({ "op": "add", "member": "m", "version": 1 })),
        (subject.document(), json!({ "op": "put", "version": 1, "document": { "a": 1 } })),
        (subject.counter("counter"), json!({ "by": 1 })),
    ];
    for (index, (sink, value)) in cases.into_iter().enumerate() {
        let to = |offset: i64, key: &str| {
            let mut value = value.clone();
            value["key"] = format!("{key}:{index}").into();
            message(offset, &format!("e{offset}"), &value.to_string())
        };
        let _: i64 = reader.ask(&["LPUSH", &format!("{bad}:{index}"), "a list"]).await;
        let batch = [to(1, &good), to(2, &bad), to(3, &after)];
        let answers = sink.send(&sink.encode(&batch).calls).await;
        let [Answer::Failed(error)] = &answers[..] else { panic!("{index}: {answers:?}") };
        assert_eq!(error.class(), Class::Reject, "{}", error.chain());
        assert!(error.chain().contains("WRONGTYPE"), "{}", error.chain());

        let rejected = send_all(&*sink, &batch).await;
        assert_eq!(rejected.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1], "sink {index}");
        for key in [&good, &after] {
            let there: i64 = reader.ask(&["EXISTS", &format!("{key}:{index}")]).await;
            assert_eq!(there, 1, "{key}:{index}");
        }
        let kind: String = reader.ask(&["TYPE", &format!("{bad}:{index}")]).await;
        assert_eq!(kind, "list", "what was there is left alone");
    }
    let lookup = store.lookup().unwrap();
    assert_eq!(lookup.documents(&[bad]).await.unwrap_err().class(), Class::Reject);
    reader.forget(&prefix).await;
}

#[tokio::test]
async fn a_counter_that_cannot_move_keeps_no_identity() {
    let store = open(&[("url", &variable("REDIS_URL"))]);
    let (reader, prefix) = (Reader::single().await, prefix("stuck"));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    let key = subject.key("unread");
    let _: String = reader.ask(&["SET", &key, &i64::MAX.to_string()]).await;
    let sink = subject.counter("counter");
    let event = message(1, "a", &json!({ "key": key, "by": 1 }).to_string());
    assert_eq!(send_all(&*sink, std::slice::from_ref(&event)).await.len(), 1);
    let _: String = reader.ask(&["SET", &key, "5"]).await;
    assert!(send_all(&*sink, &[event]).await.is_empty());
    let now: i64 = reader.ask(&["GET", &key]).await;
    assert_eq!(now, 6, "an effect that failed is not in the ledger");
    reader.forget(&prefix).await;
}

#[tokio::test]
async fn a_document_has_a_bound_of_fields() {
    let store = open(&[("url", &variable("REDIS_URL"))]);
    let (reader, prefix) = (Reader::single().await, prefix("fields"));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    let (sink, key) = (subject.document(), subject.key("wide"));
    let put = |from: usize, to: usize| {
        let fields: serde_json::Map<_, _> = (from..to).map(|n| (format!("f{n}"), json!(n))).collect();
        let value = json!({ "op": "put", "key": key, "version": 1, "document": fields });
        message(1, &format!("{from}"), &value.to_string())
    };
    assert!(send_all(&*sink, &[put(0, 990), put(980, 1_000)]).await.is_empty());
    let rejected = send_all(&*sink, &[put(995, 1_001), put(0, 3)]).await;
    assert_eq!(rejected.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0]);
    let fields: i64 = reader.ask(&["HLEN", &format!("fields:{{{key}}}")]).await;
    assert_eq!(fields, 1_000);
    reader.forget(&prefix).await;
}

#[tokio::test]
async fn fields_stand_in_the_order_of_their_names() {
    let store = open(&[("url", &variable("REDIS_URL"))]);
    let (reader, prefix) = (Reader::single().await, prefix("order"));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    let (sink, key) = (subject.document(), subject.key("post"));
    for (version, document) in [(1, r#"{"b":1,"é":2,"B":3}"#), (2, r#"{"a":4,"ab":5,"b":[ ]}"#)] {
        let value =
            format!(r#"{{"op":"put","key":"{key}","version":{version},"rank":0,"document":{document}}}"#);
        assert!(send_all(&*sink, &[message(1, "e", &value)]).await.is_empty());
    }
    let text: String = reader.ask(&["GET", &key]).await;
    assert_eq!(text, r#"{"B":3,"a":4,"ab":5,"b":[ ],"é":2}"#);
    reader.forget(&prefix).await;
}

#[tokio::test]
async fn scripts_come_back_after_they_were_flushed() {
    let store = open(&[("url", &variable("REDIS_URL"))]);
    let (reader, prefix) = (Reader::single().await, prefix("noscript"));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    let sinks = [subject.timeline(10, 0), subject.members(), subject.document(), subject.counter("counter")];
    for sink in &sinks {
        sink.prepare().await.unwrap();
    }
    let _: String = reader.ask(&["SCRIPT", "FLUSH"]).await;
    views_suite::timeline::a_wide_fan_out_reaches_every_timeline(&subject).await;
    let _: String = reader.ask(&["SCRIPT", "FLUSH"]).await;
    views_suite::counter::a_large_batch_counts_every_event(&subject).await;
    let _: String = reader.ask(&["SCRIPT", "FLUSH"]).await;
    views_suite::ledger::a_released_claim_can_be_claimed_again(&subject).await;
    reader.forget(&prefix).await;
}

#[tokio::test]
async fn the_check_finds_the_server_fit() {
    let store = open(&[("url", &variable("REDIS_URL"))]);
    let findings = store.check().await.unwrap();
    assert!(findings.iter().all(|finding| finding.ok), "{findings:?}");
    for part in ["answers", "version ", "maxmemory-policy is noeviction", "appendonly is yes", "is a master"]
    {
        assert!(findings.iter().any(|finding| finding.what.contains(part)), "{part} in {findings:?}");
    }
}
