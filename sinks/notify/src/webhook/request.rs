//! One request: signed, bounded in time and in what is read of the answer, never redirected, never by a proxy.

use std::{error::Error as StdError, sync::Arc};

use bytes::Bytes;
use millrace_core::{Class, Error, Result, settings::Secret};
use reqwest::{
    Client, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect::Policy,
};
use url::{Host, Url};

use super::{Clock, settings::Options, signature::sign};
use crate::{
    guard::{GuardedResolver, Refused, ResolveError},
    once::Sent,
};

/// As much of an answer is read, to use its connection again; its content means nothing.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

const SIGNATURE: &str = "millrace-signature";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Posts to one URL.
pub(super) struct Poster {
    who: String,
    url: Url,
    client: Client,
    resolver: GuardedResolver,
    headers: HeaderMap,
    secret: Secret,
    clock: Clock,
}

impl Poster {
    /// Reads the secret; connects to nothing.
    pub(super) fn open(who: &str, options: &Options, clock: Clock) -> Result<Self> {
        let secret = options.secret.load()?;
        if secret.expose().is_empty() {
            return Err(Error::fatal(who, "the secret is empty"));
        }
        let resolver = GuardedResolver::new(options.allowed.clone());
        let client = Client::builder()
            .https_only(!options.allow_http)
            .redirect(Policy::none())
            .no_proxy()
            .gzip(false)
            .dns_resolver(Arc::new(resolver.clone()))
            .timeout(options.timeout)
            .pool_max_idle_per_host(options.concurrency as usize)
            .user_agent(concat!("millrace/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::fatal(who, "cannot set up the connection").with_source(error))?;
        let mut headers = options.headers.clone();
        headers.entry(CONTENT_TYPE).or_insert(JSON);
        Ok(Poster { who: who.to_owned(), url: options.url.clone(), client, resolver, headers, secret, clock })
    }

    /// Whether the destination may be reached.
    ///
    /// # Errors
    /// Fatal when its name leads to addresses that are refused, Retry when it cannot be resolved.
    pub(super) async fn check_destination(&self) -> Result<()> {
        // An address was checked with the settings.
        let Some(Host::Domain(name)) = self.url.host() else { return Ok(()) };
        match self.resolver.addresses(name).await {
            Ok(_) => Ok(()),
            Err(error @ ResolveError::Refused(_)) => {
                Err(Error::fatal(&self.who, "the receiver's address is refused").with_source(error))
            }
            Err(error) => {
                Err(Error::retry(&self.who, "the receiver's name cannot be resolved").with_source(error))
            }
        }
    }

    /// Posts a body once.
    pub(super) async fn post(&self, idempotency_key: &str, body: Bytes) -> Sent {
        let unix_s = (self.clock)().div_euclid(1_000);
        let request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(SIGNATURE, sign(&self.secret, unix_s, &body))
            .header(IDEMPOTENCY_KEY, idempotency_key)
            .body(body);
        match request.send().await {
            Ok(answer) => {
                let status = answer.status();
                drain(answer).await;
                self.answered(status)
            }
            Err(error) => self.unanswered(error),
        }
    }

    fn answered(&self, status: StatusCode) -> Sent {
        let class = match status.as_u16() {
            200..300 => return Sent::Accepted,
            408 | 425 | 429 | 500.. => Class::Retry,
            _ => Class::Reject,
        };
        let what = if status.is_redirection() { ", and redirects are not followed" } else { "" };
        Sent::Refused(Error::new(
            class,
            &self.who,
            format!("the receiver answers with status {}{what}", status.as_u16()),
        ))
    }

    /// The URL is often a secret, so it is taken out of the cause.
    fn unanswered(&self, error: reqwest::Error) -> Sent {
        if is_refused(&error) {
            let error =
                Error::fatal(&self.who, "the receiver's address is refused").with_source(error.without_url());
            return Sent::Refused(error);
        }
        if error.is_builder() {
            return Sent::Refused(
                Error::fatal(&self.who, "cannot make the request").with_source(error.without_url()),
            );
        }
        let (connecting, timeout) = (error.is_connect(), error.is_timeout());
        let why = match (connecting, timeout) {
            (true, _) => "the receiver cannot be reached",
            (false, true) => "the receiver does not answer in time",
            (false, false) => "the connection broke before the receiver answered",
        };
        let error = Error::retry(&self.who, why).with_source(error.without_url());
        if connecting { Sent::Refused(error) } else { Sent::Unknown(error) }
    }
}

/// Reads the answer's body, within bounds: past them the connection is dropped.
async fn drain(mut answer: reqwest::Response) {
    let mut bytes = 0;
    while let Ok(Some(chunk)) = answer.chunk().await {
        bytes += chunk.len();
        if bytes > ANSWER_BYTES_MAX {
            return;
        }
    }
}

fn is_refused(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.is::<Refused>() || matches!(cause.downcast_ref(), Some(ResolveError::Refused(_))) {
            return true;
        }
        next = cause.source();
    }
    false
}
