//! What is true now: asked of all brokers at the same time, each within its time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::future::{join_all, try_join_all};
use millrace_config::{PipelinePlan, Plan};
use millrace_control::{
    Board, BreakerEntry, Entry, ErrorEntry, FollowerEntry, PauseEntry, STALE_AFTER_MS, StopEntry,
    WorkerEntry, follower_of_key, lane_of, paused_by_key, stop_key, worker_of_key,
};
use millrace_core::{Broker, Error, Result, TopicInfo};
use millrace_runtime::LetterLog;
use tokio::time::{Duration, timeout};

use super::print::age;
use crate::{
    assemble::{Systems, group},
    report::Failure,
};

/// A look reads a topic of dead letters if it spans at most so many records, and for at most so long.
const COUNTED_RECORDS_MAX: u64 = 10_000;
const COUNTED_WITHIN: Duration = Duration::from_secs(5);

/// How everything is doing.
pub struct Look {
    /// When this was, ms since 1970.
    pub now_ms: i64,
    /// In the order of the file.
    pub pipelines: Vec<PipelineLook>,
    /// The systems that processes call, each as the process sees it that it is worst for.
    pub endpoints: BTreeMap<String, BreakerEntry>,
    /// The processes that cannot run what is applied.
    pub refusing: Vec<FollowerEntry>,
    /// The brokers that could not be asked, and why.
    pub away: BTreeMap<String, String>,
}

/// How one pipeline is doing.
pub struct PipelineLook {
    pub name: String,
    /// A worker's state, `no worker`, or `unknown` when its broker is away.
    pub state: String,
    pub reason: Option<String>,
    /// Who holds it, when it is paused.
    pub by: Option<String>,
    pub since_ms: Option<i64>,
    /// The processes that run it.
    pub workers: Vec<WorkerEntry>,
    pub topic: String,
    /// Per partition; none where there is no topic to tell.
    pub lag: Option<BTreeMap<i32, i64>>,
    /// The same of its isolated sinks, by id.
    pub lanes: BTreeMap<String, BTreeMap<i32, i64>>,
    /// Since these processes began.
    pub dead_letters: u64,
    pub dead_letter_topic: String,
    /// What lies in that topic: letters, and marks of what became of them.
    pub dead_letter_records: Option<u64>,
    /// The letters in it that nobody has settled; none when there is too much to be read for a look.
    pub dead_letters_open: Option<u64>,
    pub last_error: Option<ErrorEntry>,
}

