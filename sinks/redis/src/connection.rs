//! One connection to a server or a cluster: opened at the first use, shared by all, opened anew after it broke.
//!
//! Commands of all callers go down one multiplexed connection, so that a round trip serves many. Nothing is
//! retried here: an effect may be repeated, and the runtime decides when.

use millrace_core::{
    Error, Result,
    settings::{Secret, SecretSource},
};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisResult, TlsCertificates, TlsMode, Value, aio::MultiplexedConnection,
    cluster::ClusterClient,
};
use tokio::{sync::Mutex, time::timeout};

use crate::{
    cluster::Cluster,
    error::{classify, is_broken},
    settings::{Node, RedisSettings},
};

/// A cluster's client follows a moved slot this often within one round trip; then the runtime tries again.
const REDIRECTS_MAX: u32 = 4;
const REDIRECT_WAIT_MAX_MS: u64 = 100;

/// A server or cluster, connected or not.
pub(crate) struct Connection {
    who: String,
    settings: RedisSettings,
    password: Option<Secret>,
    ca_pem: Option<Vec<u8>>,
    open: Mutex<Open>,
}

/// The connection in use.
struct Open {
    link: Option<Link>,
    /// Counts connections: a failure of an older one closes nothing.
    generation: u64,
    /// Counts attempts: each begins with another node, as one that does not answer may take all the time.
    attempts: usize,
}

#[derive(Clone)]
enum Link {
    Single(MultiplexedConnection),
    Cluster(Cluster),
}

impl Connection {
    /// For the store `name`. Reads the files that the settings name; connects to nothing.
    ///
    /// # Errors
    /// Fatal when a file cannot be read.
    pub(crate) fn new(name: &str, settings: RedisSettings) -> Result<Self> {
        let who = format!("redis {name}");
        let password = settings.password.as_ref().map(SecretSource::load).transpose()?;
        let ca_pem = match &settings.ca_file {
            None => None,
            Some(path) => Some(std::fs::read(path).map_err(|error| {
                Error::fatal(&who, format!("ca_file {} cannot be read", path.display())).with_source(error)
            })?),
        };
        if settings.tls {
            // Fails where the program has chosen one, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let open = Mutex::new(Open { link: None, generation: 0, attempts: 0 });
        Ok(Connection { who, settings, password, ca_pem, open })
    }

    /// Whether keys are spread over slots.
    pub(crate) fn is_cluster(&self) -> bool {
        self.settings.cluster
    }

    /// Names the store in errors.
    pub(crate) fn who(&self) -> &str {
        &self.who
    }

    /// The error of a command.
    pub(crate) fn error(&self, error: redis::RedisError) -> Error {
        classify(&self.who, self.settings.cluster, error)
    }

    /// Sends commands in order, pipelined, and gives their answers in that order. On a cluster the order holds
    /// per node.
    ///
    /// # Errors
    /// Retry or Fatal when there is no connection, it broke, or it took too long: nothing is known of any
    /// command then.
    pub(crate) async fn run(&self, commands: Vec<Cmd>) -> Result<Vec<RedisResult<Value>>> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let (link, generation) = self.link().await?;
        let answered = timeout(self.settings.timeout, async {
            match link {
                Link::Single(connection) => run_single(connection, commands).await,
                Link::Cluster(cluster) => {
                    let answers = cluster.run(&commands).await;
                    // Without a new look the next commands go the long way, and arrive all the same.
                    if answers.moved
                        && let Ok(refreshed) = cluster.refreshed().await
                    {
                        self.replace(generation, Link::Cluster(refreshed)).await;
                    }
                    Ok(answers.results)
                }
            }
        });
        let failed = match answered.await {
            Ok(Ok(results)) => {
                if results.iter().any(|result| result.as_ref().is_err_and(is_broken)) {
                    self.close(generation).await;
                }
                return Ok(results);
            }
            Ok(Err(error)) => self.error(error),
            Err(_) => Error::retry(&self.who, format!("no answer within {:?}", self.settings.timeout)),
        };
        self.close(generation).await;
        Err(failed)
    }

    /// One command for every master: address and answer. A single server is its own and only master.
    pub(crate) async fn run_on_masters(&self, command: Cmd) -> Result<Vec<(String, Value)>> {
        let results = self.run(vec![command]).await?;
        match results.into_iter().next() {
            None => Err(Error::retry(&self.who, "the server gave no answer")),
            Some(Err(error)) => Err(self.error(error)),
            Some(Ok(Value::Map(nodes))) if self.is_cluster() => {
                Ok(nodes.into_iter().map(|(node, value)| (text_of(&node), value)).collect())
            }
            Some(Ok(value)) => Ok(vec![(self.settings.nodes[0].to_string(), value)]),
        }
    }

    /// The open connection, or a new one. Whoever waits here waits for the one attempt that is under way.
    async fn link(&self) -> Result<(Link, u64)> {
        let opened = timeout(self.settings.connect_timeout, async {
            let mut open = self.open.lock().await;
            if let Some(link) = &open.link {
                return Ok((link.clone(), open.generation));
            }
            let attempt = open.attempts;
            open.attempts = attempt.wrapping_add(1);
            let link = self.connect(attempt).await?;
            tracing::info!(store = %self.who, cluster = self.settings.cluster, "connected");
            open.generation += 1;
            open.link = Some(link.clone());
            Ok((link, open.generation))
        });
        opened.await.unwrap_or_else(|_| {
            Err(Error::retry(&self.who, format!("no connection within {:?}", self.settings.connect_timeout)))
        })
    }

