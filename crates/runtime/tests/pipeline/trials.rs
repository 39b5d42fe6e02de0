//! Versions on trial: a canary takes its part and no more, a shadow sees all and changes nothing.

use std::{collections::BTreeSet, sync::Mutex};

use millrace_runtime::{Difference, Findings, Manner, Part, Trial, Tried, Version, VersionSource, Versions};

use super::*;

/// Does to a record what the record asks of this version: `fatal-MARK`, `poison-MARK`, `drop-MARK`, `twice-MARK`,
/// `key-MARK`, `value-MARK`.
#[derive(Clone)]
struct Obeys {
    mark: &'static str,
    /// Marks all results.
    marks: bool,
    is_aggregate: bool,
}

impl Step for Obeys {
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for Message { origin, value, .. } in batch {
            let text = String::from_utf8_lossy(&value).into_owned();
            let asks = |what: &str| text.contains(&format!("{what}-{}", self.mark));
            if asks("fatal") {
                return Err(Error::fatal(self.mark, "asked to fail"));
            }
            if asks("poison") {
                let error = Error::reject(self.mark, "poison");
                outcome.rejected.push(Rejected { origin, error, refused: true });
                continue;
            }
            let results = if asks("drop") { 0 } else { 1 + usize::from(asks("twice")) };
            let mark = if self.marks || asks("value") { self.mark } else { "" };
            let key = asks("key").then(|| "another".into());
            let value = format!("{mark}@{}/{}", origin.record.partition, origin.record.offset);
            let result = Message::derived(origin, key, value.into());
            outcome.passed.extend(std::iter::repeat_n(result, results));
        }
        Ok(outcome)
    }
}

impl StepFactory for Obeys {
    fn open(&self, _: &StepContext) -> Result<Box<dyn Step>> {
        if self.mark == "broken" {
            return Err(Error::fatal("module broken", "its init failed"));
        }
        Ok(Box::new(self.clone()))
    }

    fn keeps_state(&self) -> bool {
        self.is_aggregate
    }
}

fn obeys(mark: &'static str, marks: bool) -> Version {
    let about = ModuleAbout { module: format!("m@{mark}").into(), digest: mark.into() };
    Version { factory: Arc::new(Obeys { mark, marks, is_aggregate: false }), about, trial: None }
}

fn trial(mark: &'static str, manner: Manner) -> Trial {
    let Version { factory, about, .. } = obeys(mark, manner != Manner::Shadow);
    Trial { factory, about, manner }
}

fn tried(version: &Version) -> Arc<Tried> {
    version.trial.clone().unwrap()
}

/// A pipeline of a version with another one on trial, and what is found out about that.
fn pipeline(bench: &Bench, mark: &'static str, manner: Manner) -> (Pipeline, Arc<Tried>) {
    let marks = manner != Manner::Shadow;
    let version = obeys("old", marks).trying(&trial(mark, manner)).unwrap();
    let tried = tried(&version);
    (in_tens(bench, Versions::fixed(version)), tried)
}

/// The pipeline takes ten records at a time.
fn in_tens(bench: &Bench, versions: Versions) -> Pipeline {
    let mut pipeline =
        bench.pipeline(vec![StepPart::Module { id: "own".into(), versions, quarantine: None }]);
    pipeline.limits.batch_records_max = 10;
    pipeline
}

fn counted(bench: &Bench, metric: &str) -> Option<u64> {
    let text = bench.metrics.render();
    let line = text.lines().find(|line| line.starts_with(&format!("millrace_trial_{metric}_total{{")))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(start_paused = true)]
