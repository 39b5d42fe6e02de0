//! The settings of a Kafka broker: where it is, who we are, and how we read and append.

use std::path::PathBuf;

use millrace_core::settings::{Field, Kind, Object, Problems, SecretSource, Settings, Shape};
use tokio::time::Duration;

const SECURITY: &[&str] = &["plaintext", "tls", "sasl_plaintext", "sasl_tls"];
const MECHANISMS: &[&str] = &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
const COMPRESSION: &[&str] = &["none", "gzip", "snappy", "lz4", "zstd"];
const FAMILIES: &[&str] = &["any", "v4", "v6"];
/// librdkafka keeps time spans in milliseconds in an `int`, some of them up to a day only.
const SPAN_MAX: Duration = Duration::from_secs(86_400);
/// What one request to a broker may hold: librdkafka's own limit is a little less than 1 GB.
const RECORD_BYTES_LIMIT: u64 = 900 << 20;

/// `kafka:` in YAML.
pub static KAFKA: Kind = Kind { name: "kafka", settings: &SETTINGS };

static SETTINGS: Object = Object {
    name: "kafka",
    doc: "A Kafka or Redpanda cluster.",
    fields: &[
        Field::required("bootstrap", Shape::Text, "brokers to ask first, as 'host:9092,other:9092'"),
        Field::with_default(
            "security",
            Shape::Choice(SECURITY),
            "plaintext",
            "how connections are secured: TLS or not, with a login (SASL) or not",
        ),
        Field::with_default("sasl_mechanism", Shape::Choice(MECHANISMS), "SCRAM-SHA-256", "how we log in"),
        Field::optional("username", Shape::Text, "the user; its password is given beside it"),
        Field::optional("password", Shape::Secret, "the user's password"),
        Field::optional("password_file", Shape::Path, "a file that holds the user's password"),
        Field::optional("ca_file", Shape::Path, "certificates (PEM) of the authorities to trust instead"),
        Field::optional("cert_file", Shape::Path, "our certificate (PEM), where brokers ask for one"),
        Field::optional("key_file", Shape::Path, "the private key (PEM) of our certificate"),
        Field::optional("key_password", Shape::Secret, "the password of the private key"),
        Field::optional("key_password_file", Shape::Path, "a file that holds the key's password"),
        Field::with_default("client_id", Shape::Text, "millrace", "our name in the brokers' logs and quotas"),
        Field::with_default(
            "group_prefix",
            Shape::Text,
            "millrace.",
            "begins the name of every consumer group: pipeline 'feed' reads as group 'millrace.feed'",
        ),
        Field::optional(
            "group_instance_id",
            Shape::Text,
            "a name that stays with this process: a restart within the session moves no partition",
        ),
        Field::with_default(
            "session_timeout",
            Shape::Duration,
            "45s",
            "how long a silent process keeps its partitions",
        ),
        Field::with_default("heartbeat", Shape::Duration, "3s", "how often a process says that it lives"),
        Field::with_default(
            "max_poll_interval",
            Shape::Duration,
            "300s",
            "how long a source may go without polling before it loses its partitions",
        ),
        Field::with_default(
            "compression",
            Shape::Choice(COMPRESSION),
            "none",
            "how appended batches are compressed",
        ),
        Field::with_default("linger", Shape::Duration, "5ms", "how long an append waits for company"),
        Field::with_default(
            "delivery_timeout",
            Shape::Duration,
            "30s",
            "how long an append may take, repetitions included",
        ),
        Field::with_default(
            "transaction_timeout",
            Shape::Duration,
            "15s",
            "how long the cluster waits for a transaction of a process that died",
        ),
        Field::with_default("request_timeout", Shape::Duration, "10s", "how long any other call may take"),
        Field::with_default(
            "record_bytes_max",
            Shape::Size,
            "16MiB",
            "the largest record ever appended, whatever its topic allows",
        ),
        Field::with_default(
            "broker_address_family",
            Shape::Choice(FAMILIES),
            "any",
            "the addresses used when a broker's name has several kinds",
        ),
    ],
};

/// The settings, parsed.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) bootstrap: String,
    pub(crate) tls: Option<Tls>,
    pub(crate) sasl: Option<Sasl>,
    pub(crate) client_id: String,
    pub(crate) group_prefix: String,
    pub(crate) group_instance_id: Option<String>,
    pub(crate) session_timeout: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) max_poll_interval: Duration,
    pub(crate) compression: String,
    pub(crate) linger: Duration,
    pub(crate) delivery_timeout: Duration,
    pub(crate) transaction_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) record_bytes_max: u64,
    pub(crate) address_family: String,
}

