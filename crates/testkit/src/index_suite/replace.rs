//! Cases of mode `replace`: whole documents, and a version that never goes back.

use millrace_core::Message;
use serde_json::json;

use super::{
    Rig,
    writer::{Mode, Writer, delete, put},
};

pub(super) async fn older_never_overwrites(rig: Rig<'_>) {
    let writer = Writer::open(rig, rig.index("older"), Mode::Replace).await;
    let at = |id: &str, version: i64| put(id, version, &json!({ "title": format!("v{version}") }));
    writer.deliver(&[at("up", 1)]).await;
    writer.deliver(&[at("up", 3)]).await;
    writer.deliver(&[at("up", 2)]).await;
    writer.deliver(&[at("up", 3)]).await;
    writer.deliver(&[at("once", 7), at("once", 9), at("once", 8), at("zero", 0)]).await;
    // A whole document replaces all fields of the one before.
    writer.deliver(&[put("whole", 1, &json!({ "title": "a", "likes": 1 }))]).await;
    writer.deliver(&[put("whole", 2, &json!({ "title": "b" }))]).await;
    rig.refresh(&writer).await;
    for (id, title) in [("up", "v3"), ("once", "v9"), ("zero", "v0"), ("whole", "b")] {
        let expected = Some(json!({ "title": title }));
        assert_eq!(rig.document(&writer, id).await, expected, "{}: {id}", writer.index);
    }
    assert_eq!(rig.count(&writer).await, 4, "{}", writer.index);
}

pub(super) async fn deleted_stays_deleted(rig: Rig<'_>) {
    let writer = Writer::open(rig, rig.index("deleted"), Mode::Replace).await;
    let version_max = 1 << 53;
    let late = |id: &str| put(id, version_max, &json!({ "title": "late" }));
    let early = |id: &str| put(id, 1, &json!({ "title": "early" }));
    // The delete's own version is low: it beats every version all the same.
    writer.deliver(&[early("after"), delete("after", 1)]).await;
    writer.deliver(&[late("after")]).await;
    writer.deliver(&[delete("before", 1)]).await;
    writer.deliver(&[early("before"), late("before")]).await;
    writer.deliver(&[late("twice"), delete("twice", 0), delete("twice", 0), late("twice")]).await;
    writer.deliver(&[early("here")]).await;
    rig.refresh(&writer).await;
    for id in ["after", "before", "twice"] {
        assert_eq!(rig.document(&writer, id).await, None, "{}: {id}", writer.index);
    }
    assert!(rig.document(&writer, "here").await.is_some(), "{}: here", writer.index);
    assert_eq!(rig.count(&writer).await, 1, "{}: readers count what is not deleted", writer.index);
}

/// Three sinks write a hundred documents at once, in different orders; a quarter is deleted.
pub(super) async fn writers_of_the_same_documents_converge(rig: Rig<'_>) {
    const DOCUMENTS: i64 = 100;
    let index = rig.index("replace-race");
    let run = |writer: i64| {
        let index = index.clone();
        async move {
            let mut messages: Vec<Message> = (0..DOCUMENTS)
                .map(|n| match (writer, n % 4) {
                    (1, 0) => delete(&format!("d{n}"), 1),
                    _ => put(&format!("d{n}"), 10 + writer, &json!({ "likes": writer })),
                })
                .collect();
            if writer != 1 {
                messages.reverse();
            }
            let writer = Writer::open(rig, index, Mode::Replace).await;
            for chunk in messages.chunks(23) {
                writer.deliver(chunk).await;
            }
            writer
        }
    };
    let (writer, ..) = tokio::join!(run(0), run(1), run(2));
    rig.refresh(&writer).await;
    for n in 0..DOCUMENTS {
        let expected = (n % 4 != 0).then(|| json!({ "likes": 2 }));
        assert_eq!(rig.document(&writer, &format!("d{n}")).await, expected, "{index}: d{n}");
    }
    assert_eq!(rig.count(&writer).await, 75, "{index}");
}
