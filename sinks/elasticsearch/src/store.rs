//! The store: one cluster, its sinks, and a look at whether it is fit.

use std::sync::Arc;

use async_trait::async_trait;
use millrace_core::{Class, Error, Finding, Ledger, Lookup, Result, Sink, SinkId, Store, View};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Duration;

use crate::{client::Client, settings::Options, sink::IndexSink};

/// The oldest major version that is served.
const MAJOR_MIN: u32 = 8;

/// An Elasticsearch cluster.
pub struct Elasticsearch {
    client: Arc<Client>,
    bulk_bytes_max: usize,
    sends_login_openly: bool,
}

#[derive(Deserialize)]
struct Health {
    cluster_name: String,
    status: String,
}

impl Elasticsearch {
    /// Opens a store that errors call by `name`. Reads secrets and certificates, and connects to nothing.
    ///
    /// # Errors
    /// Fatal when a file cannot be read or used.
    pub fn open(name: &str, options: &Options) -> Result<Self> {
        Ok(Elasticsearch {
            client: Arc::new(Client::open(format!("elasticsearch {name}"), options)?),
            bulk_bytes_max: options.bulk_bytes_max,
            sends_login_openly: options.login.is_some() && options.url.scheme() == "http",
        })
    }

    async fn health(&self) -> Result<Option<Health>> {
        let who = self.client.who();
        let reply = match self.client.get("_cluster/health").await {
            Ok(reply) => reply,
            Err(trouble) => return Err(trouble.into_error(who, Class::Fatal)),
        };
        if reply.status == 403 {
            return Ok(None);
        }
        reply.json(who).map(Some).map_err(|trouble| trouble.into_error(who, Class::Fatal))
    }

    /// The version, from whichever of two places tells it.
    async fn version(&self) -> Result<Option<String>> {
        for (path, pointer) in
            [("", "/version/number"), ("_nodes/_local?filter_path=nodes.*.version", "/nodes")]
        {
            let reply = self.client.get(path).await;
            let reply = reply.map_err(|trouble| trouble.into_error(self.client.who(), Class::Fatal))?;
            let Ok(told) = reply.json::<Value>(self.client.who()) else { continue };
            let found = match told.pointer(pointer) {
                Some(Value::Object(nodes)) => nodes.values().next().and_then(|node| node["version"].as_str()),
                other => other.and_then(Value::as_str),
            };
            if let Some(version) = found {
                return Ok(Some(version.to_owned()));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl Store for Elasticsearch {
    fn sink(&self, _id: SinkId, view: View) -> Result<Arc<dyn Sink>> {
        match view {
            View::Index(index, fields) => {
                Ok(Arc::new(IndexSink::new(self.client.clone(), index, fields, self.bulk_bytes_max)?))
            }
            _ => Err(Error::fatal(self.client.who(), "keeps indexes only")),
        }
    }

    fn lookup(&self) -> Option<Arc<dyn Lookup>> {
        None
    }

    fn ledger(&self, _ttl: Duration) -> Option<Arc<dyn Ledger>> {
        None
    }

    async fn check(&self) -> Result<Vec<Finding>> {
        let mut findings = vec![match self.health().await? {
            Some(health) => Finding {
                ok: health.status != "red",
                what: format!("cluster '{}' is {}", health.cluster_name, health.status),
            },
            None => Finding {
                ok: true,
                what: "the cluster's health may not be read (no privilege 'monitor')".into(),
            },
        }];
        findings.push(version_finding(self.version().await?.as_deref()));
        if self.sends_login_openly {
            findings.push(Finding { ok: true, what: "credentials are sent without TLS (http://)".into() });
        }
        Ok(findings)
    }
}

fn version_finding(version: Option<&str>) -> Finding {
    let Some(version) = version else {
        return Finding { ok: true, what: "the version may not be read".into() };
    };
    let major: Option<u32> = version.split('.').next().and_then(|major| major.parse().ok());
    match major {
        Some(major) if major >= MAJOR_MIN => Finding { ok: true, what: format!("version {version}") },
        _ => Finding { ok: false, what: format!("version {version}, {MAJOR_MIN} or later is needed") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_unfit() {
        for (version, ok) in
            [("8.19.21", true), ("9.1.0", true), ("10.0.0", true), ("7.17.0", false), ("x", false)]
        {
            assert_eq!(version_finding(Some(version)).ok, ok, "{version}");
        }
        assert!(version_finding(None).ok);
    }
}