/// How connections are encrypted.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub ca_file: Option<PathBuf>,
    pub certificate: Option<Certificate>,
}

impl Tls {
    /// Its files with the keys they are given by.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let certificate = self.certificate.iter();
        let pair = certificate.flat_map(|one| [("cert_file", &one.cert_file), ("key_file", &one.key_file)]);
        self.ca_file.iter().map(|path| ("ca_file", path)).chain(pair)
    }
}

/// Who we are to a broker that asks for certificates.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    pub key_password: Option<SecretSource>,
}

/// How we log in.
#[derive(Clone, Debug)]
pub(crate) struct Sasl {
    pub mechanism: String,
    pub username: String,
    pub password: SecretSource,
}

impl Options {
    /// The topic of that name which Millrace keeps for itself, beside its consumer groups.
    pub fn own_topic(&self, name: &str) -> String {
        format!("{}{name}", self.group_prefix)
    }

    /// Reads checked settings. None when a problem was added, or had been reported by the check.
    pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        let mut reader = Reader { settings, problems, sound: true };
        let security = reader.text("security", "plaintext");
        let tls = reader.tls(security.ends_with("tls"));
        let sasl = reader.sasl(security.starts_with("sasl"));
        let options = Options {
            bootstrap: reader.bootstrap()?,
            tls,
            sasl,
            client_id: reader.text("client_id", "millrace"),
            group_prefix: reader.text("group_prefix", "millrace."),
            group_instance_id: settings.text("group_instance_id").map(str::to_owned),
            session_timeout: reader.span("session_timeout", 45_000, 1_000),
            heartbeat: reader.heartbeat(),
            max_poll_interval: reader.span("max_poll_interval", 300_000, 1_000),
            compression: reader.text("compression", "none"),
            linger: reader.linger(),
            delivery_timeout: reader.span("delivery_timeout", 30_000, 100),
            transaction_timeout: reader.transaction_timeout(),
            request_timeout: reader.span("request_timeout", 10_000, 100),
            record_bytes_max: reader.record_bytes_max(),
            address_family: reader.text("broker_address_family", "any"),
        };
        if options.heartbeat * 3 > options.session_timeout {
            reader.wrong("heartbeat", "must be at most a third of 'session_timeout'");
        }
        if options.max_poll_interval < options.session_timeout {
            reader.wrong("max_poll_interval", "must be at least 'session_timeout'");
        }
        reader.sound.then_some(options)
    }

    /// How long a partition that is taken away waits for its pipeline: less than half of the time after which the
    /// cluster gives it to another process without asking.
    pub fn handover(&self) -> Duration {
        self.session_timeout.min(self.max_poll_interval) * 9 / 20
    }
}

struct Reader<'a> {
    settings: &'a Settings,
    problems: &'a mut Problems,
    sound: bool,
}

