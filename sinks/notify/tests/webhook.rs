//! A webhook against a real receiver on loopback: what it sends, what each answer means, where it refuses to go,
//! and what a ledger is good for.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod receiver;

use std::sync::{Arc, atomic::Ordering};

use millrace_core::{
    Answer, Class, Ledger, Message, Result, Sink, SinkId,
    settings::{Key, Location, Node, NodeKind, Problems, Settings},
};
use millrace_notify::{Options, Webhook};
use millrace_testkit::message::message;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Duration;

use receiver::{MemoryLedger, Receiver, Reply};

const NOW_MS: i64 = 1_492_774_577_999;
const SECRET: &str = "sesame";

fn scalar(text: &str) -> Node {
    Node { at: Location::default(), kind: NodeKind::Scalar { text: text.into(), plain: true } }
}

fn settings(pairs: &[(&str, &str)], allow_private: &[&str]) -> Settings {
    let at = Location::default();
    let key = |text: &str| Key { at, text: text.into() };
    let mut entries: Vec<(Key, Node)> =
        pairs.iter().map(|(name, value)| (key(name), scalar(value))).collect();
    entries.push((key("secret"), scalar(SECRET)));
    entries.push((key("allow_http"), scalar("true")));
    entries.push((
        key("headers"),
        Node {
            at,
            kind: NodeKind::Map(vec![
                (key("X-Team"), scalar("feeds")),
                (key("Authorization"), scalar("Bearer t0ken")),
            ]),
        },
    ));
    let allowed = allow_private.iter().map(|entry| scalar(entry)).collect();
    entries.push((key("allow_private"), Node { at, kind: NodeKind::List(allowed) }));
    Settings::new(Node { at, kind: NodeKind::Map(entries) }, "hook")
}

fn open(settings: &Settings, ledger: Option<Arc<dyn Ledger>>) -> Result<Webhook> {
    let mut problems = Problems::default();
    let options = Options::read(settings, &mut problems).unwrap_or_else(|| panic!("{problems:?}"));
    let id = SinkId { pipeline: "p".into(), sink: "s".into() };
    Webhook::open(id, options, ledger, Arc::new(|| NOW_MS))
}

fn hook(url: &str, more: &[(&str, &str)], ledger: Option<Arc<MemoryLedger>>) -> Webhook {
    let pairs = [&[("url", url)], more].concat();
    open(&settings(&pairs, &["127.0.0.0/8"]), ledger.map(|ledger| ledger as Arc<dyn Ledger>)).unwrap()
}

