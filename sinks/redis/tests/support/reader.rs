//! Reads views with plain commands, past the store's own code.

use async_trait::async_trait;
use millrace_testkit::views_suite::ViewsReader;
use redis::{
    Client, Cmd, FromRedisValue, aio::MultiplexedConnection, cluster::ClusterClient,
    cluster_async::ClusterConnection,
};
use serde_json::Value;

use super::variable;

/// A connection of the test's own.
#[derive(Clone)]
pub(crate) enum Reader {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Reader {
    pub(crate) async fn single() -> Self {
        let client = Client::open(variable("REDIS_URL")).unwrap();
        Reader::Single(client.get_multiplexed_async_connection().await.unwrap())
    }

    pub(crate) async fn cluster() -> Self {
        let nodes = variable("MILLRACE_TEST_REDIS_CLUSTER");
        let client = ClusterClient::new(nodes.split(',').map(|node| format!("redis://{node}"))).unwrap();
        Reader::Cluster(client.get_async_connection().await.unwrap())
    }

    pub(crate) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> T {
        match self.clone() {
            Reader::Single(mut connection) => command.query_async(&mut connection).await.unwrap(),
            Reader::Cluster(mut connection) => command.query_async(&mut connection).await.unwrap(),
        }
    }

    /// Deletes the keys of a test that passed, companions as well.
    pub(crate) async fn forget(&self, prefix: &str) {
        let nodes = match self {
            Reader::Single(_) => variable("REDIS_URL").trim_start_matches("redis://").to_owned(),
            Reader::Cluster(_) => variable("MILLRACE_TEST_REDIS_CLUSTER"),
        };
        for node in nodes.split(',') {
            let client = Client::open(format!("redis://{node}")).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            let mut cursor = 0;
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(format!("*{prefix}*")).arg("COUNT").arg(1_000);
                let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await.unwrap();
                for key in keys {
                    redis::cmd("UNLINK").arg(key).exec_async(&mut connection).await.unwrap();
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
    }

    /// A command in words.
    pub(crate) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = Cmd::new();
        command.arg(words);
        self.query(&command).await
    }
}

#[async_trait]
impl ViewsReader for Reader {
    async fn timeline(&self, key: &str, n: usize) -> Vec<(String, f64)> {
        self.ask(&["ZREVRANGE", key, "0", &(n - 1).to_string(), "WITHSCORES"]).await
    }

    async fn members(&self, key: &str) -> Vec<String> {
        self.ask(&["ZRANGE", key, "0", "-1"]).await
    }

    async fn document(&self, key: &str) -> Option<Value> {
        let text: Option<String> = self.ask(&["GET", key]).await;
        text.map(|text| serde_json::from_str(&text).unwrap())
    }

    async fn counter(&self, key: &str) -> Option<i64> {
        self.ask(&["GET", key]).await
    }
}
