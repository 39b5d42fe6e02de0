//! What librdkafka is told: one table of its properties per kind of client, from our settings alone.

use std::fs::File;

use millrace_core::{Error, Result, settings::Secret};
use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use tokio::time::Duration;

use crate::settings::{Options, Tls};

/// Appended batches hold this much before compression, or one larger record.
pub const BATCH_BYTES_MAX: u64 = 256 << 10;
/// What a batch needs besides its records; ours are larger than Kafka's 61 bytes and a few per record.
pub const BATCH_OVERHEAD_BYTES: u64 = 1 << 10;

/// Makes the configuration of every client of one broker.
pub struct Clients {
    /// Names the broker in errors: `kafka main`.
    pub who: String,
    /// The settings.
    pub options: Options,
    password: Option<Secret>,
    key_password: Option<Secret>,
}

impl Clients {
    /// Reads the secrets, and looks whether the certificates are there: librdkafka does not say which is not.
    ///
    /// # Errors
    /// Fatal when a file cannot be read.
    pub fn new(name: &str, options: Options) -> Result<Self> {
        let who = format!("kafka {name}");
        for (key, path) in options.tls.iter().flat_map(Tls::files) {
            File::open(path).map_err(|error| {
                Error::fatal(&who, format!("'{key}' {} cannot be read", path.display())).with_source(error)
            })?;
        }
        let password = options.sasl.as_ref().map(|sasl| sasl.password.load()).transpose()?;
        let certificate = options.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
        let key_password = certificate
            .and_then(|certificate| certificate.key_password.as_ref())
            .map(millrace_core::settings::SecretSource::load)
            .transpose()?;
        Ok(Clients { who, options, password, key_password })
    }

    /// The group that a pipeline reads as.
    pub fn group_name(&self, group: &str) -> String {
        format!("{}{group}", self.options.group_prefix)
    }

    /// The topic that keeps the states of steps.
    pub fn state_topic(&self) -> String {
        format!("{}state", self.options.group_prefix)
    }

    /// A client that looks at the cluster. An end is that of the log: what is being committed counts, so that
    /// whoever reads to the end after a writer has ended reads all of it.
    pub fn observer(&self) -> ClientConfig {
        let mut config = self.base();
        config.set("allow.auto.create.topics", "false").set("isolation.level", "read_uncommitted");
        config
    }

    /// A client that reads what a group has committed, or commits for it, without joining.
    pub fn group_observer(&self, group: &str) -> ClientConfig {
        let mut config = self.observer();
        config
            .set("group.id", self.group_name(group))
            .set("enable.auto.commit", "false")
            // Records of an open transaction are not there yet, and neither is its progress.
            .set("isolation.level", "read_committed");
        config
    }

