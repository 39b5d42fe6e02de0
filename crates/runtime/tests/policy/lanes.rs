//! Isolated sinks: one that is away stops nobody else, and misses nothing.

use std::sync::Arc;

use millrace_core::{Error, Message, Outcome, Rejected, Result, Step, StepContext, StepFactory, TopicSpec};
use millrace_runtime::{DeadLetterQueue, Mode, ModuleAbout, Pipeline, PipelineState, StepPart};
use tokio::time::Duration;

use crate::{
    doubles::{Mood, System},
    stage::{Stage, TOPIC, breaker, pass, sink},
};

/// The lane that feeds one sink of `p`.
fn lane(stage: &Stage, id: &str, system: &Arc<System>) -> Pipeline {
    let part = sink("p", id, system, &breaker(&format!("store {id}")));
    let mut pipeline = stage.pipeline("p", vec![part]);
    (pipeline.name, pipeline.lane) = (format!("p/{id}").into(), Some(id.into()));
    pipeline.subscription.group = Some(format!("p.{id}"));
    let topic = TopicSpec {
        name: format!("{TOPIC}.dlq"),
        partitions: 1,
        retention_ms: None,
        retention_bytes: None,
        record_bytes_max: 1 << 20,
        replication: None,
        compact: false,
    };
    let broker = Arc::new(stage.broker.clone());
    let queue = DeadLetterQueue::new("p".into(), topic, broker.clone(), broker).of_lane(id.into());
    pipeline.dead_letters = Arc::new(queue);
    pipeline
}

fn main_lane(stage: &Stage, systems: &[(&str, &Arc<System>)]) -> Pipeline {
    let part = |(id, system): &(&str, &Arc<System>)| sink("p", id, system, &breaker(&format!("store {id}")));
    stage.pipeline("p", systems.iter().map(part).collect())
}

#[tokio::test(start_paused = true)]
async fn one_dead_sink_of_three_stops_nobody_and_misses_nothing() {
    let stage = Stage::new(4, 500);
    let [feeds, search, hook] = [Mood::Works, Mood::Works, Mood::Away].map(System::new);
    let others = [("feeds", &feeds), ("search", &search)];
    let isolated = lane(&stage, "hook", &hook);
    assert_eq!(isolated.configured_name(), "p");
    let running = stage.start(vec![main_lane(&stage, &others), isolated]);
    feeds.wait_for(2_000).await;
    search.wait_for(2_000).await;
    // An hour, with new events now and then.
    for number in 0..60 {
        stage.append(0, 500 + number..501 + number);
        pass(Duration::from_secs(60)).await;
    }
    assert_eq!((feeds.written().len(), search.written().len(), hook.written().len()), (2_060, 2_060, 0));
    assert_eq!(stage.committed("p"), [Some(560), Some(500), Some(500), Some(500)]);
    assert_eq!(stage.committed("p.hook"), [None; 4]);
    let states = stage.health.states();
    assert_eq!(states["p"], PipelineState::Running);
    assert!(matches!(states["p/hook"], PipelineState::Retrying(_)), "{states:?}");
    stage.stop(running).await;

    // Another process takes over; the hook is back.
    let again = Stage { shutdown: Default::default(), ..stage };
    hook.turn(Mood::Works);
    let pipelines = vec![main_lane(&again, &others), lane(&again, "hook", &hook)];
    let report = again.run(pipelines, Mode::UntilEnd).await.unwrap();
    assert!(report.failures.is_empty(), "{report:?}");
    let names: Vec<&str> = report.summaries.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["p", "p/hook"]);
    let (mut all, mut late) = (feeds.written(), hook.written());
    all.sort();
    late.sort();
    assert_eq!(all, late, "each once, in both");
    assert_eq!(again.committed("p.hook"), [Some(560), Some(500), Some(500), Some(500)]);
}

/// Rejects what it is told to.
#[derive(Clone)]
struct Rejects(&'static str);

impl Step for Rejects {
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for message in batch {
            if message.origin.envelope.event_id.as_deref() == Some(self.0) {
                let error = Error::reject("module", "no");
                outcome.rejected.push(Rejected { origin: message.origin.clone(), error, refused: true });
            } else {
                outcome.passed.push(message);
            }
        }
        Ok(outcome)
    }
}

impl StepFactory for Rejects {
    fn open(&self, context: &StepContext) -> Result<Box<dyn Step>> {
        assert_eq!(&*context.pipeline, "p", "a step does not see its lane");
        Ok(Box::new(self.clone()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_buries_what_it_rejects_itself_but_not_what_nobody_can_decode() {
    let stage = Stage::new(1, 10);
    stage.broker.append(TOPIC, 0, ["no event"]);
    let [feeds, hook] = [Mood::Works, Mood::Works].map(System::new);
    let mut lane = lane(&stage, "hook", &hook);
    let about = ModuleAbout { module: "m".into(), digest: "00".into() };
    // As a module may that is slow in one place and not in another.
    lane.steps = vec![StepPart::fixed("m".into(), Arc::new(Rejects("0-3")), about)];
    let report =
        stage.run(vec![main_lane(&stage, &[("feeds", &feeds)]), lane], Mode::UntilEnd).await.unwrap();
    assert!(report.failures.is_empty(), "{report:?}");
    let letters = stage.broker.records(&format!("{TOPIC}.dlq"));
    let mut seen: Vec<[Option<String>; 3]> = letters
        .iter()
        .map(|letter| {
            ["millrace-lane", "millrace-pipeline", "millrace-place"]
                .map(|name| letter.header(name).map(|value| String::from_utf8_lossy(value).into_owned()))
        })
        .collect();
    seen.sort();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(seen, [[None, some("p"), some("decode")], [some("hook"), some("p"), some("step:m")]]);
    assert_eq!((feeds.written().len(), hook.written().len()), (10, 9));
    assert_eq!((stage.committed("p")[0], stage.committed("p.hook")[0]), (Some(11), Some(11)));
}

#[tokio::test(start_paused = true)]
async fn a_lane_is_paused_alone() {
    let stage = Stage::new(1, 30);
    let [feeds, hook] = [Mood::Works, Mood::Refuses].map(System::new);
    let mut lane = lane(&stage, "hook", &hook);
    lane.limits.dead_letters_per_minute_max = 5;
    let (of_lane, main) = (lane.steering.clone(), main_lane(&stage, &[("feeds", &feeds)]));
    let of_main = main.steering.clone();
    let running = stage.start(vec![main, lane]);
    crate::stage::paused(&of_lane).await;
    feeds.wait_for(30).await;
    assert_eq!(of_main.paused(), None);
    assert_eq!(feeds.written().len(), 30);
    stage.stop(running).await;
}