impl Reader<'_> {
    fn wrong(&mut self, key: &str, what: &str) {
        self.sound = false;
        self.problems.add(self.settings.at_key(key), &self.settings.path_of(key), what);
    }

    fn given(&self, key: &str) -> bool {
        self.settings.node(key).is_some()
    }

    fn text(&self, key: &str, default: &str) -> String {
        self.settings.text(key).unwrap_or(default).to_owned()
    }

    /// The brokers' addresses, or none with a problem.
    fn bootstrap(&mut self) -> Option<String> {
        let text = self.settings.text("bootstrap")?;
        let (mut addresses, mut wrong) = (Vec::new(), None);
        for address in text.split(',').map(str::trim) {
            match address.rsplit_once(':') {
                _ if address.contains("://") || address.contains('@') => {
                    wrong = Some("is a list of 'host:port', not of URLs");
                }
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
                    addresses.push(address);
                }
                _ => wrong = Some("must be 'host:port', or several separated by commas"),
            }
        }
        match wrong {
            Some(what) => {
                self.wrong("bootstrap", what);
                None
            }
            None => Some(addresses.join(",")),
        }
    }

    fn span(&mut self, key: &str, default_ms: u64, min_ms: u64) -> Duration {
        let span = self.settings.duration(key).unwrap_or(Duration::from_millis(default_ms));
        if span < Duration::from_millis(min_ms) || span > SPAN_MAX {
            self.wrong(key, &format!("must be from {min_ms}ms to 1d"));
        }
        span
    }

    /// As the table says, or a third of a session that is shorter than three of these. A rebalance waits for the
    /// next heartbeat of every member.
    fn heartbeat(&mut self) -> Duration {
        if self.given("heartbeat") {
            return self.span("heartbeat", 3_000, 100);
        }
        let third = self.settings.duration("session_timeout").map(|session| session / 3);
        third.unwrap_or(Duration::MAX).min(Duration::from_secs(3))
    }

    fn linger(&mut self) -> Duration {
        let linger = self.settings.duration("linger").unwrap_or(Duration::from_millis(5));
        if linger > Duration::from_secs(10) {
            self.wrong("linger", "must be at most 10s");
        }
        linger
    }

    fn transaction_timeout(&mut self) -> Duration {
        let span = self.settings.duration("transaction_timeout").unwrap_or(Duration::from_secs(15));
        // Kafka itself allows no more unless it is told to.
        if span < Duration::from_secs(1) || span > Duration::from_secs(900) {
            self.wrong("transaction_timeout", "must be from 1s to 15m");
        }
        span
    }

    fn record_bytes_max(&mut self) -> u64 {
        let bytes = self.settings.size("record_bytes_max").unwrap_or(16 << 20);
        if !(1_024..=RECORD_BYTES_LIMIT).contains(&bytes) {
            self.wrong("record_bytes_max", "must be from 1KiB to 900MiB");
        }
        bytes
    }

    fn tls(&mut self, wanted: bool) -> Option<Tls> {
        if !wanted {
            for key in ["ca_file", "cert_file", "key_file", "key_password", "key_password_file"] {
                if self.given(key) {
                    self.wrong(key, "needs 'security: tls' or 'security: sasl_tls'");
                }
            }
            return None;
        }
        Some(Tls { ca_file: self.settings.file("ca_file"), certificate: self.certificate() })
    }

    fn certificate(&mut self) -> Option<Certificate> {
        let key_password = self.secret("key_password");
        match (self.settings.file("cert_file"), self.settings.file("key_file")) {
            (Some(cert_file), Some(key_file)) => Some(Certificate { cert_file, key_file, key_password }),
            (Some(_), None) => {
                self.wrong("cert_file", "needs 'key_file'");
                None
            }
            (None, Some(_)) => {
                self.wrong("key_file", "needs 'cert_file'");
                None
            }
            (None, None) => {
                if key_password.is_some() {
                    self.wrong("key_password", "needs 'key_file'");
                }
                None
            }
        }
    }

    fn sasl(&mut self, wanted: bool) -> Option<Sasl> {
        if !wanted {
            for key in ["sasl_mechanism", "username", "password", "password_file"] {
                if self.given(key) {
                    self.wrong(key, "needs 'security: sasl_tls' or 'security: sasl_plaintext'");
                }
            }
            return None;
        }
        let username = self.settings.text("username").map(str::to_owned);
        let password = self.secret("password");
        if username.is_none() {
            self.wrong("username", "is missing: this 'security' logs in");
        }
        if password.is_none() {
            self.wrong("password", "is missing: give 'password' or 'password_file'");
        }
        Some(Sasl {
            mechanism: self.text("sasl_mechanism", "SCRAM-SHA-256"),
            username: username?,
            password: password?,
        })
    }

    fn secret(&mut self, key: &str) -> Option<SecretSource> {
        let file = format!("{key}_file");
        if self.given(key) && self.given(&file) {
            self.wrong(&file, &format!("cannot be given together with '{key}'"));
        }
        self.settings.secret(key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use millrace_core::settings::{Key, Location, Node, NodeKind, check_object};

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Options, Vec<String>> {
        let at = Location::default();
        let scalar = |text: &str| Node { at, kind: NodeKind::Scalar { text: text.into(), plain: true } };
        let entries =
            pairs.iter().map(|(key, value)| (Key { at, text: (*key).into() }, scalar(value))).collect();
        let node = Node { at, kind: NodeKind::Map(entries) };
        let mut problems = Problems::default();
        check_object(&node, KAFKA.settings, "brokers.main", &mut problems);
        let options = Options::read(&Settings::new(node, "brokers.main"), &mut problems);
        let problems: Vec<String> =
            problems.into_sorted().into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
        assert_eq!(options.is_none(), !problems.is_empty(), "{problems:?}");
        options.ok_or(problems)
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let options = read(&[("bootstrap", "a:9092, b:9093")]).unwrap();
        assert_eq!(options.bootstrap, "a:9092,b:9093");
        assert!(options.tls.is_none() && options.sasl.is_none());
        let given: Vec<(&str, &str)> = KAFKA
            .settings
            .fields
            .iter()
            .filter(|field| field.key != "sasl_mechanism")
            .filter_map(|field| Some((field.key, field.default?)))
            .chain([("bootstrap", "a:9092,b:9093")])
            .collect();
        assert_eq!(format!("{options:?}"), format!("{:?}", read(&given).unwrap()));
    }

    /// The reference has a line for each key, with its default.
    #[test]
    fn the_reference_is_complete() {
        let reference = include_str!("../../../docs/reference/kafka.md");
        for field in KAFKA.settings.fields {
            let line = reference.lines().find(|line| {
                line.starts_with('|') && line.split('|').nth(1).unwrap().contains(&format!("`{}`", field.key))
            });
            let line = line.unwrap_or_else(|| unreachable!("the reference lacks '{}'", field.key));
            let default = field.default.map(|default| format!("`{default}`"));
            let told = line.split('|').nth(2).unwrap().trim();
            assert!(default.is_none_or(|default| told == default), "'{}': {told}", field.key);
            assert_eq!(field.required, told == "required", "'{}': {told}", field.key);
        }
    }

    #[test]
    fn a_shorter_session_has_a_shorter_heartbeat() {
        let options = read(&[("bootstrap", "a:1"), ("session_timeout", "6s")]).unwrap();
        assert_eq!(options.heartbeat, Duration::from_secs(2));
    }

    #[test]
    fn security_brings_what_it_needs() {
        let options = read(&[
            ("bootstrap", "a:9092"),
            ("security", "sasl_tls"),
            ("sasl_mechanism", "SCRAM-SHA-512"),
            ("username", "u"),
            ("password", "sesame"),
            ("ca_file", "ca.pem"),
            ("cert_file", "c.pem"),
            ("key_file", "k.pem"),
            ("key_password_file", "kp"),
        ])
        .unwrap();
        assert_eq!(options.sasl.as_ref().unwrap().mechanism, "SCRAM-SHA-512");
        assert!(options.tls.as_ref().unwrap().certificate.as_ref().unwrap().key_password.is_some());
        assert!(!format!("{options:?}").contains("sesame"));
    }

    #[test]
    fn mistakes_are_named() {
        let cases: [(&[(&str, &str)], &str); 16] = [
            (&[], "brokers.main: 'bootstrap' is missing"),
            (&[("bootstrap", "kafka")], "bootstrap: must be 'host:port'"),
            (&[("bootstrap", "a:1,,b:2")], "bootstrap: must be 'host:port'"),
            (&[("bootstrap", "kafka://a:1")], "bootstrap: is a list of 'host:port', not of URLs"),
            (&[("bootstrap", "a:1"), ("username", "u")], "username: needs 'security: sasl_tls'"),
            (&[("bootstrap", "a:1"), ("ca_file", "c")], "ca_file: needs 'security: tls'"),
            (
                &[("bootstrap", "a:1"), ("security", "sasl_tls"), ("password", "p")],
                "username: is missing: this 'security' logs in",
            ),
            (
                &[("bootstrap", "a:1"), ("security", "sasl_tls"), ("username", "u")],
                "password: is missing: give 'password' or 'password_file'",
            ),
            (&[("bootstrap", "a:1"), ("security", "tls"), ("cert_file", "c")], "cert_file: needs 'key_file'"),
            (&[("bootstrap", "a:1"), ("security", "tls"), ("key_file", "k")], "key_file: needs 'cert_file'"),
            (&[("bootstrap", "a:1"), ("heartbeat", "16s")], "heartbeat: must be at most a third"),
            (&[("bootstrap", "a:1"), ("session_timeout", "10ms")], "session_timeout: must be from 1000ms"),
            (&[("bootstrap", "a:1"), ("max_poll_interval", "20s")], "max_poll_interval: must be at least"),
            (&[("bootstrap", "a:1"), ("record_bytes_max", "1GiB")], "record_bytes_max: must be from 1KiB"),
            (
                &[("bootstrap", "a:1"), ("transaction_timeout", "1h")],
                "transaction_timeout: must be from 1s to 15m",
            ),
            (&[("bootstrap", "a:1"), ("linger", "1m")], "linger: must be at most 10s"),
        ];
        for (pairs, expected) in cases {
            let problems = read(pairs).unwrap_err();
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:?}");
        }
    }
}
