//! Members: the higher version wins in every order, at equal versions the add.

use millrace_core::Message;
use serde_json::json;

use super::{Subject, orders::every_order, send_all, sending::send_clean};
use crate::message::message;

/// Every case of a set.
pub async fn all(subject: &Subject<'_>) {
    the_last_word_counts_in_every_order(subject).await;
    an_unfollow_survives_a_redelivered_follow(subject).await;
    at_equal_versions_the_add_wins(subject).await;
    versions_up_to_2_53_differ(subject).await;
    a_bad_version_is_rejected(subject).await;
}

pub(super) fn change(op: &str, key: &str, member: &str, version: i64) -> Message {
    let value = json!({ "op": op, "key": key, "member": member, "version": version });
    message(version, &format!("{op}-{member}-{version}"), &value.to_string())
}

/// Follow, unfollow, follow again, unfollow again; some delivered twice.
pub async fn the_last_word_counts_in_every_order(subject: &Subject<'_>) {
    let sink = subject.members();
    let histories = [
        ("refollowed", vec![("add", 1), ("remove", 2), ("add", 3), ("remove", 2)], vec!["m"]),
        ("unfollowed", vec![("add", 1), ("remove", 4), ("add", 3), ("add", 3)], vec![]),
        ("never", vec![("remove", 1), ("remove", 2)], vec![]),
    ];
    for (name, changes, expected) in histories {
        for (index, order) in every_order(&changes).iter().enumerate() {
            let single = subject.key(&format!("{name}:{index}"));
            for (op, version) in order {
                send_clean(&*sink, &[change(op, &single, "m", *version)]).await;
            }
            let batch = subject.key(&format!("{name}:batch:{index}"));
            let batched: Vec<Message> =
                order.iter().map(|(op, version)| change(op, &batch, "m", *version)).collect();
            send_clean(&*sink, &batched).await;
            for key in [single, batch] {
                assert_eq!(subject.reader.members(&key).await, expected, "{name} in order {order:?}");
            }
        }
    }
}

/// The follow arrives again after the unfollow, and the others in the set stay.
pub async fn an_unfollow_survives_a_redelivered_follow(subject: &Subject<'_>) {
    let sink = subject.members();
    let key = subject.key("refollow");
    send_clean(
        &*sink,
        &[change("add", &key, "a", 1), change("add", &key, "b", 2), change("add", &key, "Z", 3)],
    )
    .await;
    send_clean(&*sink, &[change("remove", &key, "a", 4)]).await;
    send_clean(&*sink, &[change("add", &key, "a", 1), change("add", &key, "b", 2)]).await;
    assert_eq!(subject.reader.members(&key).await, ["Z", "b"]);
}

/// Both orders end inside.
pub async fn at_equal_versions_the_add_wins(subject: &Subject<'_>) {
    let sink = subject.members();
    for (index, ops) in [["add", "remove"], ["remove", "add"]].iter().enumerate() {
        let key = subject.key(&format!("equal:{index}"));
        for op in ops {
            send_clean(&*sink, &[change(op, &key, "m", 5)]).await;
        }
        assert_eq!(subject.reader.members(&key).await, ["m"], "{ops:?}");
    }
}

/// No version is rounded: neighbours at the upper end are told apart.
pub async fn versions_up_to_2_53_differ(subject: &Subject<'_>) {
    const LAST: i64 = 1 << 53;
    let sink = subject.members();
    let key = subject.key("versions");
    send_clean(&*sink, &[change("add", &key, "m", LAST - 1), change("remove", &key, "m", LAST)]).await;
    send_clean(&*sink, &[change("add", &key, "m", LAST - 1)]).await;
    send_clean(&*sink, &[change("remove", &key, "n", LAST - 1), change("add", &key, "n", LAST)]).await;
    assert_eq!(subject.reader.members(&key).await, ["n"]);
}

/// Beyond 2^53, negative, or none at all.
pub async fn a_bad_version_is_rejected(subject: &Subject<'_>) {
    let sink = subject.members();
    let key = subject.key("badversion");
    let without = json!({ "op": "add", "key": key, "member": "m" });
    let batch = [
        change("add", &key, "m", -1),
        change("add", &key, "m", (1 << 53) + 1),
        message(3, "3", &without.to_string()),
        change("add", &key, "n", 0),
    ];
    let rejected: Vec<u32> = send_all(&*sink, &batch).await.into_iter().map(|(place, _)| place).collect();
    assert_eq!(rejected, [0, 1, 2]);
    assert_eq!(subject.reader.members(&key).await, ["n"]);
}
