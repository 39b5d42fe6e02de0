//! The settings of an Elasticsearch store: where it is, who we are, and how much we send at once.

use std::path::PathBuf;

use millrace_core::{
    StoreKind,
    settings::{Field, Kind, Object, Problems, SecretSource, Settings, Shape},
};
use tokio::time::Duration;
use url::Url;

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
const BULK_BYTES_DEFAULT: u64 = 8 << 20;
const BULK_BYTES_MIN: u64 = 64 << 10;
/// What the server accepts in one request unless it is configured otherwise.
const BULK_BYTES_LIMIT: u64 = 100 << 20;

/// `elasticsearch:` in YAML.
pub static ELASTICSEARCH: StoreKind = StoreKind {
    kind: Kind { name: "elasticsearch", settings: &SETTINGS },
    views: &["index"],
    lookup: false,
    ledger: false,
};

static SETTINGS: Object = Object {
    name: "elasticsearch",
    doc: "An Elasticsearch cluster, version 8 or later, for search indexes.",
    fields: &[
        Field::required("url", Shape::Text, "where it is, as 'https://search.example:9200'"),
        Field::optional("username", Shape::Text, "the user; its password is given beside it"),
        Field::optional("password", Shape::Secret, "the user's password"),
        Field::optional("password_file", Shape::Path, "a file that holds the user's password"),
        Field::optional("api_key", Shape::Secret, "an API key in its encoded form, instead of a user"),
        Field::optional("api_key_file", Shape::Path, "a file that holds the API key"),
        Field::optional("ca_file", Shape::Path, "certificates (PEM) of the authorities to trust as well"),
        Field::with_default("timeout", Shape::Duration, "10s", "how long one request may take"),
        Field::with_default(
            "bulk_bytes_max",
            Shape::Size,
            "8MiB",
            "how much one bulk request holds; a larger document travels alone",
        ),
    ],
};

/// The settings, parsed.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) url: Url,
    pub(crate) login: Option<Login>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) timeout: Duration,
    pub(crate) bulk_bytes_max: usize,
}

/// Who we are.
#[derive(Clone, Debug)]
pub(crate) enum Login {
    User { username: String, password: SecretSource },
    ApiKey(SecretSource),
}

impl Options {
    /// Reads checked settings. None when a problem was added, or had been reported by the check.
    pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        let url = url(settings, problems);
        let login = login(settings, problems);
        let timeout = settings.duration("timeout").unwrap_or(TIMEOUT_DEFAULT);
        let timeout_fits = !timeout.is_zero() && timeout <= TIMEOUT_MAX;
        if !timeout_fits {
            wrong(settings, problems, "timeout", "must be from 1ms to 10m");
        }
        let bulk_bytes = settings.size("bulk_bytes_max").unwrap_or(BULK_BYTES_DEFAULT);
        let bulk_fits = (BULK_BYTES_MIN..=BULK_BYTES_LIMIT).contains(&bulk_bytes);
        if !bulk_fits {
            wrong(settings, problems, "bulk_bytes_max", "must be from 64KiB to 100MiB");
        }
        let options = Options {
            url: url?,
            login: login?,
            ca_file: settings.file("ca_file"),
            timeout,
            bulk_bytes_max: usize::try_from(bulk_bytes).ok()?,
        };
        (timeout_fits && bulk_fits).then_some(options)
    }
}

fn url(settings: &Settings, problems: &mut Problems) -> Option<Url> {
    let text = settings.text("url")?;
    let Ok(url) = Url::parse(text) else {
        wrong(settings, problems, "url", "is not a URL; write it as 'https://search.example:9200'");
        return None;
    };
    let mistake = if !matches!(url.scheme(), "http" | "https") {
        "must begin with https:// or http://"
    } else if !url.username().is_empty() || url.password().is_some() {
        "holds credentials, which would end up in logs; use 'username' and 'password'"
    } else if url.query().is_some() || url.fragment().is_some() {
        "must end with the path"
    } else {
        return Some(url);
    };
    wrong(settings, problems, "url", mistake);
    None
}

