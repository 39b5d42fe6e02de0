//! The entries there are. Their fields are their format: a field that is not there yet is read as none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A process that has written nothing of a worker for so long is taken for gone. It writes every 10 s.
pub const STALE_AFTER_MS: i64 = 30_000;

const PAUSE: &str = "pause/";
const WORKER: &str = "worker/";
const STOP: &str = "stop/";
const FOLLOWER: &str = "follower/";
const VERSION: &str = "version/";

/// Where a pipeline's pause lies.
pub fn pause_key(pipeline: &str) -> String {
    format!("{PAUSE}{pipeline}")
}

/// Where it lies that a pipeline is ended.
pub fn stop_key(pipeline: &str) -> String {
    format!("{STOP}{pipeline}")
}

/// The pipeline that is ended by what lies under a key; none for any other key.
pub fn stopped_by_key(key: &str) -> Option<&str> {
    key.strip_prefix(STOP)
}

/// Where it lies which versions of a step's module the records of a partition were for.
pub fn version_key(lane: &str, step: &str, partition: i32) -> String {
    format!("{VERSION}{lane}/{step}/{partition}")
}

/// The lane and the partition of such a key; none for any other.
pub fn versioned_by_key(key: &str) -> Option<(&str, i32)> {
    let (place, partition) = key.strip_prefix(VERSION)?.rsplit_once('/')?;
    let (lane, _) = place.rsplit_once('/')?;
    Some((lane, partition.parse().ok()?))
}

/// Where a process tells how far it follows what is applied.
pub fn follower_key(process: &str) -> String {
    format!("{FOLLOWER}{process}")
}

/// The process of such a key; none for any other.
pub fn follower_of_key(key: &str) -> Option<&str> {
    key.strip_prefix(FOLLOWER)
}

/// Where a process tells how a pipeline is doing.
pub fn worker_key(process: &str, pipeline: &str) -> String {
    format!("{WORKER}{process}/{pipeline}")
}

/// The process and the pipeline of such a key; none for any other.
pub fn worker_of_key(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix(WORKER)?.split_once('/')
}

/// Whose pause lies under a key: a pipeline, or a lane of it as `pipeline/sink`; none for any other key.
pub fn paused_by_key(key: &str) -> Option<&str> {
    key.strip_prefix(PAUSE)
}

/// The isolated sink of a lane's name if it is one of this pipeline; an empty one for the main lane.
pub fn lane_of<'a>(name: &'a str, pipeline: &str) -> Option<&'a str> {
    match name.strip_prefix(pipeline)? {
        "" => Some(""),
        rest => rest.strip_prefix('/'),
    }
}

/// A pipeline is held, by all processes, until the entry is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseEntry {
    /// Who holds it: `operator`, `dead-letters`, `retry-budget`.
    pub by: String,
    /// Why, for people.
    pub reason: String,
    /// Since when, ms since 1970.
    pub since_ms: i64,
}

/// A pipeline is ended, in all processes, until the entry is removed: nobody reads as its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopEntry {
    /// Who ended it: `operator`, `rewind`.
    pub by: String,
    /// Why, for people.
    pub reason: String,
    /// Since when, ms since 1970.
    pub since_ms: i64,
}

/// Which versions of a step's module the records of a partition were for, in the order of offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionEntry {
    /// Each goes on until the next one begins.
    pub begun: Vec<BegunEntry>,
    /// Where a pipeline that was put back had come to: up to here the last one goes on.
    #[serde(default)]
    pub reached: i64,
}

/// Where a version began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunEntry {
    /// With the record at this offset.
    pub offset: i64,
    /// The SHA-256 of the module.
    pub digest: String,
}

/// What a process makes of what is applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerEntry {
    /// Which process.
    pub process: ProcessEntry,
    /// What it runs.
    pub generation: Option<u64>,
    /// What it cannot run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedEntry>,
    /// When this was written, ms since 1970.
    pub at_ms: i64,
}

/// What a process cannot run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedEntry {
    /// Which one.
    pub generation: u64,
    /// Why.
    pub reason: String,
}

/// How a pipeline is doing in one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerEntry {
    /// Which process.
    pub process: ProcessEntry,
    /// `starting`, `running`, `retrying`, `paused`, `stopped`, `failed`.
    pub state: String,
    /// Why, where the state has a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who holds it, when it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Since when it is in this state, ms since 1970.
    pub since_ms: i64,
    /// Records that became dead letters since the process began.
    #[serde(default)]
    pub dead_letters: u64,
    /// What is applied that it runs; none where it runs a file of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The SHA-256 of its modules, by the step's id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub modules: BTreeMap<String, String>,
    /// What its deployed modules are, as `NAME@VERSION`, by the step's id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
    /// Steps whose newest version cannot be taken up here, and why: the version before goes on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, String>,
    /// Versions on trial, by the step's id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub trials: BTreeMap<String, TrialEntry>,
    /// What it did lately, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<PaceEntry>,
    /// The systems that the process calls, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<String, BreakerEntry>,
    /// The latest failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ErrorEntry>,
    /// When this was written, ms since 1970.
    pub at_ms: i64,
    /// The process has ended; the entry stays so that its failure is seen.
    #[serde(default)]
    pub ended: bool,
}

/// A version on trial in one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialEntry {
    /// `canary`, `shadow`.
    pub manner: String,
    /// The version, as `name@1.1.0`.
    pub module: String,
    /// Records that it was given since the process began, or since another version runs beside it.
    pub records: u64,
    /// Of these, the ones that it rejected.
    #[serde(default)]
    pub rejected: u64,
    /// A shadow's: the ones whose results differ.
    #[serde(default)]
    pub differing: u64,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<DifferingEntry>,
    /// Partitions on which a shadow was switched off, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub off: BTreeMap<i32, String>,
}

/// A record whose results differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferingEntry {
    /// `topic/partition/offset`.
    pub record: String,
    /// In what: `rejected`, `accepted`, `count`, `key`, `value`.
    pub difference: String,
}

/// What was done within a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaceEntry {
    /// The time, in ms.
    pub over_ms: u64,
    /// Records read.
    pub records: u64,
    /// Outputs that sinks acknowledged.
    pub outputs: u64,
    /// Of batches: how many took no longer from append to effect than so many µs, and longer than the bound before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub latency_us: BTreeMap<u64, u64>,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEntry {
    /// Its machine's name.
    pub host: String,
    /// Its number there.
    pub pid: u32,
    /// The program's version.
    pub version: String,
}

/// A system as its circuit breaker sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerEntry {
    /// `closed`, `open`, `half-open`.
    pub state: String,
    /// Since when, ms since 1970.
    pub since_ms: i64,
    /// Failures in a row.
    pub failures: u32,
    /// The last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEntry {
    /// Where: `decode`, `step:ID`, `lookup:ID`, `sink:ID`, or what was called.
    pub place: String,
    /// The error's chain.
    pub error: String,
    /// When, ms since 1970.
    pub at_ms: i64,
    /// The record at hand, `topic/partition/offset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
}
