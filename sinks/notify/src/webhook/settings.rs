//! The settings of a webhook.

use millrace_core::{
    Template,
    settings::{Field, Kind, Object, Problems, SecretSource, Settings, Shape},
};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Duration;
use url::{Host, Url};

use crate::guard::Allowed;

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
const CONCURRENCY_DEFAULT: u32 = 8;
const REMEMBER_DEFAULT: Duration = Duration::from_secs(30 * 86_400);

/// Headers that the sink or the protocol sets.
const OWN_HEADERS: [&str; 8] = [
    "millrace-signature",
    "idempotency-key",
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "expect",
    "upgrade",
];

/// `webhook:` in YAML.
pub static WEBHOOK: Kind = Kind { name: "webhook", settings: &SETTINGS };

static SETTINGS: Object = Object {
    name: "webhook",
    doc: "A signed HTTP POST of the message's value to one URL.",
    fields: &[
        Field::required("url", Shape::Text, "where to, as 'https://hooks.example/orders'"),
        Field::with_default("allow_http", Shape::Flag, "false", "whether the URL may begin with http://"),
        Field::optional("secret", Shape::Secret, "signs each request; this or 'secret_file' is needed"),
        Field::optional("secret_file", Shape::Path, "a file that holds the secret"),
        Field::optional(
            "headers",
            Shape::Map(&Shape::Secret),
            "more headers, by name; their values are not shown",
        ),
        Field::with_default("timeout", Shape::Duration, "10s", "how long one request may take"),
        Field::optional(
            "allow_private",
            Shape::List(&Shape::Text),
            "addresses, networks (10.1.0.0/16) and host names that are reached although they are not public",
        ),
        Field::optional(
            "key",
            Shape::Template,
            "what tells apart the requests of one event, as '{recipient}'; the body if not given",
        ),
        Field::optional(
            "ledger",
            Shape::Text,
            "the store that remembers what was sent, so that a redelivered event is not sent again",
        ),
        Field::with_default("remember", Shape::Duration, "30d", "with 'ledger': for how long"),
        Field::with_default(
            "concurrency",
            Shape::Integer { min: 1, max: 256 },
            "8",
            "how many requests run at the same time; with more than one they may arrive out of order",
        ),
    ],
};

/// The settings, parsed.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) url: Url,
    pub(super) allow_http: bool,
    pub(super) secret: SecretSource,
    pub(super) headers: HeaderMap,
    pub(super) timeout: Duration,
    pub(super) allowed: Allowed,
    pub(super) key: Option<Template>,
    pub(super) concurrency: u32,
    ledger: Option<String>,
    remember: Duration,
}

impl Options {
    /// Reads checked settings. None when a problem was added, or had been reported by the check.
    pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        let allowed = allowed(settings, problems);
        let allow_http = settings.flag("allow_http").unwrap_or(false);
        let url = allowed.as_ref().and_then(|allowed| url(settings, allow_http, allowed, problems));
        let headers = headers(settings, problems);
        let secret = secret(settings, problems);
        let timeout = settings.duration("timeout").unwrap_or(TIMEOUT_DEFAULT);
        if timeout.is_zero() || timeout > TIMEOUT_MAX {
            wrong(settings, problems, "timeout", "must be from 1ms to 10m");
            return None;
        }
        Some(Options {
            url: url?,
            allow_http,
            secret: secret?,
            headers: headers?,
            timeout,
            allowed: allowed?,
            key: settings.template("key"),
            concurrency: settings.count("concurrency").unwrap_or(CONCURRENCY_DEFAULT).clamp(1, 256),
            ledger: settings.text("ledger").map(str::to_owned),
            remember: settings.duration("remember").unwrap_or(REMEMBER_DEFAULT),
        })
    }

    /// The store that is to hold the ledger, and how long its entries live.
    pub fn ledger(&self) -> Option<(&str, Duration)> {
        self.ledger.as_deref().map(|store| (store, self.remember))
    }

    /// Whom it is for, without the path: that is often a secret.
    pub fn destination(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

fn url(settings: &Settings, allow_http: bool, allowed: &Allowed, problems: &mut Problems) -> Option<Url> {
    let text = settings.text("url")?;
    let mut refuse = |what: &str| {
        wrong(settings, problems, "url", what);
        None
    };
    let Ok(url) = Url::parse(text) else {
        return refuse("is not a URL; write it as 'https://hooks.example/orders'");
    };
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => return refuse("is not encrypted; use https://, or set 'allow_http: true'"),
        _ => return refuse("must begin with https://"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("holds credentials, which would end up in logs; use 'headers'");
    }
    let address = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.into()),
        Some(Host::Domain(_)) => None,
        None => return refuse("names no host"),
    };
    // A name is checked when it is resolved; an address never is.
    if let Some(Err(refused)) = address.map(|address| allowed.check(address)) {
        return refuse(&refused.to_string());
    }
    Some(url)
}

fn allowed(settings: &Settings, problems: &mut Problems) -> Option<Allowed> {
    let mut allowed = Allowed::default();
    let mut fits = true;
    for entry in settings.texts("allow_private") {
        if let Err(what) = allowed.add(&entry) {
            wrong(settings, problems, "allow_private", &format!("'{entry}' {what}"));
            fits = false;
        }
    }
    fits.then_some(allowed)
}

fn headers(settings: &Settings, problems: &mut Problems) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut fits = true;
    for (name, value) in settings.pairs("headers") {
        let parsed = (HeaderName::try_from(&name), HeaderValue::try_from(&value));
        let mistake = match parsed {
            (Ok(known), _) if OWN_HEADERS.contains(&known.as_str()) => "is set by the sink itself",
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.insert(name, value);
                continue;
            }
            (Err(_), _) => "is no name of a header",
            (_, Err(_)) => "has a value that cannot stand in a header",
        };
        wrong(settings, problems, "headers", &format!("'{name}' {mistake}"));
        fits = false;
    }
    fits.then_some(headers)
}

fn secret(settings: &Settings, problems: &mut Problems) -> Option<SecretSource> {
    if settings.node("secret").is_some() && settings.node("secret_file").is_some() {
        wrong(settings, problems, "secret_file", "cannot be given together with 'secret'");
        return None;
    }
    let secret = settings.secret("secret");
    if secret.is_none() {
        problems.suggest(
            settings.at(),
            settings.path(),
            "'secret' is missing",
            "secret: \"${WEBHOOK_SECRET}\", or secret_file: a file that holds it",
        );
    }
    secret
}

fn wrong(settings: &Settings, problems: &mut Problems, key: &str, what: &str) {
    problems.add(settings.at_key(key), &settings.path_of(key), what);
}

#[cfg(test)]
#[path = "settings/tests.rs"]
mod tests;
