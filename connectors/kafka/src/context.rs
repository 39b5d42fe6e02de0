//! What librdkafka tells its clients besides answers: log lines, errors, rebalances.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use millrace_core::{Class, Error};
use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol},
    error::{KafkaError, RDKafkaErrorCode as Code},
    topic_partition_list::TopicPartitionListElem,
    types::RDKafkaRespErr,
};

use crate::error::{self, class_of_report};

/// What librdkafka reported of itself, kept until somebody asks.
#[derive(Default)]
pub struct Reports {
    last: Mutex<Option<(Code, String)>>,
    cause: Mutex<Option<String>>,
    fatal: Mutex<Option<(Code, String)>>,
}

impl Reports {
    fn note(&self, code: Code, reason: &str) {
        let report = Some((code, reason.to_owned()));
        if class_of_report(code, reason) == Class::Fatal {
            *self.fatal.lock().unwrap_or_else(PoisonError::into_inner) = report.clone();
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = report;
        // "All brokers are down" says nothing of why.
        if code != Code::AllBrokersDown {
            *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }

    /// The last report that says what happened.
    pub fn cause(&self) -> Option<String> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last report, once.
    pub fn take_last(&self) -> Option<(Code, String)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The error of a login or a connection that was refused since the last call, if one was.
    pub fn take_fatal(&self, who: &str, what: &str) -> Option<Error> {
        let fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner).take();
        fatal.map(|(code, reason)| error::error(who, what, code, &reason))
    }
}

/// The context of clients that do not read: they log and report.
#[derive(Default)]
pub struct Listener {
    /// What was reported.
    pub reports: Reports,
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.reports.note(code, reason);
        }
    }
}

impl ConsumerContext for Listener {}

/// What the group decided. Answered by the thread that polls, in its own time: librdkafka waits for the answer.
pub enum Notice {
    /// These partitions are ours now.
    Assigned(Vec<i32>),
    /// These are not.
    Revoked {
        /// Their numbers.
        partitions: Vec<i32>,
        /// They are somebody else's already.
        lost: bool,
    },
}

/// The context of a client that reads.
#[derive(Default)]
pub struct ReaderContext {
    /// What was reported.
    pub reports: Reports,
    notices: Mutex<VecDeque<Notice>>,
    noticed: AtomicBool,
    closing: AtomicBool,
    end_offset: AtomicI64,
}

impl ReaderContext {
    /// Whether there are notices.
    pub fn is_noticed(&self) -> bool {
        self.noticed.load(Ordering::Acquire)
    }

    /// The notices since the last call, in their order.
    pub fn take_notices(&self) -> VecDeque<Notice> {
        self.noticed.store(false, Ordering::Release);
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on rebalances are answered at once, without anybody being told.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// The offset at which the last end of a partition was reported.
    pub fn end_offset(&self) -> i64 {
        self.end_offset.load(Ordering::Acquire)
    }
}

impl ClientContext for ReaderContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(Code::PartitionEOF) => {
                self.end_offset.store(end_offset(reason).unwrap_or(-1), Ordering::Release);
            }
            Some(code) => self.reports.note(code, reason),
            None => {}
        }
    }
}

impl ConsumerContext for ReaderContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let assigned = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            give_up(consumer, assigned);
            return;
        }
        let partitions = partitions.elements().iter().map(TopicPartitionListElem::partition).collect();
        let notice = if assigned {
            Notice::Assigned(partitions)
        } else {
            Notice::Revoked { partitions, lost: consumer.assignment_lost() }
        };
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).push_back(notice);
        self.noticed.store(true, Ordering::Release);
    }
}

/// Answers a rebalance of a client that is closing: it wants nothing and keeps nothing.
pub fn give_up(consumer: &BaseConsumer<ReaderContext>, assigned: bool) {
    let answer = match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative if assigned => consumer.incremental_assign(&TopicPartitionList::new()),
        RebalanceProtocol::Cooperative => {
            consumer.assignment().and_then(|all| consumer.incremental_unassign(&all))
        }
        _ => consumer.unassign(),
    };
    if let Err(error) = answer {
        tracing::debug!(%error, "a rebalance while closing was not answered");
    }
}

/// The offset in "... reached end of partition at offset 42 (HighwaterMark 42)". librdkafka knows it as a
/// number, the Rust wrapper passes on the text alone.
fn end_offset(reason: &str) -> Option<i64> {
    let after = reason.split_once(" at offset ")?.1;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "{message}");
        }
        // A broker that is away is an error to librdkafka, each time it looks.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, "{message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(facility, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_offset_is_read_from_the_report() {
        let reason = "Fetch from broker 1 reached end of partition at offset 1234 (HighwaterMark 1240)";
        assert_eq!(end_offset(reason), Some(1234));
        assert_eq!(end_offset("something else"), None);
        assert_eq!(end_offset("reached the end at offset INVALID"), None);
    }

    #[test]
    fn a_refused_login_is_remembered_beside_the_last_report() {
        let reports = Reports::default();
        reports.note(Code::Authentication, "no such user");
        reports.note(Code::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(reports.take_last().map(|(code, _)| code), Some(Code::AllBrokersDown));
        assert_eq!(reports.cause().as_deref(), Some("no such user"));
        assert!(reports.take_last().is_none());
        let fatal = reports.take_fatal("kafka main", "cannot read").map(|error| error.chain());
        assert!(fatal.is_some_and(|chain| chain.ends_with("no such user")));
    }
}
