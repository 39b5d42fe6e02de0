//! One error type for the contracts: a class for the machine, who and why for people, the source kept in the chain.

use std::{error::Error as StdError, fmt};

/// What the caller may do about an error. The runtime acts on this and on nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The same call may succeed later: a time-out, an unreachable server, a full queue.
    Retry,
    /// This input will never succeed: the record belongs in the dead letters.
    Reject,
    /// No input will succeed until somebody acts: bad credentials, a missing topic, a broken module.
    Fatal,
}

impl Class {
    /// The name used in logs, metrics and dead-letter headers.
    pub fn name(self) -> &'static str {
        match self {
            Class::Retry => "retry",
            Class::Reject => "reject",
            Class::Fatal => "fatal",
        }
    }
}

/// The result of a contract's call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error at a contract: its class, who failed, why, and the cause underneath.
///
/// `Display` prints `who: why`; the cause is reached through [`std::error::Error::source`] and printed by
/// [`Error::chain`].
#[derive(Debug)]
pub struct Error {
    class: Class,
    who: String,
    why: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    is_missing_topic: bool,
}

impl Error {
    /// An error of `class`. `who` names the part ("redis feeds"), `why` is a lowercase fragment.
    pub fn new(class: Class, who: impl Into<String>, why: impl Into<String>) -> Self {
        Error { class, who: who.into(), why: why.into(), source: None, is_missing_topic: false }
    }

    /// An error that may pass: see [`Class::Retry`].
    pub fn retry(who: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Class::Retry, who, why)
    }

    /// An error of this input: see [`Class::Reject`].
    pub fn reject(who: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Class::Reject, who, why)
    }

    /// An error that needs a person: see [`Class::Fatal`].
    pub fn fatal(who: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Class::Fatal, who, why)
    }

    /// The error of a topic that is not there, Fatal: somebody must create it.
    pub fn missing_topic(who: impl Into<String>, topic: &str) -> Self {
        let why = format!("topic '{topic}' does not exist; create it with 'millrace topic create {topic}'");
        Error { is_missing_topic: true, ..Self::fatal(who, why) }
    }

    /// The same error for one more call that failed with it. The cause is kept as text.
    #[must_use]
    pub fn again(&self) -> Self {
        let copy = Self::new(self.class, &*self.who, &*self.why);
        let copy = Error { is_missing_topic: self.is_missing_topic, ..copy };
        match &self.source {
            Some(cause) => copy.with_source(cause.to_string()),
            None => copy,
        }
    }

    /// Keeps the cause in the chain.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What may be done about it.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Whether a topic is not there.
    pub fn is_missing_topic(&self) -> bool {
        self.is_missing_topic
    }

    /// The part that failed.
    pub fn who(&self) -> &str {
        &self.who
    }

    /// Why it failed, without the cause.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// The whole chain on one line, outermost first, bounded to 2,000 bytes.
    pub fn chain(&self) -> String {
        const CHAIN_BYTES_MAX: usize = 2_000;
        let mut line = self.to_string();
        let mut next = StdError::source(self);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some libraries repeat their cause in their own message.
            if !line.ends_with(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            next = cause.source();
        }
        if line.len() > CHAIN_BYTES_MAX {
            line.truncate(line.floor_char_boundary(CHAIN_BYTES_MAX));
            line.push('…');
        }
        line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.who, self.why)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_prints_each_cause_once() {
        let inner = Error::retry("socket", "connection refused");
        let outer = Error::retry("redis feeds", "cannot connect").with_source(inner);
        assert_eq!(outer.chain(), "redis feeds: cannot connect: socket: connection refused");
    }

    #[test]
    fn the_same_error_again_keeps_all_that_is_acted_on() {
        let error = Error::missing_topic("kafka main", "t").with_source("no answer");
        let again = error.again();
        assert_eq!((again.class(), again.chain()), (error.class(), error.chain()));
        assert!(again.is_missing_topic());
    }

    #[test]
    fn chain_is_bounded() {
        let long = Error::reject("a", "é".repeat(5_000));
        assert!(long.chain().len() < 2_010);
    }
}
