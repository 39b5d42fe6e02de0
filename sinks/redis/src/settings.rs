//! `redis:` in YAML, and what it says.

use std::path::PathBuf;

use millrace_core::{
    StoreKind,
    settings::{Field, Kind, Object, Problems, Secret, SecretSource, Settings, Shape},
};
use redis::{ConnectionAddr, IntoConnectionInfo};
use tokio::time::Duration;

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// A cluster is found through any of its nodes; nobody lists more than a few.
const NODES_MAX: usize = 32;

/// The store `redis`.
pub static REDIS: StoreKind = StoreKind {
    kind: Kind { name: "redis", settings: &SETTINGS },
    views: &["timeline", "members", "document", "counter"],
    lookup: true,
    ledger: true,
};

static SETTINGS: Object = Object {
    name: "redis",
    doc: "Redis or a compatible server, version 6.2 or newer: timelines, sets, documents, counters, lookups and the ledger.",
    fields: &[
        Field::required(
            "url",
            Shape::Text,
            "redis://host:port/database, or rediss:// for TLS; of a cluster some of its nodes, separated by commas",
        ),
        Field::with_default("cluster", Shape::Flag, "false", "whether the server is a Redis Cluster"),
        Field::optional("username", Shape::Text, "the user, where there are users; needs a password"),
        Field::optional("password", Shape::Secret, "the password"),
        Field::optional("password_file", Shape::Path, "a file that holds the password"),
        Field::optional(
            "ca_file",
            Shape::Path,
            "PEM certificates to trust with rediss:// instead of the system's",
        ),
        Field::with_default("timeout", Shape::Duration, "2s", "how long a round trip may take"),
        Field::with_default("connect_timeout", Shape::Duration, "2s", "how long connecting may take"),
    ],
};

/// The settings, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    pub(crate) nodes: Vec<Node>,
    pub(crate) tls: bool,
    pub(crate) cluster: bool,
    pub(crate) database: i64,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<SecretSource>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// What the first part of `url` says for all of them.
struct Url {
    nodes: Vec<Node>,
    tls: bool,
    database: i64,
    username: Option<String>,
    password: Option<Secret>,
}

impl RedisSettings {
    /// Reads checked settings. None when a problem was added, or had been reported by the check.
    pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        let url = match Url::parse(settings.text("url")?) {
            Ok(url) => url,
            Err(why) => {
                let (at, path) = (settings.at_key("url"), settings.path_of("url"));
                problems.suggest(
                    at,
                    &path,
                    why,
                    "as 'redis://localhost:6379' or 'rediss://user@host:6380/0'",
                );
                return None;
            }
        };
        let cluster = settings.flag("cluster").unwrap_or(false);
        let password = settings.secret("password");
        let given = [settings.node("password"), settings.node("password_file")].iter().flatten().count();
        let mut found = Vec::new();
        if given + usize::from(url.password.is_some()) > 1 {
            found.push(("password", "the password is given more than once"));
        }
        if settings.text("username").is_some() && url.username.is_some() {
            found.push(("username", "the user is given here and in the url"));
        }
        let username = settings.text("username").map(str::to_owned).or(url.username);
        let password = password.or(url.password.map(SecretSource::Inline));
        if username.is_some() && password.is_none() {
            found.push(("username", "a user needs a password: 'password' or 'password_file'"));
        }
        if cluster && url.database != 0 {
            found.push(("url", "a cluster has no databases but 0"));
        }
        if !cluster && url.nodes.len() > 1 {
            found.push(("url", "several nodes need 'cluster: true'"));
        }
        if settings.node("ca_file").is_some() && !url.tls {
            found.push(("ca_file", "certificates are used with rediss:// only"));
        }
        let timeouts = ["timeout", "connect_timeout"].map(|key| {
            let timeout = settings.duration(key).unwrap_or(TIMEOUT_DEFAULT);
            if timeout.is_zero() || timeout > TIMEOUT_MAX {
                found.push((key, "must be from 1ms to 5m"));
            }
            timeout
        });
        if !found.is_empty() {
            for (key, message) in found {
                problems.add(settings.at_key(key), &settings.path_of(key), message);
            }
            return None;
        }
        let [timeout, connect_timeout] = timeouts;
        Some(RedisSettings {
            nodes: url.nodes,
            tls: url.tls,
            cluster,
            database: url.database,
            username,
            password,
            ca_file: settings.file("ca_file"),
            timeout,
            connect_timeout,
        })
    }
}