async fn a_canary_of_partitions_takes_them_whole() {
    let bench = Bench::new(3, 10);
    for partition in 0..3 {
        bench.broker.append(TOPIC, partition, (0..25).map(|i| event(i, CREATED, "{}")));
        let both = r#""poison-old poison-new""#;
        bench.broker.append(TOPIC, partition, [event(25, CREATED, both)]);
    }
    let part = Part::Partitions(BTreeSet::from([1, 7]));
    let (pipeline, tried) = pipeline(&bench, "new", Manner::Canary(part));
    bench.run(pipeline, Mode::UntilEnd).await.unwrap();
    let mut written = bench.sink.written();
    written.sort();
    let of = |mark: &'static str, partition: i32| (0..25).map(move |i| format!("{mark}@{partition}/{i}"));
    let mark = |partition| if partition == 1 { "new" } else { "old" };
    let mut expected: Vec<String> = (0..3).flat_map(|p| of(mark(p), p).collect::<Vec<_>>()).collect();
    expected.sort();
    assert_eq!(written, expected);
    assert_eq!(tried.findings(), Findings { records: 26, rejected: 1, ..Findings::default() });
    assert_eq!((counted(&bench, "records"), counted(&bench, "rejected")), (Some(26), Some(1)));
    let letters = bench.broker.records(&format!("{TOPIC}.dlq"));
    let text = |letter: &millrace_core::Record, name: &str| {
        String::from_utf8(letter.header(name).unwrap().to_vec()).unwrap()
    };
    let at_fault = letters
        .iter()
        .map(|letter| (text(letter, "millrace-origin-partition"), text(letter, "millrace-module-sha256")));
    let named = [("0", "old"), ("1", "new"), ("2", "old")].map(|(p, mark)| (p.to_owned(), mark.to_owned()));
    assert_eq!(at_fault.collect::<BTreeSet<_>>(), BTreeSet::from(named), "each letter names its version");
}

#[tokio::test(start_paused = true)]
async fn a_canary_of_a_share_keeps_the_order_and_takes_the_same_again() {
    let bench = Bench::new(1, 10);
    let payload = |i: u32| match i % 7 {
        0 => r#""twice-old twice-new""#,
        3 => r#""drop-old drop-new""#,
        _ => "{}",
    };
    bench.broker.append(TOPIC, 0, (0..700).map(|i| event(i, CREATED, payload(i))));
    let (first, tried) = pipeline(&bench, "new", Manner::Canary(Part::Share(250_000)));
    let mut again = first.clone();
    bench.run(first, Mode::UntilEnd).await.unwrap();
    let written = bench.sink.written();
    let offsets = written.iter().map(|value| value.split_once('/').unwrap().1.parse::<u32>().unwrap());
    let results = |i: u32| match i % 7 {
        0 => 2,
        3 => 0,
        _ => 1,
    };
    let expected: Vec<u32> = (0..700).flat_map(|i| std::iter::repeat_n(i, results(i))).collect();
    assert_eq!(offsets.collect::<Vec<_>>(), expected, "all results, in the order of the records");
    let taken = tried.findings().records;
    assert!((130..=220).contains(&taken), "{taken} of 700");
    again.subscription.group = Some("again".into());
    (again.subscription.batch_records_max, again.limits.batch_records_max) = (17, 17);
    bench.run(again, Mode::UntilEnd).await.unwrap();
    assert_eq!(bench.sink.written()[written.len()..], written, "batches make no difference");
}