    async fn replace(&self, generation: u64, link: Link) {
        let mut open = self.open.lock().await;
        if open.generation == generation && open.link.is_some() {
            open.link = Some(link);
        }
    }

    async fn close(&self, generation: u64) {
        let mut open = self.open.lock().await;
        if open.generation == generation && open.link.take().is_some() {
            tracing::warn!(store = %self.who, "connection closed");
        }
    }

    /// Tries the nodes in turn, from `first` on; the error is that of the last one, or the first one that is fatal.
    async fn connect(&self, first: usize) -> Result<Link> {
        let mut failed = Error::fatal(&self.who, "no node is named");
        let nodes = &self.settings.nodes;
        for node in nodes.iter().cycle().skip(first % nodes.len().max(1)).take(nodes.len()) {
            match self.greet(node).await {
                Ok(connection) if self.settings.cluster => {
                    drop(connection);
                    return self.join_cluster().await.map(Link::Cluster);
                }
                Ok(connection) => return Ok(Link::Single(connection)),
                Err(error) if error.class() == millrace_core::Class::Fatal => return Err(error),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Connects to one node, authenticates, and looks whether it is what the settings say.
    async fn greet(&self, node: &Node) -> Result<MultiplexedConnection> {
        let info = self.address(node)?;
        let client = match &self.ca_pem {
            Some(_) => Client::build_with_tls(info, self.certificates()),
            None => Client::open(info),
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.settings.connect_timeout))
            .set_response_timeout(None);
        let client = client.map_err(|error| self.error(error))?;
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| self.error(error))?;

        let mut greeting = Pipeline::new();
        if let Some(password) = &self.password {
            greeting.cmd("AUTH");
            if let Some(username) = &self.settings.username {
                greeting.arg(username);
            }
            greeting.arg(password.expose());
        }
        if self.settings.database != 0 {
            greeting.cmd("SELECT").arg(self.settings.database);
        }
        greeting.cmd("INFO").arg("cluster").ignore_errors();
        let answers: Vec<RedisResult<Value>> =
            greeting.query_async(&mut connection).await.map_err(|error| self.error(error))?;
        self.check_greeting(answers)?;
        Ok(connection)
    }

    fn check_greeting(&self, mut answers: Vec<RedisResult<Value>>) -> Result<()> {
        let info = answers.pop();
        for answer in answers {
            answer.map_err(|error| self.error(error))?;
        }
        let text = match info {
            Some(Ok(value)) => text_of(&value),
            Some(Err(error)) => {
                let error = self.error(error);
                // A user may be kept from INFO; the first effect then tells.
                return if error.why().contains("NOPERM") { Ok(()) } else { Err(error) };
            }
            None => String::new(),
        };
        let is_cluster = text.contains("cluster_enabled:1");
        match (self.settings.cluster, is_cluster) {
            (false, true) => {
                Err(Error::fatal(&self.who, "the server is a node of a cluster: set 'cluster: true'"))
            }
            (true, false) => Err(Error::fatal(&self.who, "the server is no cluster: remove 'cluster: true'")),
            _ => Ok(()),
        }
    }

    async fn join_cluster(&self) -> Result<Cluster> {
        let nodes: Result<Vec<ConnectionInfo>> =
            self.settings.nodes.iter().map(|node| self.address(node)).collect();
        let mut builder = ClusterClient::builder(nodes?)
            .retries(REDIRECTS_MAX)
            .max_retry_wait(REDIRECT_WAIT_MAX_MS)
            .min_retry_wait(1)
            .connection_timeout(self.settings.connect_timeout)
            .response_timeout(self.settings.timeout)
            .overall_response_timeout(Some(self.settings.timeout));
        if let Some(password) = &self.password {
            builder = builder.password(password.expose());
        }
        if let Some(username) = &self.settings.username {
            builder = builder.username(username);
        }
        if self.settings.tls {
            builder = builder.tls(TlsMode::Secure);
        }
        if self.ca_pem.is_some() {
            builder = builder.certs(self.certificates());
        }
        let client = builder.build().map_err(|error| self.error(error))?;
        let connected = async { Cluster::new(client.get_async_connection().await?).await };
        connected.await.map_err(|error| self.error(error))
    }

    fn address(&self, node: &Node) -> Result<ConnectionInfo> {
        let host = node.host.clone();
        let address = if self.settings.tls {
            ConnectionAddr::TcpTls { host, port: node.port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, node.port)
        };
        let info = address.into_connection_info().map_err(|error| self.error(error))?;
        Ok(info.set_redis_settings(RedisConnectionInfo::default().set_skip_set_lib_name()))
    }

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates { client_tls: None, root_cert: self.ca_pem.clone() }
    }
}

async fn run_single(
    mut connection: MultiplexedConnection,
    commands: Vec<Cmd>,
) -> RedisResult<Vec<RedisResult<Value>>> {
    let mut pipeline = Pipeline::with_capacity(commands.len());
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline.ignore_errors().query_async(&mut connection).await
}

/// The text of an answer; empty for what has none.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        Value::Okay => "OK".to_owned(),
        _ => String::new(),
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
