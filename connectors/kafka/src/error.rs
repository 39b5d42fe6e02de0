//! What librdkafka's errors mean for the caller: their class, and advice where a person must act.

use millrace_core::{Class, Error};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// What may be done about a code.
pub fn class_of(code: Code) -> Class {
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::InvalidRecord => Class::Reject,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SecurityDisabled
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::InvalidTransactionTimeout
        | Code::ClusterAuthorizationFailed
        | Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::InvalidGroupId
        | Code::InvalidSessionTimeout
        | Code::InconsistentGroupProtocol
        | Code::FencedInstanceId
        | Code::GroupMaxSizeReached
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidConfig
        | Code::InvalidArgument
        | Code::PolicyViolation
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::UnsupportedCompressionType => Class::Fatal,
        _ => Class::Retry,
    }
}

/// As [`class_of`], for a report with librdkafka's own words: a connection that fails has one code for causes
/// that pass and for a certificate that was refused.
pub fn class_of_report(code: Code, reason: &str) -> Class {
    if is_certificate_refused(code, reason) { Class::Fatal } else { class_of(code) }
}

fn is_certificate_refused(code: Code, reason: &str) -> bool {
    matches!(code, Code::SSL | Code::BrokerTransportFailure)
        && reason
            .split_once("SSL routines")
            .is_some_and(|(_, told)| told.contains("certificate") || told.contains("unknown ca"))
}

/// Whether a topic that is asked for is not there.
pub fn is_unknown_topic(code: Code) -> bool {
    matches!(code, Code::UnknownTopic | Code::UnknownTopicOrPartition)
}

/// Whether a commit failed because the group has moved on: the partitions may not be ours any more.
pub fn is_moved_on(code: Code) -> bool {
    matches!(
        code,
        Code::IllegalGeneration
            | Code::RebalanceInProgress
            | Code::UnknownMemberId
            | Code::NoOffset
            | Code::FencedInstanceId
            | Code::AssignmentLost
    )
}

/// An error at the contract. `what` is what was tried; `reason` is librdkafka's words, kept in the chain.
pub fn error(who: &str, what: &str, code: Code, reason: &str) -> Error {
    let why = match advice(code, reason) {
        Some(advice) => format!("{what}: {advice}"),
        None => what.to_owned(),
    };
    let cause = if reason.is_empty() { code.to_string() } else { reason.to_owned() };
    Error::new(class_of_report(code, reason), who, why).with_source(cause)
}

/// An error of a call.
pub fn of_call(who: &str, what: &str, error: &KafkaError) -> Error {
    match error.rdkafka_error_code() {
        Some(code) => self::error(who, what, code, &error.to_string()),
        // These come without a code: a configuration that was refused, or a name with a NUL in it.
        None => Error::fatal(who, what).with_source(error.to_string()),
    }
}

fn advice(code: Code, reason: &str) -> Option<&'static str> {
    Some(match code {
        Code::Authentication | Code::SaslAuthenticationFailed => {
            "the login was refused; check 'username', 'password' and 'sasl_mechanism'"
        }
        _ if is_certificate_refused(code, reason) && reason.contains("verify failed") => {
            "the broker's certificate is not trusted; check 'ca_file' and the broker's name"
        }
        _ if is_certificate_refused(code, reason) => {
            "the broker refused our certificate, or the lack of one; check 'cert_file' and 'key_file'"
        }
        Code::TopicAuthorizationFailed => "the user may not use this topic",
        Code::GroupAuthorizationFailed => "the user may not use this group",
        Code::ClusterAuthorizationFailed => "the user may not do this",
        Code::TransactionalIdAuthorizationFailed => {
            "the user may not use transactional ids that begin with the group's name; allow them, or set \
             'transactions: false'"
        }
        Code::InvalidTransactionTimeout => "the broker does not allow this 'transaction_timeout'",
        Code::InvalidSessionTimeout => "the broker does not allow this 'session_timeout'",
        Code::InconsistentGroupProtocol => {
            "members of the group that are not ours share partitions otherwise"
        }
        Code::FencedInstanceId => "another process uses the same 'group_instance_id'",
        Code::InvalidReplicationFactor => "the cluster has too few brokers for that many copies",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_acts_on_what_does_not_pass() {
        assert_eq!(class_of(Code::AllBrokersDown), Class::Retry);
        assert_eq!(class_of(Code::MessageTimedOut), Class::Retry);
        assert_eq!(class_of(Code::NotCoordinator), Class::Retry);
        assert_eq!(class_of(Code::MessageSizeTooLarge), Class::Reject);
        assert_eq!(class_of(Code::SaslAuthenticationFailed), Class::Fatal);
        assert_eq!(class_of_report(Code::SSL, "SSL handshake failed: Disconnected"), Class::Retry);
        for (code, reason) in [
            (Code::SSL, "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed"),
            (Code::BrokerTransportFailure, "Receive failed: SSL routines::ssl/tls alert bad certificate"),
        ] {
            assert_eq!(class_of_report(code, reason), Class::Fatal, "{reason}");
        }
        assert_eq!(
            class_of_report(Code::BrokerTransportFailure, "certificates.example:9092: refused"),
            Class::Retry
        );
    }

    #[test]
    fn the_reason_is_in_the_chain_and_advice_in_front() {
        let error = error("kafka main", "cannot read", Code::Authentication, "SASL: invalid credentials");
        assert_eq!(error.class(), Class::Fatal);
        assert_eq!(
            error.chain(),
            "kafka main: cannot read: the login was refused; check 'username', 'password' and \
             'sasl_mechanism': SASL: invalid credentials"
        );
    }
}