#[tokio::test(start_paused = true)]
async fn a_shadow_has_no_effect_and_its_differences_are_known() {
    let bench = Bench::new(1, 10);
    let asks = [
        (3, "value-new"),
        (5, "key-new"),
        (7, "drop-new"),
        (8, "poison-new"),
        (12, "poison-old"),
        (13, "poison-old poison-new"),
        (14, "twice-old twice-new"),
        (230, "drop-old"),
    ];
    let payload = |i: u32| asks.iter().find(|(at, _)| *at == i).map_or("", |(_, ask)| *ask);
    bench.broker.append(TOPIC, 0, (0..250).map(|i| event(i, CREATED, &format!("{:?}", payload(i)))));
    let (mut pipeline, tried) = pipeline(&bench, "new", Manner::Shadow);
    // More than a shadow is given at once.
    pipeline.subscription.batch_records_max = 250;
    pipeline.limits.batch_records_max = 250;
    let summary = bench.run(pipeline, Mode::UntilEnd).await.unwrap();
    assert_eq!((summary.records, summary.dead_letters), (250, 2), "those of the version that counts");
    let results = |i: u32| match i {
        12 | 13 | 230 => 0,
        14 => 2,
        _ => 1,
    };
    let expected = (0..250).flat_map(|i| std::iter::repeat_n(format!("@0/{i}"), results(i)));
    assert_eq!(bench.sink.written(), expected.collect::<Vec<_>>());
    let Findings { records, rejected, differing, first, off } = tried.findings();
    assert_eq!((records, rejected, differing, off.len()), (250, 2, 6, 0));
    let first: Vec<_> =
        first.iter().map(|one| (&*one.topic, one.partition, one.offset, one.difference)).collect();
    let expected = [
        (3, Difference::Value),
        (5, Difference::Key),
        (7, Difference::Count),
        (8, Difference::Rejected),
        (12, Difference::Accepted),
        (230, Difference::Count),
    ];
    assert_eq!(first, expected.map(|(offset, difference)| (TOPIC, 0, offset, difference)));
    assert_eq!((counted(&bench, "records"), counted(&bench, "differing")), (Some(250), Some(6)));
}

