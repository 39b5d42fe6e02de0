//! What an error answer means: its class, and a reason that names the mistake without the value that made it.

use millrace_core::{Class, Error};
use serde::Deserialize;

/// A reason is quoted up to this many bytes.
const REASON_BYTES_MAX: usize = 300;

/// From here on the server quotes what stood in the document.
const QUOTES: [&str; 2] = [" Preview of field's value", " The prefix of the first immense term"];

/// Why one item or a whole request failed, in the server's words.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Cause {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// Why a whole request failed, apart from what it carried.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// By its class.
    Failed(Error),
    /// The request is larger than the server accepts: the same work in smaller requests may pass.
    TooLarge,
    /// The server does not accept something in it: the same work in smaller requests finds out what.
    Refused(String),
}

/// One error for many items: the first one takes it with its cause, the others take its words.
pub(crate) struct Shared {
    class: Class,
    who: String,
    why: String,
    original: Option<Error>,
}

#[derive(Deserialize)]
struct ErrorBody<'a> {
    #[serde(borrow)]
    error: &'a serde_json::value::RawValue,
}

impl Cause {
    /// The cause in the body of an error answer; empty when the body is none of Elasticsearch's.
    pub(crate) fn of_body(body: &[u8]) -> Self {
        let Ok(ErrorBody { error }) = serde_json::from_slice(body) else { return Cause::default() };
        serde_json::from_str(error.get())
            .unwrap_or_else(|_| Cause { kind: String::new(), reason: serde_json::from_str(error.get()).ok() })
    }

    /// For people: type and reason on one line, bounded.
    pub(crate) fn text(&self, status: u16) -> String {
        let reason = self.reason.as_deref().unwrap_or_default();
        let end = QUOTES.iter().filter_map(|quote| reason.find(quote)).min().unwrap_or(reason.len());
        let end = reason.floor_char_boundary(end.min(REASON_BYTES_MAX));
        let reason: String = reason[..end].chars().filter(|c| !c.is_control()).collect();
        match (self.kind.is_empty(), reason.is_empty()) {
            (true, true) => format!("status {status}"),
            (true, false) => format!("status {status}: {reason}"),
            (false, true) => self.kind.clone(),
            (false, false) => format!("{}: {reason}", self.kind),
        }
    }

    /// What may be done about it. The type decides before the status: a missing index or a closed one is no
    /// fault of the document, and an index that is blocked for writes comes back.
    pub(crate) fn class(&self, status: u16) -> Class {
        match (self.kind.as_str(), status) {
            ("cluster_block_exception", _) => Class::Retry,
            ("index_not_found_exception" | "index_closed_exception" | "security_exception", _) => {
                Class::Fatal
            }
            (_, 408 | 425 | 429 | 500..) => Class::Retry,
            (_, 401 | 403 | 404) => Class::Fatal,
            _ => Class::Reject,
        }
    }

    /// The error of one item of a request that was accepted as a whole.
    pub(crate) fn item_error(&self, who: &str, status: u16) -> Error {
        Error::new(self.class(status), who, self.text(status))
    }

    /// What became of a request that was not accepted.
    pub(crate) fn trouble(&self, who: &str, status: u16) -> Trouble {
        match (status, self.class(status)) {
            (413, _) => Trouble::TooLarge,
            (_, Class::Reject) if status >= 400 => Trouble::Refused(self.text(status)),
            (401, _) => {
                Trouble::Failed(Error::fatal(who, format!("refuses the credentials: {}", self.text(status))))
            }
            // Not the API we speak: a proxy, a portal, a redirect.
            (_, Class::Reject) => Trouble::Failed(Error::fatal(
                who,
                format!("answers with status {status}, is it Elasticsearch?"),
            )),
            (_, class) => Trouble::Failed(Error::new(class, who, self.text(status))),
        }
    }
}

impl Trouble {
    /// As an error, for requests that cannot be made smaller; `refused` says what a refusal means.
    pub(crate) fn into_error(self, who: &str, refused: Class) -> Error {
        match self {
            Trouble::Failed(error) => error,
            Trouble::TooLarge => Error::new(refused, who, "too large for one request"),
            Trouble::Refused(why) => Error::new(refused, who, why),
        }
    }
}

impl Shared {
    pub(crate) fn of(error: Error) -> Self {
        let (who, why) = (error.who().to_owned(), error.why().to_owned());
        Shared { class: error.class(), who, why, original: Some(error) }
    }

    /// For the next item that failed.
    pub(crate) fn next(&mut self) -> Error {
        self.original.take().unwrap_or_else(|| Error::new(self.class, self.who.as_str(), self.why.as_str()))
    }

    /// For an item that was not tried after the failure. It is not at fault, so it is never rejected.
    pub(crate) fn not_tried(&self) -> Error {
        let class = if self.class == Class::Reject { Class::Retry } else { self.class };
        Error::new(class, self.who.as_str(), format!("not tried after a failure: {}", self.why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(kind: &str, reason: &str) -> Cause {
        Cause { kind: kind.into(), reason: Some(reason.into()) }
    }

    #[test]
    fn the_value_is_not_quoted() {
        let misfit = cause(
            "document_parsing_exception",
            "[1:6] failed to parse field [n] of type [long] in document with id 'b'. Preview of field's value: 'secret'",
        );
        let text = misfit.text(400);
        assert!(text.ends_with("of type [long] in document with id 'b'."), "{text}");
        assert_eq!(cause("", &"é".repeat(400)).text(400).len(), "status 400: ".len() + 300);
    }

    #[test]
    fn the_type_decides_before_the_status() {
        let class = |kind: &str, status| cause(kind, "").class(status);
        assert_eq!(class("document_parsing_exception", 400), Class::Reject);
        assert_eq!(class("es_rejected_execution_exception", 429), Class::Retry);
        assert_eq!(class("unavailable_shards_exception", 503), Class::Retry);
        assert_eq!(class("cluster_block_exception", 403), Class::Retry);
        assert_eq!(class("index_not_found_exception", 404), Class::Fatal);
        assert_eq!(class("index_closed_exception", 400), Class::Fatal);
        assert_eq!(class("security_exception", 403), Class::Fatal);
    }

    #[test]
    fn any_body_is_understood_or_ignored() {
        let body = br#"{"error":{"root_cause":[],"type":"t","reason":"r"},"status":400}"#;
        assert_eq!(Cause::of_body(body).text(400), "t: r");
        assert_eq!(Cause::of_body(br#"{"error":"plain words"}"#).text(405), "status 405: plain words");
        assert_eq!(Cause::of_body(b"<html>").text(502), "status 502");
        assert!(
            matches!(Cause::of_body(b"").trouble("es", 302), Trouble::Failed(e) if e.class() == Class::Fatal)
        );
        assert!(matches!(Cause::of_body(b"").trouble("es", 413), Trouble::TooLarge));
        assert!(matches!(Cause::of_body(b"").trouble("es", 400), Trouble::Refused(_)));
        assert!(
            matches!(Cause::of_body(b"").trouble("es", 401), Trouble::Failed(e) if e.class() == Class::Fatal)
        );
    }
}
