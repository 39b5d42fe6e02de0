//! What each answer of a server means, one by one: statuses, answers for single items, garbage, silence.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod fake;

use std::sync::Arc;

use millrace_core::{
    Answer, Class, Message, Sink, SinkId, Store, View,
    settings::{Key, Location, Node, NodeKind, Problems, Settings},
    views::{Index, IndexFields},
};
use millrace_elasticsearch::{Elasticsearch, Options};
use millrace_testkit::message::message;

use fake::{Fake, Reply, absent, items};

/// Replace with answers from a bulk request alone; merge reads before it.
const MODES: [&str; 2] = ["replace", "merge"];

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let at = Location::default();
    let scalar = |text: &str| Node { at, kind: NodeKind::Scalar { text: text.into(), plain: true } };
    let entries = pairs.iter().map(|(key, value)| (Key { at, text: (*key).into() }, scalar(value))).collect();
    Settings::new(Node { at, kind: NodeKind::Map(entries) }, "test")
}

fn store(url: &str, more: &[(&str, &str)]) -> Elasticsearch {
    // The first of two equal keys counts.
    let pairs = [more, &[("url", url), ("timeout", "5s"), ("bulk_bytes_max", "64KiB")]].concat();
    let mut problems = Problems::default();
    let options = Options::read(&settings(&pairs), &mut problems);
    Elasticsearch::open("fake", &options.unwrap_or_else(|| panic!("{problems:?}"))).unwrap()
}

fn sink_with(url: &str, mode: &str, more: &[(&str, &str)]) -> Arc<dyn Sink> {
    let pairs =
        [("index", "posts"), ("mode", mode), ("id", "{id}"), ("version", "{v}"), ("document", "{doc}")];
    let index = Index::read(&settings(&pairs), &mut Problems::default()).unwrap();
    let id = SinkId { pipeline: "p".into(), sink: "s".into() };
    store(url, more).sink(id, View::Index(index, IndexFields::default())).unwrap()
}

fn sink(url: &str, mode: &str) -> Arc<dyn Sink> {
    sink_with(url, mode, &[])
}

