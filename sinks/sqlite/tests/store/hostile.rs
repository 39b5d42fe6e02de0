//! Names, keys, ids and texts that look like SQL or like operators are texts.

use millrace_core::Class;

use super::*;

const TEXTS: [&str; 12] = [
    "'; DROP TABLE timelines; --",
    "\"quoted\"",
    "a'b",
    "%_*",
    "\\",
    "NULL",
    "0x00",
    "-1",
    "1e5",
    "日本語 😀",
    " leading and trailing ",
    "(SELECT 1)",
];

#[tokio::test]
async fn index_names_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    for name in
        ["", "Posts", "a\"; DROP TABLE x; --", "a b", "timelines", "index_posts", "sqlite_schema", "é"]
    {
        let error = index(&store, name, "merge", &[]).err().unwrap_or_else(|| panic!("{name:?} was taken"));
        assert_eq!(error.class(), Class::Fatal, "{name:?}");
    }
    // Another name of the same file, which only a look into it tells.
    sqlite3(folder.path()).execute("CREATE TABLE mine(n INTEGER)", ()).unwrap();
    let error = index(&store, "mine", "merge", &[]).unwrap().prepare().await.unwrap_err();
    assert_eq!(error.class(), Class::Fatal);
    assert!(error.why().contains("'mine'"), "{error}");
}

#[tokio::test]
async fn names_that_resemble_each_other_are_different_indexes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let names = ["a", "a-text", "a_text", "a_data", "a.b", "a_content", "select", "1"];
    for name in names {
        let sink = index(&store, name, "replace", &[("title", FieldType::Text)]).unwrap();
        sink.prepare().await.unwrap();
        deliver(&*sink, &[put("x", 1, &json!({ "title": format!("word {name}") }))]).await;
    }
    for name in names {
        assert_eq!(store.index_count(name).await.unwrap(), 1, "{name}");
        let found = store.search(name, "word", 9).await.unwrap();
        assert_eq!(found, [json!({ "title": format!("word {name}") })], "{name}");
    }
}

#[tokio::test]
async fn keys_members_and_ids_are_texts() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let (feed, documents, posts) =
        (timeline(&store, &[]), document(&store, &[]), posts(&store, "merge").await);
    for text in TEXTS {
        deliver(&*feed, &[add(text, text, 1), add(text, "other", 0)]).await;
        deliver(&*documents, &[put(text, 1, &json!({ text: text }))]).await;
        deliver(&*posts, &[put(text, 1, &json!({ "title": text, text: text }))]).await;
    }
    for text in TEXTS {
        assert_eq!(store.timeline(text, 1).await.unwrap(), [(text.to_owned(), 1.0)]);
        assert_eq!(store.document(text).await.unwrap(), Some(json!({ text: text })));
        let found = store.index_document("posts", text).await.unwrap();
        assert_eq!(found, Some(json!({ "title": text, text: text })));
    }
    assert_eq!(store.index_count("posts").await.unwrap(), TEXTS.len() as u64);
}

#[tokio::test]
async fn a_searched_text_has_no_operators() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let posts = posts(&store, "replace").await;
    deliver(&*posts, &[put("1", 1, &json!({ "title": "coffee OR tea", "body": "near the \"sea\"" }))]).await;
    let long = "coffee ".repeat(10_000);
    let texts = [
        "\"",
        "\"\"",
        "*",
        "coffee*",
        "title:coffee",
        "coffee AND",
        "NOT",
        "NEAR(",
        "(",
        ")",
        "^coffee",
        "- coffee",
        "{title body} : x",
        "\u{0}",
        "coffee\u{0}tea",
        "a\"b",
        "",
        " ",
        "--",
        "';",
        "😀",
        "+ +",
        &long,
    ];
    for text in texts {
        assert!(store.search("posts", text, 10).await.is_ok(), "{text:?}");
    }
    for (text, hits) in
        [("OR", 1), ("coffee tea", 1), ("coffee\u{0}tea", 1), ("coffee milk", 0), ("\"sea\"", 1)]
    {
        assert_eq!(store.search("posts", text, 10).await.unwrap().len(), hits, "{text:?}");
    }
    for name in ["none", "a\"b", "indexes", ""] {
        assert!(store.search(name, "coffee", 10).await.unwrap().is_empty(), "{name:?}");
        assert_eq!(store.index_count(name).await.unwrap(), 0, "{name:?}");
        assert_eq!(store.index_document(name, "1").await.unwrap(), None, "{name:?}");
    }
}

#[tokio::test]
async fn a_document_that_no_value_holds_is_kept_as_text() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let view = Document::read(&settings(&[("key", "{@key}"), ("version", "1")]), &mut Problems::default());
    let sink = store.sink(id(), View::Document(view.unwrap())).unwrap();
    let json = r#"{"huge":1e999,"lone":"\ud800"}"#;
    let mut odd = message(1, "e", json);
    odd.key = Some(b"odd".as_slice().into());
    deliver(&*sink, &[odd]).await;
    let found = store.lookup().unwrap().documents(&["odd".to_owned()]).await.unwrap();
    assert_eq!(found[0].as_deref(), Some(json));
    assert_eq!(store.document("odd").await.unwrap_err().class(), Class::Reject);
}