#[tokio::test(start_paused = true)]
async fn only_the_first_differing_records_are_kept() {
    let bench = Bench::new(1, 10);
    bench.broker.append(TOPIC, 0, (0..30).map(|i| event(i, CREATED, r#""value-new""#)));
    let (pipeline, tried) = pipeline(&bench, "new", Manner::Shadow);
    bench.run(pipeline, Mode::UntilEnd).await.unwrap();
    let Findings { differing, first, .. } = tried.findings();
    assert_eq!((differing, first.iter().map(|one| one.offset).collect()), (30, (0..10).collect::<Vec<_>>()));
}

#[tokio::test(start_paused = true)]
async fn a_shadow_that_fails_is_switched_off_and_nothing_else_happens() {
    let bench = Bench::new(2, 10);
    let payload = |i| if i == 14 { r#""fatal-new""# } else { "{}" };
    bench.broker.append(TOPIC, 0, (0..30).map(|i| event(i, CREATED, payload(i))));
    bench.broker.append(TOPIC, 1, (30..40).map(|i| event(i, CREATED, "{}")));
    let (pipeline, tried) = pipeline(&bench, "new", Manner::Shadow);
    let summary = bench.run(pipeline, Mode::UntilEnd).await.unwrap();
    assert_eq!((summary.records, summary.dead_letters, bench.sink.written().len()), (40, 0, 40));
    let Findings { records, off, .. } = tried.findings();
    assert_eq!(records, 20, "one batch of the one, and all of the other");
    assert_eq!(off.into_iter().collect::<Vec<_>>(), [(0, "new: asked to fail".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_shadow_that_cannot_be_opened_is_no_matter() {
    let bench = Bench::new(1, 10);
    bench.broker.append(TOPIC, 0, (0..30).map(|i| event(i, CREATED, "{}")));
    let (pipeline, tried) = pipeline(&bench, "broken", Manner::Shadow);
    bench.run(pipeline, Mode::UntilEnd).await.unwrap();
    assert_eq!(bench.sink.written().len(), 30);
    let Findings { records, off, .. } = tried.findings();
    assert_eq!((records, off[&0].as_str()), (0, "module broken: its init failed"));
}

#[tokio::test(start_paused = true)]
async fn the_lane_of_an_isolated_sink_compares_nothing_a_second_time() {
    for manner in [Manner::Shadow, Manner::Canary(Part::Share(999_999))] {
        let bench = Bench::new(1, 10);
        bench.broker.append(TOPIC, 0, (0..30).map(|i| event(i, CREATED, "{}")));
        let (mut pipeline, tried) = pipeline(&bench, "new", manner.clone());
        (pipeline.name, pipeline.lane) = ("p/memory".into(), Some("memory".into()));
        bench.run(pipeline, Mode::UntilEnd).await.unwrap();
        assert_eq!((bench.sink.written().len(), tried.findings()), (30, Findings::default()));
        let is_canary = bench.sink.written()[0].starts_with("new");
        assert_eq!(is_canary, manner != Manner::Shadow, "a canary is one in all lanes");
    }
}

/// Has no versions of before.
struct Nothing;

#[async_trait]
impl VersionSource for Nothing {
    async fn version(&self, _: &str) -> Result<Option<Version>> {
        Ok(None)
    }
}

/// Offers a version when it sees a record.
struct Offers {
    next: Mutex<Option<(Versions, Version)>>,
    inner: Obeys,
}

struct Offering(Arc<Offers>, Box<dyn Step>);

impl Step for Offering {
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome> {
        if batch.iter().any(|message| message.origin.record.offset == 14)
            && let Some((versions, next)) = self.0.next.lock().unwrap().take()
        {
            versions.offer(next);
        }
        self.1.apply(batch)
    }
}

struct OfferingFactory(Arc<Offers>);

impl StepFactory for OfferingFactory {
    fn open(&self, context: &StepContext) -> Result<Box<dyn Step>> {
        Ok(Box::new(Offering(self.0.clone(), self.0.inner.open(context)?)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_trial_goes_on_beside_the_next_version() {
    let bench = Bench::new(1, 10);
    bench.broker.append(TOPIC, 0, (0..30).map(|i| event(i, CREATED, "{}")));
    let trial = trial("new", Manner::Shadow);
    let inner = Obeys { mark: "old", marks: false, is_aggregate: false };
    let offers = Arc::new(Offers { next: Mutex::default(), inner });
    let old = Version { factory: Arc::new(OfferingFactory(offers.clone())), ..obeys("old", false) };
    let versions = Versions::changing(old.trying(&trial).unwrap(), Arc::new(Nothing));
    let before = tried(&versions.wanted());
    let next = obeys("next", true).trying(&trial).unwrap();
    *offers.next.lock().unwrap() = Some((versions.clone(), next));
    bench.run(in_tens(&bench, versions.clone()), Mode::UntilEnd).await.unwrap();
    let expected = (0..30).map(|i| format!("{}@0/{i}", if i < 20 { "" } else { "next" }));
    assert_eq!(bench.sink.written(), expected.collect::<Vec<_>>());
    assert_eq!((before.findings().records, before.findings().differing), (20, 0));
    let after = tried(&versions.wanted()).findings();
    assert_eq!(
        (after.records, after.differing),
        (10, 10),
        "compared with the next one from its first record on"
    );
    assert_eq!(counted(&bench, "records"), Some(30));
}

#[test]
fn what_cannot_stand_beside_each_other_is_refused() {
    let aggregate = |version: Version| {
        let factory = Arc::new(Obeys { mark: "sum", marks: false, is_aggregate: true });
        Version { factory, ..version }
    };
    let part = || Manner::Canary(Part::Partitions(BTreeSet::from([0])));
    let of_aggregate = |manner| {
        let Version { factory, about, .. } = aggregate(obeys("new", false));
        Trial { factory, about, manner }
    };
    let why = |version: Version, trial: &Trial| version.trying(trial).err().unwrap().chain();
    assert!(why(obeys("old", false), &of_aggregate(part())).contains("the other is not"));
    assert!(why(aggregate(obeys("old", false)), &trial("new", part())).contains("the other is not"));
    let share = of_aggregate(Manner::Canary(Part::Share(1)));
    assert!(why(aggregate(obeys("old", false)), &share).contains("name 'partitions'"));
    assert!(aggregate(obeys("old", false)).trying(&of_aggregate(part())).unwrap().factory.keeps_state());
    assert!(!obeys("old", false).trying(&of_aggregate(Manner::Shadow)).unwrap().factory.keeps_state());
    let same = obeys("new", false).trying(&trial("new", Manner::Shadow)).unwrap();
    assert!(same.trial.is_none(), "a version is not tried beside itself");
}