/// What a broker says.
#[derive(Default)]
struct Answer {
    entries: BTreeMap<String, Entry>,
    topics: BTreeMap<String, TopicInfo>,
    /// By topic, where it was counted.
    open_letters: BTreeMap<String, u64>,
    /// By group.
    progress: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// Asks all brokers that pipelines read from.
pub async fn take(systems: &mut Systems, plan: &Plan, limit: Duration, now_ms: i64) -> Result<Look, Failure> {
    let mut asked = Vec::new();
    for name in plan.pipelines.values().map(|p| p.from.broker.as_str()).collect::<BTreeSet<_>>() {
        let (broker, topic) = systems.control(plan, name)?;
        asked.push(async move {
            let pipelines = plan.pipelines.values().filter(|p| p.from.broker == name).collect();
            let late = || {
                Error::retry(format!("broker {name}"), format!("no answer within {} ms", limit.as_millis()))
            };
            let answer = timeout(limit, ask(&broker, &topic, pipelines)).await;
            (name, answer.unwrap_or_else(|_| Err(late())))
        });
    }
    let (mut answers, mut away) = (BTreeMap::new(), BTreeMap::new());
    for (name, answer) in join_all(asked).await {
        match answer {
            Ok(answer) => drop(answers.insert(name, answer)),
            Err(error) => drop(away.insert(name.to_owned(), error.chain())),
        }
    }
    let mut endpoints = BTreeMap::new();
    let pipelines = plan.pipelines.values().map(|pipeline| match answers.get(&*pipeline.from.broker) {
        Some(answer) => of_pipeline(pipeline, answer, now_ms, &mut endpoints),
        None => unknown(pipeline),
    });
    let pipelines = pipelines.collect();
    let refusing = answers.values().flat_map(|answer| refusing(&answer.entries, now_ms)).collect();
    Ok(Look { now_ms, pipelines, endpoints, refusing, away })
}

async fn ask(broker: &Arc<dyn Broker>, control: &str, pipelines: Vec<&PipelinePlan>) -> Result<Answer> {
    let admin = broker.admin();
    let names: BTreeSet<&str> =
        pipelines.iter().flat_map(|p| [p.from.topic.as_str(), p.dead_letters.name.as_str()]).collect();
    let topics = names.into_iter().map(|name| admin.topic(name));
    let groups = pipelines.iter().flat_map(|pipeline| {
        let topic = pipeline.from.topic.as_str();
        let lanes = isolated(pipeline).map(|sink| group(pipeline, Some(sink)));
        lanes.chain([group(pipeline, None)]).map(move |group| (group, topic))
    });
    let progress = groups.map(|(group, topic)| {
        let admin = &admin;
        async move {
            let progress = admin.progress(&group, topic).await?;
            Ok((group, progress))
        }
    });
    let (entries, topics, progress) =
        tokio::try_join!(Board::look(&**broker, control), try_join_all(topics), try_join_all(progress))?;
    let topics: BTreeMap<String, TopicInfo> =
        topics.into_iter().flatten().map(|info| (info.name.clone(), info)).collect();
    let letters: BTreeSet<&str> = pipelines.iter().map(|p| p.dead_letters.name.as_str()).collect();
    let counted = letters.into_iter().map(|name| {
        let info = topics.get(name);
        async move { (name.to_owned(), open_letters(broker, name, info.map_or(0, records)).await) }
    });
    let counted = join_all(counted).await.into_iter();
    let open_letters = counted.filter_map(|(name, count)| Some((name, count?))).collect();
    Ok(Answer { entries, topics, open_letters, progress: progress.into_iter().collect() })
}

/// The open letters of a topic, read from its beginning if it spans so few records that a look may.
async fn open_letters(broker: &Arc<dyn Broker>, topic: &str, records: u64) -> Option<u64> {
    if records == 0 {
        return Some(0);
    }
    if records > COUNTED_RECORDS_MAX {
        return None;
    }
    let count = async {
        match LetterLog::open(broker.clone(), topic).await? {
            Some(mut log) => log.count_open().await,
            None => Ok(0),
        }
    };
    timeout(COUNTED_WITHIN, count).await.ok()?.ok()
}

fn refusing(entries: &BTreeMap<String, Entry>, now_ms: i64) -> Vec<FollowerEntry> {
    let followers = entries.iter().filter(|(key, _)| follower_of_key(key).is_some());
    let read = followers.filter_map(|(_, entry)| entry.read::<FollowerEntry>().ok());
    read.filter(|it| it.refused.is_some() && now_ms - it.at_ms <= STALE_AFTER_MS).collect()
}

fn unknown(pipeline: &PipelinePlan) -> PipelineLook {
    PipelineLook {
        name: pipeline.name.clone(),
        state: "unknown".to_owned(),
        reason: Some(format!("broker {} does not answer", pipeline.from.broker)),
        by: None,
        since_ms: None,
        workers: Vec::new(),
        topic: pipeline.from.topic.clone(),
        lag: None,
        lanes: BTreeMap::new(),
        dead_letters: 0,
        dead_letter_topic: pipeline.dead_letters.name.clone(),
        dead_letter_records: None,
        dead_letters_open: None,
        last_error: None,
    }
}

fn of_pipeline(
    pipeline: &PipelinePlan,
    answer: &Answer,
    now_ms: i64,
    endpoints: &mut BTreeMap<String, BreakerEntry>,
) -> PipelineLook {
    let all: Vec<WorkerEntry> =
        answer.entries.iter().filter_map(|(key, entry)| of(key, entry, &pipeline.name)).collect();
    let is_live = |worker: &WorkerEntry| !worker.ended && now_ms - worker.at_ms <= STALE_AFTER_MS;
    let (live, gone): (Vec<WorkerEntry>, Vec<WorkerEntry>) = all.into_iter().partition(is_live);
    for (name, endpoint) in live.iter().flat_map(|worker| &worker.endpoints) {
        let known = endpoints.entry(name.clone()).or_insert_with(|| endpoint.clone());
        if severity(endpoint) > severity(known) {
            *known = endpoint.clone();
        }
    }
    let errors = live.iter().chain(&gone).filter_map(|worker| worker.last_error.as_ref());
    let topic = answer.topics.get(&pipeline.from.topic);
    let mut look = PipelineLook {
        lag: topic.map(|info| lag(info, answer.progress.get(&group(pipeline, None)))),
        lanes: isolated(pipeline)
            .filter_map(|sink| {
                Some((sink.to_owned(), lag(topic?, answer.progress.get(&group(pipeline, Some(sink))))))
            })
            .collect(),
        dead_letters: live.iter().map(|worker| worker.dead_letters).sum(),
        dead_letter_records: Some(answer.topics.get(&pipeline.dead_letters.name).map_or(0, records)),
        dead_letters_open: answer.open_letters.get(&pipeline.dead_letters.name).copied(),
        last_error: errors.max_by_key(|error| error.at_ms).cloned(),
        ..unknown(pipeline)
    };
    let says = |look: &mut PipelineLook, state: &str, reason: Option<String>, since_ms: Option<i64>| {
        (look.state, look.reason, look.since_ms) = (state.to_owned(), reason, since_ms);
    };
    let by_state = |state: &str| live.iter().find(|worker| worker.state == state);
    let failed = gone.iter().filter(|worker| worker.ended).max_by_key(|worker| worker.at_ms);
    if let Some(worker) = by_state("failed") {
        says(&mut look, "failed", worker.reason.clone(), Some(worker.since_ms));
    } else if let Some(entry) = answer.entries.get(&stop_key(&pipeline.name)) {
        match entry.read::<StopEntry>() {
            Ok(stop) => {
                look.by = Some(stop.by);
                says(&mut look, "stopped", Some(stop.reason), Some(stop.since_ms));
            }
            Err(error) => says(&mut look, "stopped", Some(error.chain()), None),
        }
    } else if let Some((lane, entry)) = answer
        .entries
        .iter()
        .find_map(|(key, entry)| Some((lane_of(paused_by_key(key)?, &pipeline.name)?, entry)))
    {
        match entry.read::<PauseEntry>() {
            Ok(pause) => {
                look.by = Some(pause.by);
                says(&mut look, "paused", Some(of_lane(lane, pause.reason)), Some(pause.since_ms));
            }
            Err(error) => says(&mut look, "paused", Some(error.chain()), None),
        }
    } else if let Some(worker) =
        ["paused", "retrying", "running", "starting", "stopped"].into_iter().find_map(by_state)
    {
        look.by = worker.by.clone();
        says(&mut look, &worker.state, worker.reason.clone(), Some(worker.since_ms));
    } else if let Some(worker) = failed {
        says(&mut look, "failed", worker.reason.clone(), Some(worker.since_ms));
    } else {
        let silent = gone.iter().max_by_key(|worker| worker.at_ms).map(|worker| {
            let (pid, host) = (worker.process.pid, &worker.process.host);
            format!("process {pid} on {host} has been silent for {}", age(now_ms - worker.at_ms))
        });
        says(&mut look, "no worker", silent, None);
    }
    PipelineLook { workers: live, ..look }
}

/// What an entry says, if it is one of a worker of this pipeline or of one of its lanes.
fn of(key: &str, entry: &Entry, pipeline: &str) -> Option<WorkerEntry> {
    let (_, name) = worker_of_key(key)?;
    let lane = lane_of(name, pipeline)?;
    // A worker of a newer program cannot be read; it is as if it were not there.
    let worker: WorkerEntry = entry.read().ok()?;
    Some(WorkerEntry { reason: worker.reason.map(|reason| of_lane(lane, reason)), ..worker })
}

fn of_lane(lane: &str, reason: String) -> String {
    if lane.is_empty() { reason } else { format!("sink {lane}: {reason}") }
}

/// The ids of the sinks that have progress of their own.
fn isolated(pipeline: &PipelinePlan) -> impl Iterator<Item = &str> {
    pipeline.sinks.iter().filter(|sink| sink.isolated).map(|sink| sink.id.as_str())
}

fn severity(endpoint: &BreakerEntry) -> (u8, u32) {
    let state = match endpoint.state.as_str() {
        "closed" => 0,
        "half-open" => 1,
        _ => 2,
    };
    (state, endpoint.failures)
}

fn lag(info: &TopicInfo, progress: Option<&BTreeMap<i32, i64>>) -> BTreeMap<i32, i64> {
    let of = |(number, span): (&i32, &millrace_core::PartitionSpan)| {
        let next = progress.and_then(|progress| progress.get(number)).copied().unwrap_or(span.start);
        (*number, (span.end - next.max(span.start)).max(0))
    };
    info.partitions.iter().map(of).collect()
}

fn records(info: &TopicInfo) -> u64 {
    info.partitions.values().map(|span| span.end.saturating_sub(span.start).max(0).cast_unsigned()).sum()
}
