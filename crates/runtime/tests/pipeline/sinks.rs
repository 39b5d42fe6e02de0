//! What sinks are handed: identities that differ in whatever parts outputs come, and no more calls than they take.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use millrace_core::Ordinals;

use super::*;

/// Keeps the identities of effects that all have one key.
#[derive(Default)]
struct Identities(Mutex<Vec<String>>);

#[async_trait]
impl Sink for Identities {
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    fn encode(&self, messages: &[Message]) -> Encoded {
        self.encode_part(messages, &mut Ordinals::default())
    }

    fn encode_part(&self, messages: &[Message], ordinals: &mut Ordinals) -> Encoded {
        ordinals.begin_part();
        let id = SinkId { pipeline: GROUP.into(), sink: "identities".into() };
        let identity = |message| ordinals.next(&id, "key", message).as_str().to_owned();
        let calls = (0..).zip(messages.iter().map(identity));
        let call = |(place, identity): (u32, String)| Call::single("count", place, vec![identity.into()]);
        Encoded { calls: calls.map(call).collect(), rejected: Vec::new() }
    }

    async fn send(&self, calls: &[Call]) -> Vec<Answer> {
        let identities = calls.iter().map(|c| String::from_utf8(c.ops[0].parts[0].to_vec()).unwrap());
        self.0.lock().unwrap().extend(identities);
        calls.iter().map(|_| Answer::Done).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn outputs_of_one_event_differ_in_whatever_parts_they_come() {
    let store = MemoryLookup::with_set("followers:a", (0..25).map(|i| format!("f{i:02}")));
    let mut seen: Vec<HashSet<String>> = Vec::new();
    for (page, outputs_max) in [(10, 100), (4, 100), (3, 1)] {
        let bench = Bench::new(1, 100);
        let event = |id| event(id, CREATED, &format!(r#"{{"u":"a","p":"p{id}"}}"#));
        bench.broker.append(TOPIC, 0, [event(1), event(2)]);
        let lookup = StepPart::Lookup(Arc::new(followers(&store, page)));
        let sink = Arc::new(Identities::default());
        let mut pipeline = bench.pipeline(vec![lookup]);
        pipeline.sinks[0].sink = sink.clone();
        pipeline.limits.outputs_max = outputs_max;
        bench.run(pipeline, Mode::UntilEnd).await.unwrap();
        let identities = sink.0.lock().unwrap().clone();
        // A page is an output: one event has as many as the set has pages.
        assert_eq!(identities.len(), 2 * 25_usize.div_ceil(page as usize), "pages of {page}");
        seen.push(identities.iter().cloned().collect());
        assert_eq!(
            seen[seen.len() - 1].len(),
            identities.len(),
            "pages of {page}: two effects have one identity"
        );
    }
    assert!(
        seen[0].is_subset(&seen[1]) && seen[1].is_subset(&seen[2]),
        "the first of a key is always the first"
    );
}

/// Takes a second for each call, one after the other, and two calls at once.
struct OneByOne {
    sends: Mutex<Vec<usize>>,
    refuses: AtomicBool,
}

#[async_trait]
impl Sink for OneByOne {
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    fn encode(&self, messages: &[Message]) -> Encoded {
        let calls = (0..).zip(messages).map(|(place, m)| Call::single("one", place, vec![m.value.clone()]));
        Encoded { calls: calls.collect(), rejected: Vec::new() }
    }

    async fn send(&self, calls: &[Call]) -> Vec<Answer> {
        self.sends.lock().unwrap().push(calls.len());
        tokio::time::advance(Duration::from_secs(calls.len() as u64)).await;
        let refuses = self.refuses.swap(false, Ordering::Relaxed);
        let answer = || if refuses { Answer::Failed(Error::retry("one", "away")) } else { Answer::Done };
        calls.iter().map(|_| answer()).collect()
    }

    fn calls_max(&self) -> usize {
        2
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_is_handed_no_more_calls_than_it_takes_at_once() {
    let bench = Bench::new(1, 1);
    bench.broker.append(TOPIC, 0, (0..9).map(|i| event(i, CREATED, "{}")));
    let sink = Arc::new(OneByOne { sends: Mutex::default(), refuses: AtomicBool::new(true) });
    let mut pipeline = bench.pipeline(vec![]);
    // Time for three calls; for all at once there is none.
    pipeline.sinks[0].sink = sink.clone();
    pipeline.sinks[0].timeout = Duration::from_secs(3);
    bench.run(pipeline, Mode::UntilEnd).await.unwrap();
    // After a round of which nothing was done the others are not tried.
    assert_eq!(*sink.sends.lock().unwrap(), [2, 2, 2, 2, 2, 1]);
    assert_eq!(bench.broker.committed(GROUP, TOPIC, 0), Some(9));
}