/// None when there was a problem; none inside when nobody logs in.
fn login(settings: &Settings, problems: &mut Problems) -> Option<Option<Login>> {
    let given = |key: &str| settings.node(key).is_some();
    for secret in ["password", "api_key"] {
        let file = format!("{secret}_file");
        if given(secret) && given(&file) {
            wrong(settings, problems, &file, &format!("cannot be given together with '{secret}'"));
            return None;
        }
    }
    let password = settings.secret("password");
    match (settings.text("username"), password, settings.secret("api_key")) {
        (None, None, None) => Some(None),
        (None, None, Some(key)) => Some(Some(Login::ApiKey(key))),
        (Some(username), Some(password), None) => {
            Some(Some(Login::User { username: username.to_owned(), password }))
        }
        (Some(_), None, None) => {
            wrong(settings, problems, "username", "needs 'password' or 'password_file'");
            None
        }
        (None, Some(_), _) => {
            let key = if given("password") { "password" } else { "password_file" };
            wrong(settings, problems, key, "needs 'username'");
            None
        }
        (Some(_), _, Some(_)) => {
            wrong(settings, problems, "username", "cannot be given together with an API key");
            None
        }
    }
}

fn wrong(settings: &Settings, problems: &mut Problems, key: &str, what: &str) {
    problems.add(settings.at_key(key), &settings.path_of(key), what);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use millrace_core::settings::{Key, Location, Node, NodeKind};

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Options, Vec<String>> {
        let at = Location::default();
        let scalar = |text: &str| Node { at, kind: NodeKind::Scalar { text: text.into(), plain: true } };
        let entries =
            pairs.iter().map(|(key, value)| (Key { at, text: (*key).into() }, scalar(value))).collect();
        let mut problems = Problems::default();
        let settings = Settings::new(Node { at, kind: NodeKind::Map(entries) }, "stores.search");
        let options = Options::read(&settings, &mut problems);
        options.ok_or_else(|| {
            problems.into_sorted().into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect()
        })
    }

    #[test]
    fn defaults_and_both_ways_to_log_in() {
        let plain = read(&[("url", "http://localhost:9200")]).unwrap();
        assert_eq!((plain.timeout, plain.bulk_bytes_max), (TIMEOUT_DEFAULT, 8 << 20));
        assert!(plain.login.is_none());
        let user = read(&[("url", "https://a"), ("username", "u"), ("password", "sesame")]).unwrap();
        assert!(matches!(&user.login, Some(Login::User { username, .. }) if username == "u"));
        assert!(!format!("{user:?}").contains("sesame"));
        let key = read(&[("url", "https://a/base"), ("api_key_file", "key")]).unwrap();
        assert!(matches!(key.login, Some(Login::ApiKey(SecretSource::File(_)))));
    }

    #[test]
    fn mistakes_are_named() {
        let wrong: [(&[(&str, &str)], &str); 9] = [
            (&[("url", "search:9200")], "stores.search.url: must begin with https:// or http://"),
            (&[("url", "nothing")], "stores.search.url: is not a URL"),
            (&[("url", "https://u:p@a")], "stores.search.url: holds credentials"),
            (&[("url", "https://a?x=1")], "stores.search.url: must end with the path"),
            (&[("url", "https://a"), ("username", "u")], "stores.search.username: needs 'password'"),
            (&[("url", "https://a"), ("password", "p")], "stores.search.password: needs 'username'"),
            (
                &[("url", "https://a"), ("username", "u"), ("password", "p"), ("api_key", "k")],
                "stores.search.username: cannot be given together with an API key",
            ),
            (&[("url", "https://a"), ("timeout", "0s")], "stores.search.timeout: must be from 1ms to 10m"),
            (
                &[("url", "https://a"), ("bulk_bytes_max", "1GiB")],
                "stores.search.bulk_bytes_max: must be from",
            ),
        ];
        for (pairs, expected) in wrong {
            let problems = read(pairs).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].starts_with(expected), "{problems:?}");
            assert!(!problems[0].contains("u:p"), "{problems:?}");
        }
    }
}
