//! What a failure of SQLite means for the caller: its class, and words for people.

use std::{error::Error as StdError, fmt, sync::Arc};

use millrace_core::{Class, Error};
use rusqlite::ErrorCode;

/// A failed transaction. One failure answers many requests, so it is cloned into their errors.
#[derive(Clone, Debug)]
pub struct Failure {
    class: Class,
    why: String,
    cause: Option<Cause>,
}

/// Keeps a shared cause in the chain of each error made of it.
#[derive(Clone, Debug)]
struct Cause(Arc<dyn StdError + Send + Sync>);

impl Failure {
    /// A failure that is not SQLite's own.
    pub fn new(class: Class, why: impl Into<String>) -> Self {
        Failure { class, why: why.into(), cause: None }
    }

    /// Keeps the cause in the chain.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.cause = Some(Cause(Arc::new(source)));
        self
    }

    /// The same, fatal where it is Reject: for work whose input was checked before.
    #[must_use]
    pub fn never_reject(mut self) -> Self {
        if self.class == Class::Reject {
            self.class = Class::Fatal;
        }
        self
    }

    /// What may be done about it.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The error for one request; `who` names the file.
    pub fn error(&self, who: &str) -> Error {
        let error = Error::new(self.class, who, self.why.clone());
        match &self.cause {
            Some(cause) => error.with_source(cause.clone()),
            None => error,
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        let (class, why) = meaning(&error);
        Failure::new(class, why).with_source(error)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

fn meaning(error: &rusqlite::Error) -> (Class, &'static str) {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (Class::Retry, "another process holds the file for too long")
        }
        Some(ErrorCode::DiskFull) => (Class::Retry, "the disk is full"),
        Some(ErrorCode::SystemIoFailure) => (Class::Retry, "the disk failed"),
        Some(ErrorCode::OutOfMemory) => (Class::Retry, "out of memory"),
        Some(
            ErrorCode::SchemaChanged
            | ErrorCode::OperationInterrupted
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OperationAborted,
        ) => (Class::Retry, "the transaction was interrupted"),
        Some(ErrorCode::TooBig) => (Class::Reject, "a value is larger than SQLite can hold"),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => {
            (Class::Reject, "a value does not fit the table")
        }
        Some(
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied,
        ) => (Class::Fatal, "the file may not be written"),
        Some(ErrorCode::CannotOpen) => (Class::Fatal, "the file cannot be opened"),
        Some(ErrorCode::NotADatabase) => (Class::Fatal, "the file is no SQLite database"),
        Some(ErrorCode::DatabaseCorrupt) => (Class::Fatal, "the file is damaged"),
        _ => (Class::Fatal, "SQLite refused the statement"),
    }
}