fn puts(count: usize, padding: usize) -> Vec<Message> {
    let text = "x".repeat(padding);
    (0..count)
        .map(|n| message(0, "e", &format!(r#"{{"id":"d{n}","v":{n},"doc":{{"t":"{text}"}}}}"#)))
        .collect()
}

async fn send(sink: &Arc<dyn Sink>, messages: &[Message]) -> Vec<Answer> {
    let calls = sink.encode(messages).calls;
    let answers = sink.send(&calls).await;
    assert_eq!(answers.len(), calls.len());
    answers
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

fn chain(answer: &Answer) -> String {
    match answer {
        Answer::Done => String::new(),
        Answer::Failed(error) => error.chain(),
    }
}

/// Reads find nothing, writes get this answer.
async fn writes_get(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Fake {
    Fake::start(move |seen| if seen.is_bulk() { reply(seen.items()) } else { absent(seen) }).await
}

#[tokio::test]
async fn a_whole_answer_has_one_class() {
    let expected = [
        (429, Class::Retry),
        (503, Class::Retry),
        (500, Class::Retry),
        (408, Class::Retry),
        (401, Class::Fatal),
        (403, Class::Fatal),
        (404, Class::Fatal),
        (302, Class::Fatal),
    ];
    for (status, class) in expected {
        for mode in MODES {
            let all = Fake::start(move |_| Reply::Json(status, "<html>".into())).await;
            let writes = writes_get(move |_| Reply::Json(status, "{}".into())).await;
            for fake in [all, writes] {
                let answers = send(&sink(&fake.url, mode), &puts(3, 1)).await;
                assert_eq!(classes(&answers), [Some(class); 3], "{status} {mode}: {}", chain(&answers[0]));
            }
        }
    }
}

#[tokio::test]
async fn each_item_has_its_own_answer() {
    for mode in MODES {
        let fake = writes_get(|_| items([201, 429, 400, 503, 200, 404])).await;
        let answers = send(&sink(&fake.url, mode), &puts(6, 1)).await;
        let retry = Some(Class::Retry);
        let expected = [None, retry, Some(Class::Reject), retry, None, Some(Class::Fatal)];
        assert_eq!(classes(&answers), expected, "{mode}");
        assert!(chain(&answers[2]).contains("index posts: some_exception: why"), "{}", chain(&answers[2]));
    }
}

#[tokio::test]
async fn an_older_version_is_success_in_replace_and_read_again_in_merge() {
    let fake = writes_get(|_| items([409, 201])).await;
    assert_eq!(classes(&send(&sink(&fake.url, "replace"), &puts(2, 1)).await), [None, None]);

    let fake = writes_get(|count| items(vec![409; count])).await;
    let answers = send(&sink(&fake.url, "merge"), &puts(2, 1)).await;
    assert_eq!(classes(&answers), [Some(Class::Retry); 2]);
    let reads = fake.seen().iter().filter(|seen| !seen.is_bulk()).count();
    assert_eq!(reads, 9, "reads are bounded");
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_retried() {
    let garbage: [fn(usize) -> Reply; 4] = [
        |_| Reply::Json(200, "<html>welcome</html>".into()),
        |_| Reply::Json(200, r#"{"items":[{"index":{}}]}"#.into()),
        |count| items(vec![201; count - 1]),
        |count| items(vec![201; count + 1]),
    ];
    for (number, reply) in garbage.into_iter().enumerate() {
        for mode in MODES {
            let fake = writes_get(reply).await;
            let answers = send(&sink(&fake.url, mode), &puts(3, 1)).await;
            assert_eq!(classes(&answers), [Some(Class::Retry); 3], "{number} {mode}");
        }
    }
    let others = r#"{"docs":[{"_id":"x","found":false},{"_id":"d1","found":false}]}"#;
    let fake = Fake::start(move |_| Reply::Json(200, others.into())).await;
    assert_eq!(classes(&send(&sink(&fake.url, "merge"), &puts(2, 1)).await), [Some(Class::Retry); 2]);
}

#[tokio::test]
async fn silence_and_absence_are_retried() {
    let silent = Fake::start(|_| Reply::Hang).await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed_url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    for mode in MODES {
        let answers = send(&sink_with(&silent.url, mode, &[("timeout", "100ms")]), &puts(3, 1)).await;
        assert_eq!(classes(&answers), [Some(Class::Retry); 3], "{mode}");
        assert!(chain(&answers[0]).contains("no answer within 100 ms"), "{}", chain(&answers[0]));
        let answers = send(&sink(&closed_url, mode), &puts(3, 1)).await;
        assert_eq!(classes(&answers), [Some(Class::Retry); 3], "{mode}");
        assert!(chain(&answers[0]).contains("cannot be reached"), "{}", chain(&answers[0]));
    }
}

#[tokio::test]
async fn a_bulk_is_halved_until_it_is_accepted() {
    for (mode, status) in [("replace", 413), ("merge", 413), ("replace", 400), ("merge", 400)] {
        let fake = Fake::start(move |seen| match seen {
            read if !read.is_bulk() => absent(read),
            write if write.body.contains("\"d5\"") => Reply::Json(status, "{}".into()),
            write if write.items() > 3 => Reply::Json(413, "{}".into()),
            write => items(vec![201; write.items()]),
        })
        .await;
        let answers = send(&sink(&fake.url, mode), &puts(10, 1)).await;
        let mut expected = [None; 10];
        expected[5] = Some(Class::Reject);
        assert_eq!(classes(&answers), expected, "{mode} {status}");
    }
}

#[tokio::test]
async fn bulks_are_bounded_and_none_follows_a_failed_one() {
    // 64 KiB a request, 20 KiB a document: three in each.
    let fake = writes_get(|count| items(vec![201; count])).await;
    assert_eq!(classes(&send(&sink(&fake.url, "replace"), &puts(10, 20_000)).await), [None; 10]);
    let sizes: Vec<usize> = fake.seen().iter().map(fake::Seen::items).collect();
    assert_eq!(sizes, [3, 3, 3, 1]);
    assert!(fake.seen().iter().all(|seen| seen.body.len() <= 64 << 10));

    let fake =
        writes_get(|count| if count == 3 { Reply::Json(503, "{}".into()) } else { items(vec![201; count]) })
            .await;
    let messages = [puts(2, 30_000), puts(3, 20_000), puts(2, 30_000)].concat();
    let answers = send(&sink(&fake.url, "replace"), &messages).await;
    let retry = Some(Class::Retry);
    assert_eq!(classes(&answers), [None, None, retry, retry, retry, retry, retry]);
    assert_eq!(fake.seen().len(), 2, "the third is not tried");
    assert!(chain(&answers[6]).contains("not tried"), "{}", chain(&answers[6]));
}

#[tokio::test]
async fn a_read_that_would_be_too_large_is_halved() {
    let fake = Fake::start(|seen| match seen {
        write if write.is_bulk() => items(vec![201; write.items()]),
        read if read.ids().len() > 2 || read.ids().contains(&"d4".into()) => Reply::Endless(65 << 20),
        read => absent(read),
    })
    .await;
    let answers = send(&sink(&fake.url, "merge"), &puts(4, 1)).await;
    assert_eq!(classes(&answers), [None; 4]);
    let answers = send(&sink(&fake.url, "merge"), &puts(6, 1)).await;
    assert_eq!(class(&answers[4]), Some(Class::Reject), "{}", chain(&answers[4]));
    assert!(answers.iter().filter_map(class).all(|class| class != Class::Fatal));
}

#[tokio::test]
async fn logins_are_sent_and_never_shown() {
    let secrets = [
        (vec![("username", "us"), ("password", "sesame")], "Basic dXM6c2VzYW1l"),
        (vec![("api_key", "c2VzYW1lOm9wZW4=")], "ApiKey c2VzYW1lOm9wZW4="),
    ];
    for (login, header) in secrets {
        let fake = Fake::start(|_| Reply::Json(401, "{}".into())).await;
        let answers = send(&sink_with(&fake.url, "replace", &login), &puts(1, 1)).await;
        assert_eq!(classes(&answers), [Some(Class::Fatal)]);
        let seen = &fake.seen()[0];
        assert_eq!(seen.headers["authorization"], header);
        assert_eq!(seen.headers["content-type"], "application/x-ndjson");
        assert_eq!(seen.headers["accept"], "application/json");
        let shown = chain(&answers[0]);
        assert!(shown.contains("refuses the credentials"), "{shown}");
        assert!(!shown.contains("sesame") && !shown.contains("c2Vz"), "{shown}");
        let error = store(&fake.url, &login).check().await.unwrap_err();
        assert_eq!(error.class(), Class::Fatal, "{}", error.chain());
    }
}

#[tokio::test]
async fn check_tells_what_is_unfit() {
    let fake = Fake::start(|seen| {
        let body = match seen.path.as_str() {
            "/_cluster/health" => r#"{"cluster_name":"c","status":"red"}"#,
            _ => r#"{"version":{"number":"7.10.2"}}"#,
        };
        Reply::Json(200, body.into())
    })
    .await;
    let findings = store(&fake.url, &[]).check().await.unwrap();
    let shown: Vec<(bool, &str)> = findings.iter().map(|f| (f.ok, f.what.as_str())).collect();
    assert_eq!(shown, [(false, "cluster 'c' is red"), (false, "version 7.10.2, 8 or later is needed")]);
}