    /// A client that reads records. Without a group it still needs a name for one, which it never uses.
    pub fn consumer(&self, group: Option<&str>, prefetch_bytes_max: usize) -> ClientConfig {
        let options = &self.options;
        // The other half is what we hold ourselves.
        let queue_bytes = (prefetch_bytes_max / 2).clamp(32 << 10, 1 << 30);
        let fetch_bytes = queue_bytes.min(50 << 20);
        let partition_bytes = (queue_bytes / 2).clamp(16 << 10, 1 << 20);
        let mut config = self.group_observer(group.unwrap_or("reader"));
        config
            .set("session.timeout.ms", ms(options.session_timeout))
            .set("heartbeat.interval.ms", ms(options.heartbeat))
            .set("max.poll.interval.ms", ms(options.max_poll_interval))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.offset.store", "false")
            // We place every partition ourselves; an offset that is not there is for us to explain.
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("queued.max.messages.kbytes", (queue_bytes >> 10).to_string())
            .set("fetch.max.bytes", fetch_bytes.to_string())
            .set("fetch.message.max.bytes", partition_bytes.to_string())
            // librdkafka raises fetch.max.bytes to this one.
            .set("message.max.bytes", fetch_bytes.min(1_000_000).to_string())
            // A fetch that waits at the broker holds up those of newly assigned partitions.
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "100")
            // How long fetching rests when the queue is full; a small prefetch is full all the time.
            .set("fetch.queue.backoff.ms", "5")
            .set("topic.metadata.refresh.interval.ms", "60000");
        if let (Some(instance), Some(_)) = (&options.group_instance_id, group) {
            config.set("group.instance.id", instance);
        }
        config
    }

    /// A client that appends batches of at most that many bytes, or one larger record.
    pub fn producer(&self, batch_bytes_max: u64) -> ClientConfig {
        let options = &self.options;
        let record_bytes = options.record_bytes_max + BATCH_OVERHEAD_BYTES;
        let queue_bytes = (64 << 20).max(record_bytes * 2);
        let request_timeout = options.request_timeout.min(options.delivery_timeout);
        let mut config = self.base();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // As Java's clients have it; librdkafka's own default differs.
            .set("partitioner", "murmur2_random")
            .set("compression.type", &options.compression)
            .set("linger.ms", ms(options.linger))
            .set("batch.size", batch_bytes_max.to_string())
            .set("message.max.bytes", record_bytes.to_string())
            .set("queue.buffering.max.kbytes", (queue_bytes >> 10).to_string())
            .set("message.timeout.ms", ms(options.delivery_timeout))
            .set("request.timeout.ms", ms(request_timeout));
        config
    }

    /// As [`Clients::producer`], in transactions of this id.
    pub fn transactional_producer(&self, id: &str, batch_bytes_max: u64) -> ClientConfig {
        let options = &self.options;
        let delivery_timeout = options.delivery_timeout.min(options.transaction_timeout);
        let mut config = self.producer(batch_bytes_max);
        config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", ms(options.transaction_timeout))
            .set("message.timeout.ms", ms(delivery_timeout))
            .set("request.timeout.ms", ms(options.request_timeout.min(delivery_timeout)))
            // Records come many at a time, and a commit waits for them.
            .set("linger.ms", "0")
            // A commit is answered before the cluster has ended its transaction; adding progress to the next one is
            // refused for these few milliseconds, and asked again after this wait, which doubles from try to try.
            .set("retry.backoff.ms", "2")
            .set("retry.backoff.max.ms", "1000")
            // Follows the backoff where it is not set; a leader that moves takes longer than a transaction.
            .set("topic.metadata.refresh.fast.interval.ms", "100");
        config
    }

    fn base(&self) -> ClientConfig {
        let options = &self.options;
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &options.bootstrap)
            .set("client.id", &options.client_id)
            .set("broker.address.family", &options.address_family)
            .set("socket.keepalive.enable", "true")
            .set(
                "socket.connection.setup.timeout.ms",
                ms(options.request_timeout.max(Duration::from_secs(1))),
            )
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "2000")
            .set("security.protocol", self.security_protocol())
            .set_log_level(RDKafkaLogLevel::Warning);
        if let Some(tls) = &options.tls {
            let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
            if let Some(ca_file) = &tls.ca_file {
                config.set("ssl.ca.location", path(ca_file));
            }
            if let Some(certificate) = &tls.certificate {
                config.set("ssl.certificate.location", path(&certificate.cert_file));
                config.set("ssl.key.location", path(&certificate.key_file));
            }
            if let Some(key_password) = &self.key_password {
                config.set("ssl.key.password", key_password.expose());
            }
        }
        if let (Some(sasl), Some(password)) = (&options.sasl, &self.password) {
            config
                .set("sasl.mechanism", &sasl.mechanism)
                .set("sasl.username", &sasl.username)
                .set("sasl.password", password.expose());
        }
        config
    }

    fn security_protocol(&self) -> &'static str {
        match (self.options.tls.is_some(), self.options.sasl.is_some()) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        }
    }
}