impl Url {
    /// Reads `url`; errors say what is wrong and never show it, as it may hold a password.
    fn parse(text: &str) -> Result<Self, &'static str> {
        const SCHEME: &str = "must begin with redis:// or rediss://";
        let (scheme, _) = text.split_once("://").ok_or(SCHEME)?;
        if !matches!(scheme, "redis" | "rediss" | "valkey" | "valkeys") {
            return Err(SCHEME);
        }
        if text.contains('#') {
            return Err("must have no '#': certificates are always checked");
        }
        // A comma inside a password would have to be written as %2C.
        let mut parts = text.split(',').map(str::trim);
        let mut url = Self::parse_one(parts.next().unwrap_or_default())?;
        for part in parts {
            let whole = if part.contains("://") { part.to_owned() } else { format!("{scheme}://{part}") };
            let mut other = Self::parse_one(&whole)?;
            if other.tls != url.tls || other.username.is_some() || other.password.is_some() {
                return Err("only the first node says scheme, user and password");
            }
            url.nodes.append(&mut other.nodes);
        }
        if url.nodes.len() > NODES_MAX {
            return Err("names more than 32 nodes");
        }
        Ok(url)
    }

    fn parse_one(text: &str) -> Result<Self, &'static str> {
        let info = text.into_connection_info().map_err(|_| "is no Redis URL")?;
        let (host, port, tls) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (host, *port, false),
            ConnectionAddr::TcpTls { host, port, .. } => (host, *port, true),
            _ => return Err("must name a host"),
        };
        if host.is_empty() || port == 0 {
            return Err("must name a host and a port");
        }
        let redis = info.redis_settings();
        Ok(Url {
            nodes: vec![Node { host: host.clone(), port }],
            tls,
            database: redis.db(),
            username: redis.username().map(str::to_owned),
            password: redis.password().map(Secret::new),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use millrace_core::settings::check_object;
    use millrace_testkit::views_suite::settings;

    use super::*;

    /// Settings of plain scalars, or the messages of all problems.
    pub(crate) fn read(pairs: &[(&str, &str)]) -> Result<RedisSettings, Vec<String>> {
        let mut problems = Problems::default();
        let read = RedisSettings::read(&settings(pairs), &mut problems);
        let messages: Vec<String> = problems.into_sorted().into_iter().map(|p| p.message).collect();
        read.ok_or(messages)
    }

    #[test]
    fn reads_one_server() {
        let read = read(&[("url", "rediss://me:p%40ss@example.org:6380/3"), ("timeout", "500ms")]).unwrap();
        assert_eq!(read.nodes, [Node { host: "example.org".into(), port: 6380 }]);
        assert_eq!((read.tls, read.cluster, read.database), (true, false, 3));
        assert_eq!(read.username.as_deref(), Some("me"));
        assert_eq!(read.password.as_ref().unwrap().load().unwrap().expose(), "p@ss");
        assert_eq!((read.timeout, read.connect_timeout), (Duration::from_millis(500), TIMEOUT_DEFAULT));
        assert!(!format!("{read:?}").contains("p@ss"), "a password never shows");
    }

    #[test]
    fn reads_nodes_of_a_cluster() {
        let read = read(&[("url", "redis://a:1, b:2,redis://[::1]"), ("cluster", "true")]).unwrap();
        let nodes: Vec<(&str, u16)> = read.nodes.iter().map(|node| (node.host.as_str(), node.port)).collect();
        assert_eq!(nodes, [("a", 1), ("b", 2), ("::1", 6379)]);
    }

    #[test]
    fn names_every_problem() {
        let problems = |pairs: &[(&str, &str)]| read(pairs).unwrap_err().join("; ");
        for wrong in
            ["localhost", "http://a", "redis+unix:///a", "redis://", "rediss://a#insecure", "redis://a/x"]
        {
            assert!(!problems(&[("url", wrong)]).is_empty(), "{wrong}");
        }
        let many = problems(&[
            ("url", "redis://:secret@a,b/0"),
            ("password", "secret"),
            ("ca_file", "ca.pem"),
            ("timeout", "0s"),
        ]);
        for part in ["more than once", "cluster: true", "rediss:// only", "from 1ms"] {
            assert!(many.contains(part), "{part} in {many}");
        }
        assert!(!many.contains("secret"));
        assert!(problems(&[("url", "redis://a"), ("username", "me")]).contains("needs a password"));
        assert!(problems(&[("url", "redis://a/2"), ("cluster", "true")]).contains("no databases"));
    }

    #[test]
    fn the_table_accepts_what_is_read() {
        let pairs =
            [("url", "redis://a"), ("cluster", "true"), ("password_file", "p"), ("connect_timeout", "1s")];
        let mut problems = Problems::default();
        let given = settings(&pairs);
        let entries = pairs.iter().map(|(key, _)| (*key, given.node(key).unwrap().clone()));
        let node = millrace_core::settings::Node {
            at: given.at(),
            kind: millrace_core::settings::NodeKind::Map(
                entries
                    .map(|(key, node)| {
                        (millrace_core::settings::Key { at: given.at(), text: key.into() }, node)
                    })
                    .collect(),
            ),
        };
        check_object(&node, REDIS.kind.settings, "stores.feeds.redis", &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
    }
}
