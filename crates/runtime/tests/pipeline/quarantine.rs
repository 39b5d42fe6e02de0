//! Modules that fail on one record after the other: the pipeline stops, goes on, or goes back to the version before.

use millrace_runtime::{Quarantine, Then, Versions};

use super::{
    versions::{Log, Shelf, marked, of_batches, one_then, thirty, version},
    *,
};

/// The step as in the tests of versions, in batches of ten records.
fn pipeline(bench: &Bench, versions: &Versions, log: &Arc<Log>, after: usize, then: Then) -> Pipeline {
    let quarantine = Some(Quarantine { after, then });
    let step = StepPart::Module { id: "mark".into(), versions: versions.clone(), quarantine };
    of_batches(bench.pipeline(vec![step]), log, 10)
}

fn begun(all: &[(i64, &str)]) -> Vec<(i64, String)> {
    all.iter().map(|(offset, digest)| (*offset, (*digest).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn the_version_before_takes_over_and_nothing_is_lost() {
    let (bench, log) = thirty();
    let versions = one_then(version("bad"), "n4.", Shelf(vec!["one"]));
    let pipeline = pipeline(&bench, &versions, &log, 5, Then::Previous);
    bench.run(pipeline, Mode::UntilEnd).await.unwrap();
    assert_eq!(bench.sink.written(), marked("one", 0..30));
    assert!(bench.dead_letters().is_empty());
    assert_eq!(log.of(0), begun(&[(0, "one")]));
    assert_eq!(&*versions.wanted().about.digest, "one", "for all workers");
    let refused = versions.refused().unwrap();
    let reason = "failed on 5 records in a row, 5 of them: trapped; one takes its place";
    assert_eq!((&*refused.about.digest, refused.reason.as_str()), ("bad", reason));
    assert!(versions.is_quarantined("bad"));
    versions.offer(version("bad"));
    assert!(!versions.is_quarantined("bad") && versions.refused().is_none(), "somebody wants it anew");
}

#[tokio::test(start_paused = true)]
async fn what_failed_in_batches_before_is_in_the_dead_letters() {
    let (bench, log) = thirty();
    let versions = one_then(version("bad"), "n4.", Shelf(vec!["one", "bad"]));
    let pipeline = pipeline(&bench, &versions, &log, 15, Then::Previous);
    bench.run(pipeline, Mode::UntilEnd).await.unwrap();
    assert_eq!(bench.sink.written(), [marked("one", 0..10), marked("one", 20..30)].concat());
    assert_eq!(bench.dead_letters().len(), 10);
    assert_eq!(log.of(0), begun(&[(0, "one"), (10, "bad"), (20, "one")]));
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_work_at_all_is_replaced_at_once() {
    let (bench, log) = thirty();
    let versions = one_then(version("dead"), "n4.", Shelf(vec!["one"]));
    let pipeline = pipeline(&bench, &versions, &log, 1_000, Then::Previous);
    bench.run(pipeline, Mode::UntilEnd).await.unwrap();
    assert_eq!(bench.sink.written(), marked("one", 0..30));
    assert_eq!(versions.refused().unwrap().reason, "cannot be opened any more; one takes its place");
}

#[tokio::test(start_paused = true)]
async fn without_a_version_before_it_stops() {
    let (bench, log) = thirty();
    let versions = Versions::changing(version("bad"), Arc::new(Shelf(vec!["bad"])));
    let pipeline = pipeline(&bench, &versions, &log, 5, Then::Previous);
    let error = bench.run(pipeline, Mode::UntilEnd).await.unwrap_err().chain();
    let expected = "paused by quarantine: step mark: bad failed on 5 records in a row, 5 of them: trapped";
    assert!(error.starts_with(expected), "{error}");
    assert!(bench.dead_letters().is_empty());
    assert_eq!(bench.broker.committed(GROUP, TOPIC, 0), None, "what failed is still to be done");
    assert!(versions.refused().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_with_what_was_deployed_meanwhile() {
    let (bench, log) = thirty();
    let versions = one_then(version("bad"), "n4.", Shelf(vec!["one", "bad", "two"]));
    let pipeline = pipeline(&bench, &versions, &log, 5, Then::Stop);
    let steering = pipeline.steering.clone();
    let look = async {
        steering.held().await;
        assert_eq!(steering.paused().unwrap().by, HeldBy::Quarantine);
        a_minute().await;
        assert_eq!(bench.broker.committed(GROUP, TOPIC, 0), Some(10));
        versions.offer(version("two"));
        steering.resume();
        bench.sink.wait_for(30).await;
        bench.shutdown.cancel();
    };
    let (end, ()) = tokio::join!(bench.run(pipeline, Mode::Forever), look);
    end.unwrap();
    assert_eq!(bench.sink.written(), [marked("one", 0..10), marked("two", 10..30)].concat());
    assert!(bench.dead_letters().is_empty());
    assert_eq!(log.of(0), begun(&[(0, "one"), (10, "two")]));
}

#[tokio::test(start_paused = true)]
async fn resumed_it_goes_on_and_counts_from_zero() {
    let (bench, log) = thirty();
    let pipeline = pipeline(&bench, &Versions::fixed(version("bad")), &log, 5, Then::Stop);
    let steering = pipeline.steering.clone();
    let look = async {
        for letters in [0, 10, 20] {
            steering.held().await;
            a_minute().await;
            assert_eq!(bench.dead_letters().len(), letters, "what made it stop is not written");
            steering.resume();
        }
        a_minute().await;
        assert_eq!((bench.dead_letters().len(), steering.paused()), (30, None));
        bench.shutdown.cancel();
    };
    let (end, ()) = tokio::join!(bench.run(pipeline, Mode::Forever), look);
    assert_eq!(end.unwrap().dead_letters, 30);
}

#[tokio::test(start_paused = true)]
async fn skipping_goes_on_and_is_counted() {
    let (bench, log) = thirty();
    let versions = one_then(version("bad"), "n14.", Shelf(vec!["one", "bad"]));
    let pipeline = pipeline(&bench, &versions, &log, 5, Then::Skip);
    let summary = bench.run(pipeline, Mode::UntilEnd).await.unwrap();
    assert_eq!((summary.dead_letters, bench.sink.written()), (10, marked("one", 0..20)));
    let seen = bench.metrics.render();
    let counted = |metric: &str, module: &str, value: u64| {
        let line =
            format!(r#"millrace_module_{metric}{{module="{module}",pipeline="p",step="mark"}} {value}"#);
        assert!(seen.lines().any(|seen| seen == line), "{line}\n{seen}");
    };
    counted("records_in_total", "one", 20);
    counted("records_out_total", "one", 20);
    counted("rejected_total", "one", 0);
    counted("quarantines_total", "one", 0);
    counted("records_in_total", "bad", 10);
    counted("records_out_total", "bad", 0);
    counted("rejected_total", "bad", 10);
    counted("quarantines_total", "bad", 1);
}
