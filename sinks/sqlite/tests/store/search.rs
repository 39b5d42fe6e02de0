//! Full text follows the documents: puts, merges, deletes, and other declared fields.

use super::*;

async fn titles(store: &SqliteStore, text: &str) -> Vec<String> {
    let found = store.search("posts", text, 100).await.unwrap();
    found.iter().map(|document| document["title"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn words_come_and_go_with_their_documents() {
    for mode in ["replace", "merge"] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        let sink = posts(&store, mode).await;
        let first = [
            put("1", 1, &json!({ "title": "green tea", "body": ["hot", "cup"], "likes": 1 })),
            put("2", 1, &json!({ "title": "black coffee", "likes": 1 })),
            put("3", 1, &json!({ "title": "coffee coffee coffee" })),
        ];
        deliver(&*sink, &first).await;
        assert_eq!(titles(&store, "Coffee").await, ["coffee coffee coffee", "black coffee"], "best first");
        assert_eq!(titles(&store, "cup tea").await, ["green tea"]);
        deliver(&*sink, &[put("1", 2, &json!({ "title": "white tea" }))]).await;
        assert!(titles(&store, "green").await.is_empty(), "{mode}");
        assert_eq!(titles(&store, "white").await, ["white tea"]);
        deliver(&*sink, &[delete("3", 1), put("4", 1, &json!({ "title": "coffee" })), delete("4", 1)]).await;
        deliver(&*sink, &first).await;
        assert_eq!(titles(&store, "coffee").await, ["black coffee"], "{mode}");
        assert_eq!(store.search("posts", "coffee", 0).await.unwrap().len(), 0);
        assert_eq!(store.index_count("posts").await.unwrap(), 2, "{mode}");
    }
}

#[tokio::test]
async fn other_fields_are_searched_once_they_are_declared() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let declared = |fields: &[(&str, FieldType)]| index(&store, "posts", "merge", fields).unwrap();
    let sink = declared(&[]);
    sink.prepare().await.unwrap();
    let document = json!({ "title": "tea", "meta": { "place": "at the Café" }, "rank": "first" });
    deliver(&*sink, &[put("1", 1, &document), put("2", 1, &json!({ "title": "x" })), delete("2", 2)]).await;
    assert!(titles(&store, "tea").await.is_empty(), "no field is declared as text");
    let text = [("meta.place", FieldType::Text), ("rank", FieldType::Text), ("Rank", FieldType::Text)];
    let sink = declared(&text);
    sink.prepare().await.unwrap();
    sink.prepare().await.unwrap();
    assert_eq!(titles(&store, "cafe first").await, ["tea"]);
    assert!(titles(&store, "tea").await.is_empty());
    deliver(&*sink, &[put("1", 2, &json!({ "meta": { "place": "home" } }))]).await;
    assert!(titles(&store, "cafe").await.is_empty());
    assert_eq!(titles(&store, "home").await, ["tea"]);
}

#[tokio::test]
async fn an_index_may_change_its_mode() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    deliver(&*posts(&store, "replace").await, &[put("1", 5, &json!({ "title": "a", "likes": 1 }))]).await;
    deliver(&*posts(&store, "merge").await, &[put("1", 4, &json!({ "title": "old", "body": "b" }))]).await;
    let merged = json!({ "title": "a", "likes": 1, "body": "b" });
    assert_eq!(store.index_document("posts", "1").await.unwrap(), Some(merged));
    deliver(&*posts(&store, "replace").await, &[put("1", 5, &json!({ "title": "same" }))]).await;
    deliver(&*posts(&store, "replace").await, &[put("1", 6, &json!({ "title": "new" }))]).await;
    assert_eq!(store.index_document("posts", "1").await.unwrap(), Some(json!({ "title": "new" })));
}
