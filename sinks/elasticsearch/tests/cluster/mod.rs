//! The real cluster as tests need it: a store of ours beside a plain HTTP client that reads what lies there.

use std::sync::Arc;

use async_trait::async_trait;
use millrace_core::{
    Sink, SinkId, Store, View,
    settings::{Key, Location, Node, NodeKind, Problems, Settings},
    views::{FieldType, Index, IndexFields},
};
use millrace_elasticsearch::{Elasticsearch, Options};
use millrace_testkit::index_suite::IndexReader;
use serde_json::{Value, json};
use tokio::time::Duration;

pub struct Cluster {
    pub store: Elasticsearch,
    /// Begins the names of all indexes of a test.
    pub prefix: String,
    url: String,
    http: reqwest::Client,
}

impl Cluster {
    pub fn open(test: &str) -> Self {
        let url = std::env::var("ES_URL")
            .expect("ES_URL is not set: run scripts/test, or: eval \"$(scripts/services env)\"");
        let options = Options::read(&settings(&[("url", &url)]), &mut Problems::default()).unwrap();
        Cluster {
            store: Elasticsearch::open("test", &options).unwrap(),
            prefix: format!("mr-{test}-{:08x}", rand::random::<u32>()),
            url,
            http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap(),
        }
    }

    pub fn index(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub fn sink(&self, index: &str, mode: &str, fields: &[(&str, FieldType)]) -> Arc<dyn Sink> {
        self.sink_with(index, mode, fields, None, Some(0))
    }

    pub fn sink_with(
        &self,
        index: &str,
        mode: &str,
        fields: &[(&str, FieldType)],
        shards: Option<u32>,
        replicas: Option<u32>,
    ) -> Arc<dyn Sink> {
        let pairs = [
            ("index", index),
            ("mode", mode),
            ("op", "{op}"),
            ("id", "{id}"),
            ("version", "{v}"),
            ("document", "{doc}"),
        ];
        let view = Index::read(&settings(&pairs), &mut Problems::default()).unwrap();
        let fields = fields.iter().map(|(name, of)| ((*name).to_owned(), *of)).collect();
        let id = SinkId { pipeline: "test".into(), sink: index.into() };
        self.store.sink(id, View::Index(view, IndexFields { fields, shards, replicas })).unwrap()
    }

    pub async fn text(&self, path: &str) -> String {
        self.http.get(format!("{}/{path}", self.url)).send().await.unwrap().text().await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await).unwrap()
    }

    pub async fn put(&self, path: &str, body: &Value) {
        let answer = self.http.put(format!("{}/{path}", self.url)).json(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    pub async fn delete(&self, index: &str) {
        let answer = self.http.delete(format!("{}/{index}", self.url)).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    /// Removes the indexes of this test.
    pub async fn clean(&self) {
        let found = self.get(&format!("_alias/{}-*", self.prefix)).await;
        for index in found.as_object().unwrap().keys() {
            assert!(index.starts_with(&self.prefix));
            self.delete(index).await;
        }
    }

    pub async fn search_count(&self, index: &str, query: Value) -> u64 {
        self.search(index, query).await["hits"]["total"]["value"].as_u64().unwrap()
    }

    async fn search(&self, index: &str, query: Value) -> Value {
        let body = json!({ "query": query, "track_total_hits": true });
        let url = format!("{}/{index}/_search", self.url);
        let answer = self.http.post(url).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }
}

#[async_trait]
impl IndexReader for Cluster {
    async fn refresh(&self, index: &str) {
        let answer = self.http.post(format!("{}/{index}/_refresh", self.url)).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    async fn document(&self, index: &str, id: &str) -> Option<Value> {
        let found = self.search(index, json!({ "ids": { "values": [id] } })).await;
        let mut document = found["hits"]["hits"].get(0)?["_source"].clone();
        let own = document.as_object_mut().unwrap().remove("millrace").expect("our own object");
        assert_eq!(own["deleted"], false);
        Some(document)
    }

    async fn count(&self, index: &str) -> u64 {
        self.search_count(index, json!({ "match_all": {} })).await
    }
}

pub fn settings(pairs: &[(&str, &str)]) -> Settings {
    let at = Location::default();
    let scalar = |text: &str| Node { at, kind: NodeKind::Scalar { text: text.into(), plain: true } };
    let entries = pairs.iter().map(|(key, value)| (Key { at, text: (*key).into() }, scalar(value))).collect();
    Settings::new(Node { at, kind: NodeKind::Map(entries) }, "test")
}