fn events(count: i64) -> Vec<Message> {
    (0..count).map(|n| message(n, &format!("event-{n}"), &format!(r#"{{"n":{n}, "s":"ü"}}"#))).collect()
}

async fn send(hook: &Webhook, messages: &[Message]) -> Vec<Answer> {
    let encoded = hook.encode(messages);
    assert!(encoded.rejected.is_empty());
    hook.send(&encoded.calls).await
}

fn class(answer: &Answer) -> Option<Class> {
    match answer {
        Answer::Done => None,
        Answer::Failed(error) => Some(error.class()),
    }
}

fn classes(answers: &[Answer]) -> Vec<Option<Class>> {
    answers.iter().map(class).collect()
}

fn chain(answer: &Answer) -> &millrace_core::Error {
    match answer {
        Answer::Done => panic!("it was done"),
        Answer::Failed(error) => error,
    }
}

/// HMAC by RFC 2104, written out: shares no code with what signs.
fn hmac_sha256(key: &[u8], text: &[u8]) -> String {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    hex::encode(Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize())
}

#[tokio::test]
async fn sends_the_value_signed() {
    let receiver = Receiver::start(|_| Reply::Status(204)).await;
    let hook = hook(&receiver.url(), &[], None);
    hook.prepare().await.unwrap();
    let messages = events(2);
    assert_eq!(classes(&send(&hook, &messages).await), [None, None]);
    let seen = receiver.seen();
    assert_eq!(seen.len(), 2);
    let mut keys = Vec::new();
    for request in &seen {
        assert!(messages.iter().any(|message| message.value == request.body));
        let signed = [b"1492774577.", &*request.body].concat();
        let expected = format!("t=1492774577,v1={}", hmac_sha256(SECRET.as_bytes(), &signed));
        assert_eq!(request.header("millrace-signature"), expected);
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("x-team"), "feeds");
        assert_eq!(request.path, "/hook");
        keys.push(request.header("idempotency-key").to_owned());
    }
    assert_ne!(keys[0], keys[1]);
    // The same event again, as after a crash: the same key.
    send(&hook, &messages[..1]).await;
    let again = receiver.seen().pop().unwrap();
    let first = seen.iter().find(|request| request.body == messages[0].value).unwrap();
    assert_eq!(again.header("idempotency-key"), first.header("idempotency-key"));
}

#[tokio::test]
async fn each_answer_has_its_class() {
    let expected = [
        (200, None),
        (202, None),
        (408, Some(Class::Retry)),
        (425, Some(Class::Retry)),
        (429, Some(Class::Retry)),
        (500, Some(Class::Retry)),
        (503, Some(Class::Retry)),
        (400, Some(Class::Reject)),
        (401, Some(Class::Reject)),
        (404, Some(Class::Reject)),
        (410, Some(Class::Reject)),
    ];
    for (status, expected) in expected {
        let receiver = Receiver::start(move |_| Reply::Status(status)).await;
        let answers = send(&hook(&receiver.url(), &[], None), &events(1)).await;
        assert_eq!(classes(&answers), [expected], "{status}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    for status in [301, 302, 307, 308] {
        let receiver = Receiver::start(move |_| Reply::Redirect(status)).await;
        let answers = send(&hook(&receiver.url(), &[], None), &events(1)).await;
        assert_eq!(classes(&answers), [Some(Class::Reject)]);
        let paths: Vec<String> = receiver.seen().into_iter().map(|seen| seen.path).collect();
        assert_eq!(paths, ["/hook"], "{status}");
    }
}

#[tokio::test]
async fn silence_and_absence_are_retried_and_endless_answers_are_cut() {
    let silent = Receiver::start(|_| Reply::Hang).await;
    let answers = send(&hook(&silent.url(), &[("timeout", "100ms")], None), &events(1)).await;
    assert_eq!(classes(&answers), [Some(Class::Retry)]);
    assert!(chain(&answers[0]).why().contains("does not answer in time"), "{}", chain(&answers[0]).chain());

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}/s3cret", listener.local_addr().unwrap().port());
    drop(listener);
    let answers = send(&hook(&url, &[], None), &events(1)).await;
    assert_eq!(classes(&answers), [Some(Class::Retry)]);
    let shown = chain(&answers[0]).chain();
    assert!(shown.contains("cannot be reached") && !shown.contains("s3cret"), "{shown}");

    let endless = Receiver::start(|_| Reply::Endless).await;
    assert_eq!(classes(&send(&hook(&endless.url(), &[("timeout", "30s")], None), &events(1)).await), [None]);
}

/// Connections are made only to addresses that were checked: a name that leads inside is refused at the start,
/// and when it is connected to.
#[tokio::test]
async fn a_name_that_leads_inside_is_refused() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let url = format!("http://localhost:{}/hook", receiver.port);
    let refused = open(&settings(&[("url", &url)], &[]), None).unwrap();
    let error = refused.prepare().await.unwrap_err();
    assert_eq!(error.class(), Class::Fatal);
    assert!(error.chain().contains("loopback; list it under 'allow_private'"), "{}", error.chain());
    let answers = send(&refused, &events(1)).await;
    assert_eq!(classes(&answers), [Some(Class::Fatal)], "{}", chain(&answers[0]).chain());
    assert!(receiver.seen().is_empty(), "it was connected to");

    for listed in ["localhost", "127.0.0.1"] {
        let allowed = open(&settings(&[("url", &url)], &[listed]), None).unwrap();
        allowed.prepare().await.unwrap();
        assert_eq!(classes(&send(&allowed, &events(1)).await), [None], "{listed}");
    }
}

#[tokio::test]
async fn a_name_that_is_none_is_retried() {
    let hook = open(&settings(&[("url", "http://no-such-name.invalid/")], &[]), None).unwrap();
    assert_eq!(hook.prepare().await.unwrap_err().class(), Class::Retry);
    assert_eq!(classes(&send(&hook, &events(1)).await), [Some(Class::Retry)]);
}

#[tokio::test]
async fn with_a_ledger_a_redelivery_is_sent_once() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let ledger = Arc::new(MemoryLedger::default());
    let hook = hook(&receiver.url(), &[("concurrency", "4")], Some(ledger));
    let messages = events(10);
    // Delivered twice in one send, and once more after it.
    let twice = [messages.clone(), messages.clone()].concat();
    let answers = send(&hook, &messages).await;
    assert_eq!(classes(&answers), [None; 10]);
    let calls = hook.encode(&messages).calls;
    let doubled: Vec<_> = calls.iter().chain(&calls).cloned().collect();
    assert_eq!(classes(&hook.send(&doubled).await), [None; 20]);
    assert_eq!(receiver.seen().len(), 10);
    // Two outputs of one event that are equal are two effects: their ordinals differ.
    assert_eq!(classes(&send(&hook, &twice).await), [None; 20]);
    assert_eq!(receiver.seen().len(), 20);
}

