//! Modules that change while their pipeline runs: each record is processed by the version that it was for.

use std::{collections::BTreeMap, sync::Mutex};

use millrace_runtime::{Begun, History, StepPlace, Version, VersionLog, VersionSource, Versions};

use super::*;

/// What to do when a record has this text in it.
type Next = (&'static str, Arc<dyn Fn() + Send + Sync>);

/// Marks what it sees, and calls for the next version when it sees a certain record. "bad" breaks on every record, "dead"
/// cannot work at all.
struct Marks {
    mark: &'static str,
    next: Option<Next>,
}

impl Step for Marks {
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        if self.mark == "dead" {
            return Err(Error::fatal("module", "cannot be opened any more"));
        }
        for message in batch {
            let text = String::from_utf8_lossy(&message.value).into_owned();
            if let Some((at, call)) = &self.next
                && text.contains(at)
            {
                call();
            }
            if self.mark == "bad" {
                let error = Error::reject("module", "trapped");
                outcome.rejected.push(Rejected { origin: message.origin, error, refused: false });
                continue;
            }
            let value = format!("{}@{}", self.mark, message.origin.record.offset);
            outcome.passed.push(Message::derived(message.origin.clone(), None, value.into()));
        }
        Ok(outcome)
    }
}

struct Make {
    mark: &'static str,
    next: Option<Next>,
}

impl StepFactory for Make {
    fn open(&self, _: &StepContext) -> Result<Box<dyn Step>> {
        if self.mark == "broken" {
            return Err(Error::fatal("module broken", "its init failed"));
        }
        Ok(Box::new(Marks { mark: self.mark, next: self.next.clone() }))
    }
}

pub(super) fn version(mark: &'static str) -> Version {
    calling(mark, None)
}

fn calling(mark: &'static str, next: Option<Next>) -> Version {
    let about = ModuleAbout { module: mark.into(), digest: mark.into() };
    Version { factory: Arc::new(Make { mark, next }), about, trial: None }
}

