//! Requests to the cluster: raw bodies over the official client's transport, each with a time-out and a bound on
//! what it answers. Plain `application/json` and no compatibility header: each server from 8 on answers in its
//! own version, and only calls that all of them share are made.

use bytes::Bytes;
use elasticsearch::{
    auth::Credentials,
    cert::{Certificate, CertificateValidation},
    http::{
        Method,
        headers::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT},
        transport::{SingleNodeConnectionPool, Transport, TransportBuilder},
    },
};
use millrace_core::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Duration;

use crate::{
    failure::{Cause, Trouble},
    settings::{Login, Options},
};

/// The largest answer that is read, where the server says its length beforehand.
const REPLY_BYTES_MAX: u64 = 64 << 20;

/// A certificate file may hold this much.
const CA_BYTES_MAX: u64 = 1 << 20;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("millrace/", env!("CARGO_PKG_VERSION")));
/// An answer that is not compressed says its length beforehand, so that its size can be bounded.
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// A cluster. Connects at the first request; dropping a request cancels it.
pub(crate) struct Client {
    transport: Transport,
    who: String,
    timeout: Duration,
}

/// An answer of whatever status.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Client {
    /// Reads the secrets and certificates; no request is made.
    ///
    /// # Errors
    /// Fatal when a file cannot be read or used.
    pub(crate) fn open(who: String, options: &Options) -> Result<Self> {
        let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(options.url.clone()))
            .timeout(options.timeout)
            // Where a request goes must not depend on the environment.
            .disable_proxy()
            .enable_meta_header(false);
        match &options.login {
            None => {}
            Some(Login::User { username, password }) => {
                let password = password.load()?;
                builder = builder.auth(Credentials::Basic(username.clone(), password.expose().to_owned()));
            }
            Some(Login::ApiKey(key)) => {
                let key = checked_api_key(&who, key.load()?.expose())?;
                builder = builder.auth(Credentials::EncodedApiKey(key));
            }
        }
        if let Some(path) = &options.ca_file {
            let failed = |why: &str| Error::fatal(format!("{who}, certificate file {}", path.display()), why);
            let size = std::fs::metadata(path).map_err(|e| failed("cannot be read").with_source(e))?.len();
            if size > CA_BYTES_MAX {
                return Err(failed("is larger than 1 MiB"));
            }
            let pem = std::fs::read(path).map_err(|e| failed("cannot be read").with_source(e))?;
            let certificate =
                Certificate::from_pem(&pem).map_err(|e| failed("holds no PEM certificate").with_source(e))?;
            builder = builder.cert_validation(CertificateValidation::Full(certificate));
        }
        let transport = builder
            .build()
            .map_err(|error| Error::fatal(&who, "cannot set up the connection").with_source(error))?;
        Ok(Client { transport, who, timeout: options.timeout })
    }

    /// Who fails, in errors.
    pub(crate) fn who(&self) -> &str {
        &self.who
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Reply, Trouble> {
        self.call(Method::Get, path, JSON, None).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Reply, Trouble> {
        self.call(Method::Put, path, JSON, Some(body.to_string().into())).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Result<Reply, Trouble> {
        self.call(Method::Post, path, JSON, Some(body.into())).await
    }

    pub(crate) async fn post_lines(&self, path: &str, lines: Bytes) -> Result<Reply, Trouble> {
        self.call(Method::Post, path, NDJSON, Some(lines)).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: HeaderValue,
        body: Option<Bytes>,
    ) -> Result<Reply, Trouble> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(ACCEPT_ENCODING, IDENTITY);
        headers.insert(USER_AGENT, AGENT);
        let answer = self.transport.send(method, path, headers, None::<&()>, body, None).await;
        let answer = answer.map_err(|error| self.unreachable(error))?;
        let status = answer.status_code().as_u16();
        if answer.content_length().is_some_and(|bytes| bytes > REPLY_BYTES_MAX) {
            return Err(Trouble::TooLarge);
        }
        let body = answer.bytes().await.map_err(|error| self.unreachable(error))?;
        Ok(Reply { status, body })
    }

    fn unreachable(&self, error: elasticsearch::Error) -> Trouble {
        if is_distrust(&error) {
            let why = "the server's certificate is not trusted; see 'ca_file'";
            return Trouble::Failed(Error::fatal(&self.who, why).with_source(error));
        }
        let why = if error.is_timeout() {
            format!("no answer within {} ms", self.timeout.as_millis())
        } else {
            "cannot be reached".to_owned()
        };
        Trouble::Failed(Error::retry(&self.who, why).with_source(error))
    }
}

impl Reply {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The answer as JSON.
    ///
    /// # Errors
    /// What the status means; Retry when a success is not what was asked for.
    pub(crate) fn json<'a, T: Deserialize<'a>>(&'a self, who: &str) -> Result<T, Trouble> {
        if !self.is_success() {
            return Err(Cause::of_body(&self.body).trouble(who, self.status));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            Trouble::Failed(Error::retry(
                who,
                format!("an answer is not understood at column {}", error.column()),
            ))
        })
    }
}

/// Whether TLS refused the server. The transport hides the type of that cause, so its words must do.
fn is_distrust(error: &elasticsearch::Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if cause.to_string().contains("invalid peer certificate") {
            return true;
        }
        next = cause.source();
    }
    false
}

/// The transport takes for granted that a key can stand in a header.
fn checked_api_key(who: &str, key: &str) -> Result<String> {
    match HeaderValue::try_from(key) {
        Ok(_) if !key.is_empty() => Ok(key.to_owned()),
        _ => Err(Error::fatal(who, "the API key is empty or holds characters that no key has")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_key_that_is_none_is_refused_without_showing_it() {
        assert!(checked_api_key("es", "VnVhQ2ZHY0JDZGJrU==").is_ok());
        for key in ["", "two\nlines"] {
            let error = checked_api_key("es", key).map_err(|error| error.chain());
            assert!(error.is_err_and(|chain| !chain.contains("lines")), "{key}");
        }
    }
}