#[tokio::test]
async fn equal_calls_in_one_send_are_one_effect() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let hook = hook(&receiver.url(), &[], Some(Arc::new(MemoryLedger::default())));
    let call = hook.encode(&events(1)).calls.remove(0);
    assert_eq!(classes(&hook.send(&[call.clone(), call]).await), [None, None]);
    assert_eq!(receiver.seen().len(), 1);
}

#[tokio::test]
async fn a_refusal_gives_the_claim_back_and_silence_holds_it() {
    let receiver = Receiver::start(|_| Reply::Status(503)).await;
    let ledger = Arc::new(MemoryLedger::default());
    let hook = hook(&receiver.url(), &[], Some(ledger.clone()));
    for _ in 0..3 {
        assert!(chain(&send(&hook, &events(1)).await[0]).why().contains("status 503"));
    }
    assert_eq!(receiver.seen().len(), 3, "each try reaches the receiver");

    let silent = Receiver::start(|_| Reply::Hang).await;
    let hook = self::hook(&silent.url(), &[("timeout", "100ms")], Some(ledger.clone()));
    assert_eq!(classes(&send(&hook, &events(1)).await), [Some(Class::Retry)]);
    let held = send(&hook, &events(1)).await;
    assert_eq!(classes(&held), [Some(Class::Retry)]);
    assert!(chain(&held[0]).why().contains("by another worker"), "{}", chain(&held[0]).chain());
    assert_eq!(silent.seen().len(), 1, "nothing is sent while the first send may still have its effect");
    ledger.advance(Duration::from_secs(31));
    assert!(chain(&send(&hook, &events(1)).await[0]).why().contains("in time"));
    assert_eq!(silent.seen().len(), 2);
}

/// The window that no ledger closes: the receiver has acknowledged, and the process dies before it is marked. The
/// event is redelivered, waits until the claim has run out, and is sent a second time with the same key.
#[tokio::test]
async fn a_crash_between_send_and_done_repeats_the_send_with_the_same_key() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let ledger = Arc::new(MemoryLedger::default());
    ledger.forgets.store(true, Ordering::SeqCst);
    let hook = hook(&receiver.url(), &[], Some(ledger.clone()));
    // Acknowledged but not marked: done, since another send would be worse.
    assert_eq!(classes(&send(&hook, &events(1)).await), [None]);
    ledger.forgets.store(false, Ordering::SeqCst);
    let redelivered = send(&hook, &events(1)).await;
    assert_eq!(classes(&redelivered), [Some(Class::Retry)], "the claim still holds");
    ledger.advance(Duration::from_secs(10 + 31));
    assert_eq!(classes(&send(&hook, &events(1)).await), [None]);
    assert_eq!(classes(&send(&hook, &events(1)).await), [None]);
    let seen = receiver.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].header("idempotency-key"), seen[1].header("idempotency-key"));
}

