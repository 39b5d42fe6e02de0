//! What an error of Redis means for the caller: again, give this input up, or stop.

use std::{error::Error as _, sync::Arc};

use millrace_core::{Class, Error};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Codes of a server that is not ready, not the master, full, or busy: it may be later.
const RETRY_CODES: [&str; 14] = [
    "LOADING",
    "MOVED",
    "ASK",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "READONLY",
    "MASTERDOWN",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "BUSY",
    "NOSCRIPT",
    "EXECABORT",
    "UNKILLABLE",
];
/// Codes of a server that refuses this client until somebody acts.
const FATAL_CODES: [&str; 5] = ["NOAUTH", "WRONGPASS", "NOPERM", "DENIED", "CROSSSLOT"];
/// Codes that the data of a key or an argument causes.
const REJECT_CODES: [&str; 2] = ["WRONGTYPE", "FIELDS"];

/// The error of a command, with its class.
pub(crate) fn classify(who: &str, cluster: bool, error: RedisError) -> Error {
    let code = code(&error);
    let (class, why) = match code.as_deref() {
        Some("MOVED") if !cluster => {
            (Class::Fatal, "the server is a node of a cluster: set 'cluster: true'".to_owned())
        }
        Some(code) => (class_of_code(code, &error), format!("the server answered {code}")),
        None => {
            let (class, why) = class_of_kind(&error);
            (class, why.to_owned())
        }
    };
    Error::new(class, who, why).with_source(error)
}

/// The server's code: of the command itself, or of the command that failed inside a script, which older servers
/// wrap into an `ERR`.
fn code(error: &RedisError) -> Option<String> {
    let code = error.code()?;
    if code != "ERR" {
        return Some(code.to_owned());
    }
    let inner = error.detail().and_then(|detail| {
        let known = RETRY_CODES.iter().chain(&FATAL_CODES).chain(&REJECT_CODES);
        known.copied().find(|known| detail.contains(&format!("-{known} ")))
    });
    Some(inner.unwrap_or("ERR").to_owned())
}

fn class_of_code(code: &str, error: &RedisError) -> Class {
    if FATAL_CODES.contains(&code) {
        return Class::Fatal;
    }
    if REJECT_CODES.contains(&code) {
        return Class::Reject;
    }
    if code != "ERR" {
        return Class::Retry;
    }
    // Without a code of its own: told apart by its text. What no record can have caused must not send records
    // to the dead letters.
    let detail = error.detail().unwrap_or_default();
    let has = |part: &str| detail.contains(part);
    if has("max number of clients") {
        Class::Retry
    } else if has("not an integer")
        || has("not a valid float")
        || has("overflow")
        || has("out of range, value")
    {
        Class::Reject
    } else {
        Class::Fatal
    }
}

fn class_of_kind(error: &RedisError) -> (Class, &'static str) {
    match error.kind() {
        ErrorKind::AuthenticationFailed => (Class::Fatal, "the server refuses the password"),
        ErrorKind::InvalidClientConfig => (Class::Fatal, "the connection's settings cannot be used"),
        ErrorKind::Server(ServerErrorKind::NoPerm) => (Class::Fatal, "the user may not do this"),
        ErrorKind::Io if is_tls_refusal(error) => (Class::Fatal, "no TLS session: check url and ca_file"),
        ErrorKind::Io if error.is_timeout() => (Class::Retry, "the server did not answer in time"),
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => (Class::Retry, "the connection failed"),
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
            (Class::Retry, "the answer cannot be understood")
        }
        _ => (Class::Retry, "the command failed"),
    }
}

/// A certificate that is not accepted, or a server that speaks something else.
fn is_tls_refusal(error: &RedisError) -> bool {
    // The client shares its cause, and the cause's type is that of the share.
    type Shared = Arc<dyn std::error::Error + Send + Sync>;
    let shared = error.source().and_then(|source| source.downcast_ref::<Shared>());
    let io = shared.and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let inner = io.and_then(std::io::Error::get_ref);
    inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}

/// Whether the connection is of no use any more.
pub(crate) fn is_broken(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Parse | ErrorKind::ClusterConnectionNotFound)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use redis::parse_redis_value;

    use super::*;

    fn class(line: &str) -> Class {
        let reply = parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        classify("redis", true, reply.extract_error().unwrap_err()).class()
    }

    #[test]
    fn servers_that_are_not_ready_are_retried() {
        for line in [
            "LOADING Redis is loading the dataset in memory",
            "MOVED 3999 127.0.0.1:6381",
            "ASK 3999 127.0.0.1:6381",
            "CLUSTERDOWN The cluster is down",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "READONLY You can't write against a read only replica.",
            "MASTERDOWN Link with MASTER is down",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "ERR Error running script (call to f_1): @user_script:9: -OOM command not allowed",
            "ERR max number of clients reached",
            "BUSY Redis is busy running a script.",
            "MISCONF Redis is configured to save RDB snapshots, but it is unable to persist",
            "SOMETHING new",
        ] {
            assert_eq!(class(line), Class::Retry, "{line}");
        }
    }

    #[test]
    fn what_the_data_causes_is_rejected() {
        for line in [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "ERR Error running script (call to f_1): @user_script:9: @user_script: 9: -WRONGTYPE Operation",
            "ERR value is not an integer or out of range",
            "ERR increment or decrement would overflow",
            "FIELDS the document would have too many fields",
        ] {
            assert_eq!(class(line), Class::Reject, "{line}");
        }
    }

    #[test]
    fn what_needs_a_person_is_fatal() {
        for line in [
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "NOPERM this user has no permissions to run the 'evalsha' command",
            "DENIED Redis is running in protected mode",
            "CROSSSLOT Keys in request don't hash to the same slot",
            "ERR unknown command 'EVALSHA'",
            "ERR This instance has cluster support disabled",
        ] {
            assert_eq!(class(line), Class::Fatal, "{line}");
        }
    }

    #[test]
    fn a_cluster_that_nobody_spoke_of_is_fatal() {
        let reply = parse_redis_value(b"-MOVED 3999 127.0.0.1:6381\r\n").unwrap();
        let error = classify("redis feeds", false, reply.extract_error().unwrap_err());
        assert_eq!(error.class(), Class::Fatal);
        assert!(error.to_string().contains("cluster: true"), "{error}");
    }
}
