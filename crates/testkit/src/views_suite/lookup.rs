//! Lookups: pages of sets, documents in the order asked, guards.

use std::sync::Arc;

use millrace_core::{Lookup, Message, PageRequest};
use serde_json::json;
use tokio::time::Duration;

use super::{Subject, document::put, members::change, sending::send_clean};

const MINUTE: Duration = Duration::from_secs(60);

/// Every case of a lookup.
pub async fn all(subject: &Subject<'_>) {
    a_large_set_comes_in_pages(subject).await;
    pages_of_many_sets_come_in_the_order_asked(subject).await;
    a_page_after_a_member_that_left(subject).await;
    documents_come_in_the_order_asked(subject).await;
    guards_are_closed_one_by_one(subject).await;
}

fn lookup(subject: &Subject<'_>) -> Arc<dyn Lookup> {
    subject.store.lookup().expect("the store answers lookups")
}

fn request(key: &str, after: Option<&str>, members_max: u32) -> PageRequest {
    PageRequest { key: key.to_owned(), after: after.map(str::to_owned), members_max }
}

/// 2,500 members in pages of 1,000: all of them, once, in byte order.
pub async fn a_large_set_comes_in_pages(subject: &Subject<'_>) {
    const MEMBERS: usize = 2_500;
    let (sink, lookup) = (subject.members(), lookup(subject));
    let key = subject.key("pages");
    let adds: Vec<Message> = (0..MEMBERS).map(|n| change("add", &key, &format!("u{n}"), 1)).collect();
    send_clean(&*sink, &adds).await;
    let mut expected: Vec<String> = (0..MEMBERS).map(|n| format!("u{n}")).collect();
    expected.sort_unstable();
    let (mut read, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let after: Option<String> = read.last().cloned();
        let pages = lookup.members(&[request(&key, after.as_deref(), 1_000)]).await.expect("a page");
        let [page] = <[_; 1]>::try_from(pages).expect("one page per request");
        sizes.push(page.members.len());
        assert!(sizes.len() < 10, "pages do not end: {sizes:?}");
        read.extend(page.members);
        if !page.more {
            break;
        }
    }
    assert_eq!(sizes.iter().filter(|size| **size > 0).collect::<Vec<_>>(), [&1_000, &1_000, &500]);
    assert_eq!(read, expected);
}

/// Sets of several sizes, one that is not there, one asked for twice.
pub async fn pages_of_many_sets_come_in_the_order_asked(subject: &Subject<'_>) {
    let (sink, lookup) = (subject.members(), lookup(subject));
    let (one, two, none) = (subject.key("set:1"), subject.key("set:2"), subject.key("set:none"));
    let adds = [("b", &one), ("a", &one), ("c", &one), ("x", &two)];
    let adds: Vec<Message> = adds.iter().map(|(member, key)| change("add", key, member, 1)).collect();
    send_clean(&*sink, &adds).await;
    let requests = [
        request(&one, None, 2),
        request(&none, None, 5),
        request(&two, None, 5),
        request(&one, Some("b"), 2),
    ];
    let pages = lookup.members(&requests).await.expect("pages");
    let members: Vec<Vec<String>> = pages.iter().map(|page| page.members.clone()).collect();
    assert_eq!(members, [vec!["a", "b"], vec![], vec!["x"], vec!["c"]]);
    assert!(pages[0].more, "a full page of a larger set says that there is more");
    assert!(!pages[1].more && !pages[2].more && !pages[3].more);
    assert!(lookup.members(&[]).await.expect("no pages").is_empty());
}

/// The last member of a page is gone when the next page is read: nothing is skipped.
pub async fn a_page_after_a_member_that_left(subject: &Subject<'_>) {
    let (sink, lookup) = (subject.members(), lookup(subject));
    let key = subject.key("leaving");
    let adds = ["a", "b", "c", "d"].map(|member| change("add", &key, member, 1));
    send_clean(&*sink, &adds).await;
    send_clean(&*sink, &[change("remove", &key, "b", 2)]).await;
    let pages = lookup.members(&[request(&key, Some("b"), 10)]).await.expect("a page");
    assert_eq!(pages[0].members, ["c", "d"]);
}

/// None where there is none, the same one twice where it is asked for twice.
pub async fn documents_come_in_the_order_asked(subject: &Subject<'_>) {
    let (sink, lookup) = (subject.document(), lookup(subject));
    let keys: Vec<String> =
        ["2", "none", "1", "2"].iter().map(|n| subject.key(&format!("page:{n}"))).collect();
    send_clean(&*sink, &[put(&keys[2], 1, &json!({ "n": 1 })), put(&keys[0], 1, &json!({ "n": 2 }))]).await;
    let found = lookup.documents(&keys).await.expect("documents");
    let texts: Vec<Option<&str>> = found.iter().map(Option::as_deref).collect();
    assert_eq!(texts, [Some(r#"{"n":2}"#), None, Some(r#"{"n":1}"#), Some(r#"{"n":2}"#)]);
    assert!(lookup.documents(&[]).await.expect("no documents").is_empty());
}

/// A guard is open until it is closed, for itself alone.
pub async fn guards_are_closed_one_by_one(subject: &Subject<'_>) {
    let lookup = lookup(subject);
    let guards: Vec<String> = ["a", "b", "c {odd} guard"].iter().map(|name| subject.key(name)).collect();
    assert_eq!(lookup.closed(&guards).await.expect("guards"), [false, false, false]);
    lookup.close(&guards[1..], MINUTE).await.expect("closed");
    lookup.close(&guards[1..2], MINUTE).await.expect("closed again");
    assert_eq!(lookup.closed(&guards).await.expect("guards"), [false, true, true]);
    lookup.close(&[], MINUTE).await.expect("nothing to close");
    assert!(lookup.closed(&[]).await.expect("no guards").is_empty());
}