#[tokio::test]
async fn a_send_that_is_cancelled_leaves_only_a_claim() {
    let receiver = Receiver::start(|_| Reply::Hang).await;
    let ledger = Arc::new(MemoryLedger::default());
    let hook = hook(&receiver.url(), &[], Some(ledger.clone()));
    let messages = events(1);
    tokio::select! {
        _ = send(&hook, &messages) => panic!("the receiver never answers"),
        () = receiver.arrival() => {}
    }
    let answers = send(&hook, &messages).await;
    assert!(chain(&answers[0]).why().contains("by another worker"));
}

/// A send that took too long is given up by its caller. What the receiver had got by then is marked when it answers,
/// and is not sent again.
#[tokio::test]
async fn a_send_that_is_cancelled_is_ended_and_marked_all_the_same() {
    let receiver = Receiver::start(|_| Reply::Gate).await;
    let ledger = Arc::new(MemoryLedger::default());
    let hook = hook(&receiver.url(), &[], Some(ledger.clone()));
    let messages = events(1);
    tokio::select! {
        _ = send(&hook, &messages) => panic!("the gate is closed"),
        () = receiver.arrival() => {}
    }
    receiver.open_gate(1);
    ledger.marked().await;
    assert_eq!(classes(&send(&hook, &messages).await), [None]);
    assert_eq!(receiver.seen().len(), 1);
}

#[tokio::test]
async fn no_more_run_at_once_than_allowed() {
    let receiver = Receiver::start(|_| Reply::Gate).await;
    let hook = hook(&receiver.url(), &[("concurrency", "3"), ("timeout", "60s")], None);
    let (one, two) = (events(10), events(10));
    // Two workers share the sink.
    let (first, second, ()) = tokio::join!(send(&hook, &one), send(&hook, &two), async {
        receiver.arrival().await;
        receiver.arrival().await;
        receiver.arrival().await;
        receiver.open_gate(20);
    });
    assert_eq!((classes(&first), classes(&second)), (vec![None; 10], vec![None; 10]));
    assert_eq!(receiver.in_flight_max(), 3);
}

#[test]
fn calls_read_as_what_is_sent_and_hide_the_path() {
    let hook = hook("http://127.0.0.1:9/T0/s3cret", &[("key", "{n}")], None);
    let encoded = hook.encode(&[message(1, "e", r#"{"n":7}"#), message(2, "e", r#"{"n":null}"#)]);
    let shown = hook.describe(&encoded.calls[0]);
    let key = std::str::from_utf8(&encoded.calls[0].ops[0].parts[0]).unwrap();
    let expected =
        json!({ "webhook": { "to": "http://127.0.0.1:9", "idempotency_key": key, "body": { "n": 7 } } });
    assert_eq!(shown, expected);
    assert_eq!(encoded.rejected.len(), 1);
    assert_eq!((encoded.rejected[0].0, encoded.rejected[0].1.class()), (1, Class::Reject));
}

#[test]
fn a_secret_that_is_empty_or_absent_is_fatal() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path().to_str().unwrap(), "absent"] {
        let at = Location::default();
        let entries = [("url", "https://a.example"), ("secret_file", path)]
            .map(|(key, value)| (Key { at, text: key.into() }, scalar(value)));
        let settings = Settings::new(Node { at, kind: NodeKind::Map(entries.into()) }, "hook");
        let error = open(&settings, None).err().unwrap();
        assert_eq!(error.class(), Class::Fatal, "{path}");
    }
}
