//! The conformance suite every broker implementation passes: what is appended is read, in order, unchanged, by
//! whoever owns the partition, from where the group has come to.
//!
//! Each function below is one area and panics at the first case that fails. [`run`] is all that a broker must
//! do; [`groups`] is for brokers whose groups may have several members.

#![expect(clippy::panic, reason = "a suite fails by panicking")]

mod admin;
mod append;
mod compact;
mod flow;
mod gap;
mod group;
mod progress;
mod reader;
mod rewind;

use std::{future::Future, iter, pin::Pin};

use bytes::Bytes;
use millrace_core::{
    Broker, CreateOutcome, NewRecord, Position, Result, Start, Subscription, TopicPartition, TopicSpec,
};

/// Makes the records of a partition below an offset disappear, as retention would.
pub type Discard<'a> = &'a (dyn Fn(TopicPartition, i64) -> Pin<Box<dyn Future<Output = ()> + Send>> + Sync);

/// What the suite runs against.
#[derive(Clone, Copy)]
pub struct Rig<'a> {
    /// The broker under test.
    pub broker: &'a dyn Broker,
    /// How its records disappear.
    pub discard: Discard<'a>,
    /// Begins the name of every topic and group the suite makes: unique per run, lowercase letters, digits
    /// and `-`.
    pub prefix: &'a str,
}

/// Every area but [`groups`].
pub async fn run(rig: Rig<'_>) {
    administration(rig).await;
    appending(rig).await;
    compaction(rig).await;
    progress(rig).await;
    flow(rig).await;
    gaps(rig).await;
}

/// Creating topics and looking at them.
pub async fn administration(rig: Rig<'_>) {
    admin::a_topic_is_created_once(rig).await;
    admin::spans_tell_what_is_there(rig).await;
    admin::an_unknown_topic_is_none(rig).await;
}

/// Appending and reading back.
pub async fn appending(rig: Rig<'_>) {
    append::each_partition_keeps_the_order(rig).await;
    append::keys_decide_the_partition(rig).await;
    append::bytes_come_back_unchanged(rig).await;
    append::only_the_record_that_is_too_large_is_rejected(rig).await;
    append::a_small_topic_takes_many_small_records(rig).await;
    append::an_unknown_topic_is_fatal(rig).await;
    append::two_senders_share_the_producer(rig).await;
}

/// Topics that keep the newest record of each key.
pub async fn compaction(rig: Rig<'_>) {
    compact::the_newest_of_each_key_stays(rig).await;
    compact::a_record_without_a_key_is_rejected(rig).await;
}

/// Where a group starts and how far it has come.
pub async fn progress(rig: Rig<'_>) {
    progress::a_new_group_starts_at_the_beginning(rig).await;
    progress::progress_survives(rig).await;
    progress::what_is_not_committed_comes_again(rig).await;
    progress::a_start_holds_without_progress_only(rig).await;
    progress::chosen_partitions_are_read_alone(rig).await;
    progress::chosen_partitions_keep_the_groups_progress(rig).await;
    progress::a_foreign_partition_is_not_committed(rig).await;
    progress::an_unknown_topic_is_fatal(rig).await;
    rewind::progress_is_set_from_outside(rig).await;
    rewind::progress_is_forgotten(rig).await;
    rewind::a_time_leads_to_offsets(rig).await;
    rewind::a_group_that_is_read_as_is_left_alone(rig).await;
}

/// Ends, pauses, bounds and cancellation.
pub async fn flow(rig: Rig<'_>) {
    flow::the_end_is_told_each_time(rig).await;
    flow::an_empty_topic_has_an_end(rig).await;
    flow::a_paused_partition_holds_back(rig).await;
    flow::batches_are_bounded(rig).await;
    flow::a_small_prefetch_still_moves(rig).await;
    flow::many_partitions_are_read(rig).await;
    flow::a_cancelled_next_loses_nothing(rig).await;
}

/// Records that disappeared before they were read.
pub async fn gaps(rig: Rig<'_>) {
    gap::a_gap_is_told(rig).await;
    gap::a_new_group_has_no_gap(rig).await;
    gap::a_gap_that_opens_while_reading_is_told(rig).await;
}

/// Groups of several members.
pub async fn groups(rig: Rig<'_>) {
    group::members_share_the_partitions(rig).await;
    group::a_commit_inside_a_revoke_is_kept(rig).await;
}

impl Rig<'_> {
    /// Creates a topic for one case and returns its name.
    async fn topic(&self, case: &str, partitions: u32) -> String {
        self.topic_of(case, partitions, 4 << 20).await
    }

    async fn topic_of(&self, case: &str, partitions: u32, record_bytes_max: usize) -> String {
        self.create(TopicSpec {
            name: format!("{}-{case}", self.prefix),
            partitions,
            retention_ms: None,
            retention_bytes: None,
            record_bytes_max,
            replication: None,
            compact: false,
        })
        .await
    }

    async fn create(&self, spec: TopicSpec) -> String {
        let outcome = self.broker.admin().create_topic(&spec).await.expect("a topic is created");
        assert_eq!(outcome, CreateOutcome::Created, "{}: is the prefix unique?", spec.name);
        spec.name
    }

    /// A subscription of the group of one case.
    fn group_of(&self, case: &str, topic: &str) -> Subscription {
        Subscription {
            topic: topic.to_owned(),
            group: Some(format!("{}-{case}", self.prefix)),
            partitions: None,
            start: Start::Beginning,
            prefetch_bytes_max: 4 << 20,
            batch_records_max: 500,
        }
    }

    /// A subscription without a group.
    fn alone(&self, topic: &str, partitions: Vec<i32>, start: Start) -> Subscription {
        Subscription { group: None, partitions: Some(partitions), start, ..self.group_of("alone", topic) }
    }

    /// Appends and answers per record.
    async fn append(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<Position>> {
        let count = records.len();
        let producer = self.broker.producer().await.expect("a producer is there");
        let answers = producer.send(topic, records).await;
        assert_eq!(answers.len(), count, "{topic}: one answer per record");
        answers
    }

    /// Appends what must be accepted.
    async fn append_all(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Position> {
        let answers = self.append(topic, records).await;
        answers.into_iter().map(|answer| answer.expect("an appended record")).collect()
    }

    /// Appends `numbers` as text to one partition.
    async fn append_numbers(&self, topic: &str, partition: i32, numbers: std::ops::Range<u64>) {
        let records = numbers
            .map(|number| NewRecord { partition: Some(partition), ..NewRecord::value(&number.to_string()) });
        self.append_all(topic, records.collect()).await;
    }
}

/// Short ways to write a record.
trait Brief: Sized {
    fn value(value: &str) -> Self;
    fn keyed(key: &str, value: &str) -> Self;
}

impl Brief for NewRecord {
    fn value(value: &str) -> Self {
        NewRecord { value: Some(Bytes::copy_from_slice(value.as_bytes())), ..NewRecord::default() }
    }

    fn keyed(key: &str, value: &str) -> Self {
        NewRecord { key: Some(Bytes::copy_from_slice(key.as_bytes())), ..NewRecord::value(value) }
    }
}

/// Bytes that no codec makes smaller, the same ones each time.
fn noise(count: usize) -> Bytes {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let bytes = iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[7]
    });
    bytes.take(count).collect()
}