fn ms(span: Duration) -> String {
    span.as_millis().to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use millrace_core::settings::{Key, Location, Node, NodeKind, Problems, Settings};
    use rdkafka::{consumer::BaseConsumer, producer::BaseProducer};

    use super::*;

    fn clients(pairs: &[(&str, &str)]) -> Clients {
        clients_of("127.0.0.1:1", pairs)
    }

    /// Clients of this cluster, with these settings.
    pub fn clients_of(bootstrap: &str, pairs: &[(&str, &str)]) -> Clients {
        let at = Location::default();
        let scalar = |text: &str| Node { at, kind: NodeKind::Scalar { text: text.into(), plain: true } };
        let entries = pairs
            .iter()
            .chain(&[("bootstrap", bootstrap)])
            .map(|(key, value)| (Key { at, text: (*key).into() }, scalar(value)))
            .collect();
        let mut problems = Problems::default();
        let settings = Settings::new(Node { at, kind: NodeKind::Map(entries) }, "brokers.main");
        Clients::new("main", Options::read(&settings, &mut problems).unwrap()).unwrap()
    }

    #[test]
    fn librdkafka_accepts_every_configuration() {
        let plain = clients(&[]);
        for prefetch in [0, 64 << 10, 8 << 20, 4 << 30] {
            plain.consumer(Some("g"), prefetch).create::<BaseConsumer>().unwrap();
        }
        plain.consumer(None, 1 << 20).create::<BaseConsumer>().unwrap();
        plain.observer().create::<BaseConsumer>().unwrap();
        for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
            let clients = clients(&[("compression", compression), ("record_bytes_max", "900MiB")]);
            for batch_bytes in [1, BATCH_BYTES_MAX] {
                clients.producer(batch_bytes).create::<BaseProducer>().unwrap();
                clients.transactional_producer("g/t/0", batch_bytes).create::<BaseProducer>().unwrap();
            }
        }
        let login = clients(&[
            ("security", "sasl_plaintext"),
            ("username", "u"),
            ("password", "p"),
            ("linger", "0ms"),
        ]);
        login.producer(BATCH_BYTES_MAX).create::<BaseProducer>().unwrap();
        let short =
            clients(&[("session_timeout", "1s"), ("max_poll_interval", "1s"), ("request_timeout", "100ms")]);
        short.consumer(Some("g"), 1 << 20).create::<BaseConsumer>().unwrap();
        let quick = clients(&[("transaction_timeout", "1s"), ("delivery_timeout", "1m")]);
        quick.transactional_producer("g/t/0", 1).create::<BaseProducer>().unwrap();
    }

    #[test]
    fn a_transaction_begins_soon_after_the_last_one_and_failures_are_still_waited_for() {
        let config = clients(&[]).transactional_producer("g/t/0", BATCH_BYTES_MAX);
        let native = config.create_native_config().unwrap();
        let milliseconds = |name: &str| native.get(name).unwrap().parse::<u64>().unwrap();
        assert!(milliseconds("retry.backoff.ms") <= 5, "a transaction right after another waits so long");
        assert!(milliseconds("retry.backoff.max.ms") >= 1_000);
        assert!(milliseconds("topic.metadata.refresh.fast.interval.ms") >= 100);
        assert_eq!(milliseconds("linger.ms"), 0);
    }

    #[test]
    fn groups_are_prefixed_and_only_they_are_named() {
        let clients = clients(&[("group_prefix", "shop."), ("group_instance_id", "a")]);
        let shared = clients.consumer(Some("feed"), 1 << 20);
        assert_eq!((shared.get("group.id"), shared.get("group.instance.id")), (Some("shop.feed"), Some("a")));
        let alone = clients.consumer(None, 1 << 20);
        assert_eq!((alone.get("group.id"), alone.get("group.instance.id")), (Some("shop.reader"), None));
    }

    #[test]
    fn the_login_is_passed_on() {
        let clients = clients(&[
            ("security", "sasl_tls"),
            ("sasl_mechanism", "PLAIN"),
            ("username", "u"),
            ("password", "sesame"),
            ("ca_file", "Cargo.toml"),
        ]);
        let config = clients.observer();
        let expected = [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "u"),
            ("sasl.password", "sesame"),
            ("ssl.ca.location", "Cargo.toml"),
        ];
        for (key, value) in expected {
            assert_eq!(config.get(key), Some(value), "{key}");
        }
        assert!(!format!("{config:?}").contains("sesame"));
    }
}