/// Has these versions, by their digests.
pub(super) struct Shelf(pub(super) Vec<&'static str>);

#[async_trait]
impl VersionSource for Shelf {
    async fn version(&self, digest: &str) -> Result<Option<Version>> {
        Ok(self.0.iter().find(|mark| **mark == digest).map(|mark| version(mark)))
    }
}

/// Remembers, and notes how much was written by then.
#[derive(Default)]
pub(super) struct Log {
    histories: Mutex<BTreeMap<StepPlace, History>>,
    written: Mutex<Vec<usize>>,
    sink: Option<Arc<MemorySink>>,
}

#[async_trait]
impl VersionLog for Log {
    async fn history(&self, place: &StepPlace) -> Result<History> {
        Ok(self.histories.lock().unwrap().get(place).cloned().unwrap_or_default())
    }

    async fn remember(&self, place: &StepPlace, history: &History) -> Result<()> {
        self.written.lock().unwrap().extend(self.sink.as_ref().map(|sink| sink.written().len()));
        self.histories.lock().unwrap().insert(place.clone(), history.clone());
        Ok(())
    }
}

impl Log {
    pub(super) fn of(&self, partition: i32) -> Vec<(i64, String)> {
        let place = StepPlace { lane: GROUP.into(), step: "mark".into(), partition };
        let all = self.histories.lock().unwrap();
        let begun = all.get(&place).into_iter().flat_map(|history| &history.begun);
        begun.map(|begun| (begun.offset, begun.digest.to_string())).collect()
    }
}

/// 30 records of one partition, read ten at a time.
pub(super) fn thirty() -> (Bench, Arc<Log>) {
    let bench = Bench::new(1, 10);
    bench.broker.append(TOPIC, 0, (0..30).map(|i| event(i, CREATED, &format!(r#""n{i}.""#))));
    let log = Arc::new(Log { sink: Some(bench.sink.clone()), ..Log::default() });
    (bench, log)
}

fn pipeline(bench: &Bench, versions: &Versions, log: &Arc<Log>, batch: usize) -> Pipeline {
    let step = StepPart::Module { id: "mark".into(), versions: versions.clone(), quarantine: None };
    of_batches(bench.pipeline(vec![step]), log, batch)
}

pub(super) fn of_batches(mut pipeline: Pipeline, log: &Arc<Log>, batch: usize) -> Pipeline {
    pipeline.version_log = Some(log.clone());
    pipeline.subscription.batch_records_max = batch;
    pipeline.limits.batch_records_max = batch;
    pipeline
}

/// The first version offers the second one when it sees this record.
pub(super) fn one_then(next: Version, at: &'static str, shelf: Shelf) -> Versions {
    let cell = Arc::new(Mutex::new(None::<Versions>));
    let offered = cell.clone();
    let call = move || offered.lock().unwrap().as_ref().unwrap().offer(next.clone());
    let versions = Versions::changing(calling("one", Some((at, Arc::new(call)))), Arc::new(shelf));
    *cell.lock().unwrap() = Some(versions.clone());
    versions
}

pub(super) fn marked(mark: &str, offsets: std::ops::Range<i64>) -> Vec<String> {
    offsets.map(|offset| format!("{mark}@{offset}")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_version_is_taken_up_between_two_batches_and_remembered_first() {
    let (bench, log) = thirty();
    let versions = one_then(version("two"), "n14.", Shelf(vec!["one", "two"]));
    bench.run(pipeline(&bench, &versions, &log, 10), Mode::UntilEnd).await.unwrap();
    assert_eq!(bench.sink.written(), [marked("one", 0..20), marked("two", 20..30)].concat());
    assert_eq!(log.of(0), [(0, "one".to_owned()), (20, "two".to_owned())]);
    assert_eq!(*log.written.lock().unwrap(), [0, 20], "before the first output of each");
    assert_eq!(bench.broker.committed(GROUP, TOPIC, 0), Some(30));
}

#[tokio::test(start_paused = true)]
async fn who_goes_back_has_each_record_processed_by_the_version_it_was_for() {
    let (bench, log) = thirty();
    let versions = one_then(version("two"), "n14.", Shelf(vec!["one", "two"]));
    bench.run(pipeline(&bench, &versions, &log, 10), Mode::UntilEnd).await.unwrap();
    let before = bench.sink.written();
    // Another version is wanted by now, the pipeline was put back from its end, and batches end elsewhere.
    log.histories.lock().unwrap().values_mut().for_each(|history| history.reached = 30);
    let versions = Versions::changing(version("three"), Arc::new(Shelf(vec!["one", "two", "three"])));
    let mut again = pipeline(&bench, &versions, &log, 13);
    again.subscription.group = Some("again".into());
    bench.broker.append(TOPIC, 0, [event(30, CREATED, r#""n30.""#)]);
    bench.run(again, Mode::UntilEnd).await.unwrap();
    let after = bench.sink.written()[before.len()..].to_vec();
    assert_eq!(after, [before, marked("three", 30..31)].concat());
    assert_eq!(log.of(0)[2], (30, "three".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_taken_up_leaves_the_one_before() {
    let (bench, log) = thirty();
    let versions = one_then(version("broken"), "n4.", Shelf(vec!["one"]));
    bench.run(pipeline(&bench, &versions, &log, 10), Mode::UntilEnd).await.unwrap();
    assert_eq!(bench.sink.written(), marked("one", 0..30));
    let refused = versions.refused().unwrap();
    assert_eq!(
        (&*refused.about.digest, refused.reason.as_str()),
        ("broken", "module broken: its init failed")
    );
    assert_eq!(log.of(0), [(0, "one".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_gone_is_replaced_by_the_wanted_one() {
    let (bench, log) = thirty();
    let place = StepPlace { lane: GROUP.into(), step: "mark".into(), partition: 0 };
    let begun = [(0, "gone"), (12, "two")];
    let begun = begun.map(|(offset, digest)| Begun { offset, digest: digest.into() }).to_vec();
    log.remember(&place, &History { begun, reached: 0 }).await.unwrap();
    let versions = Versions::changing(version("two"), Arc::new(Shelf(vec!["two"])));
    bench.run(pipeline(&bench, &versions, &log, 10), Mode::UntilEnd).await.unwrap();
    assert_eq!(bench.sink.written(), marked("two", 0..30));
}
