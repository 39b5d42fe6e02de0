//! A cluster of three masters: the conformance suite, slots, and what a wrong flag does.

use millrace_core::{Class, Store};
use millrace_testkit::views_suite::{self, Subject};

use crate::support::{Reader, open, prefix, variable};

fn url() -> String {
    format!("redis://{}", variable("MILLRACE_TEST_REDIS_CLUSTER"))
}

#[tokio::test]
async fn passes_the_suite() {
    let store = open(&[("url", &url()), ("cluster", "true")]);
    let (reader, prefix) = (Reader::cluster().await, prefix("suite"));
    views_suite::all(&Subject { store: &store, reader: &reader, prefix: &prefix }).await;
    reader.forget(&prefix).await;
}

#[tokio::test]
async fn keys_with_a_tag_of_their_own_work() {
    let store = open(&[("url", &url()), ("cluster", "true")]);
    let (reader, prefix) = (Reader::cluster().await, format!("{{{}}}", prefix("tagged")));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    views_suite::timeline::all(&subject).await;
    views_suite::counter::a_large_batch_counts_every_event(&subject).await;
    reader.forget(&prefix).await;
}

#[tokio::test]
async fn one_node_is_enough_to_find_the_others() {
    let nodes = variable("MILLRACE_TEST_REDIS_CLUSTER");
    let one = format!("redis://{}", nodes.split(',').next_back().unwrap());
    let store = open(&[("url", &one), ("cluster", "true")]);
    let (reader, prefix) = (Reader::cluster().await, prefix("one"));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    views_suite::timeline::a_wide_fan_out_reaches_every_timeline(&subject).await;
    reader.forget(&prefix).await;
}

#[tokio::test]
async fn a_node_that_is_away_does_not_matter() {
    let url = url().replacen("redis://", "redis://127.0.0.1:1,", 1);
    let store = open(&[("url", &url), ("cluster", "true")]);
    let (reader, prefix) = (Reader::cluster().await, prefix("away"));
    let subject = Subject { store: &store, reader: &reader, prefix: &prefix };
    views_suite::document::an_update_may_come_before_its_create(&subject).await;
    reader.forget(&prefix).await;
}

#[tokio::test]
async fn the_check_looks_at_every_master() {
    let store = open(&[("url", &url()), ("cluster", "true")]);
    let findings = store.check().await.unwrap();
    assert!(findings.iter().all(|finding| finding.ok), "{findings:?}");
    for node in variable("MILLRACE_TEST_REDIS_CLUSTER").split(',') {
        let policy = format!("{node}: maxmemory-policy is noeviction");
        assert!(findings.iter().any(|finding| finding.what == policy), "{policy} in {findings:?}");
    }
}

#[tokio::test]
async fn the_wrong_flag_is_fatal_and_says_so() {
    let nodes = variable("MILLRACE_TEST_REDIS_CLUSTER");
    let one = format!("redis://{}", nodes.split(',').next().unwrap());
    let error = open(&[("url", &one)]).check().await.unwrap_err();
    assert_eq!(error.class(), Class::Fatal);
    assert!(error.to_string().contains("set 'cluster: true'"), "{error}");
    let error = open(&[("url", &variable("REDIS_URL")), ("cluster", "true")]).check().await.unwrap_err();
    assert_eq!(error.class(), Class::Fatal);
    assert!(error.to_string().contains("remove 'cluster: true'"), "{error}");
}
