//! What a step makes of a batch is handed on in portions: memory does not depend on how many a batch holds.

use std::sync::Mutex;

use super::*;

const RESULTS: usize = 100;
const RESULT_BYTES: usize = 1_000;

/// Makes many results of each message, and notes how many messages come at a time.
struct Many(Arc<Mutex<Vec<usize>>>);

impl Step for Many {
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome> {
        self.0.lock().unwrap().push(batch.len());
        let result = |message: &Message| {
            Message::derived(message.origin.clone(), None, vec![b'x'; RESULT_BYTES].into())
        };
        let passed = batch.iter().flat_map(|message| (0..RESULTS).map(|_| result(message))).collect();
        Ok(Outcome { passed, ..Outcome::default() })
    }
}

struct Make(Arc<Mutex<Vec<usize>>>);

impl StepFactory for Make {
    fn open(&self, _: &StepContext) -> Result<Box<dyn Step>> {
        Ok(Box::new(Many(self.0.clone())))
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_step_makes_of_a_batch_is_handed_on_in_portions() {
    let bench = Bench::new(1, 1_000);
    for number in 0..100 {
        bench.broker.append(TOPIC, 0, [event(number, CREATED, r#"{"u":1}"#)]);
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let about = ModuleAbout { module: "many".into(), digest: "00".into() };
    let factory = Arc::new(Make(seen.clone()));
    let mut pipeline = bench.pipeline(vec![StepPart::fixed("many".into(), factory, about)]);
    pipeline.subscription.batch_records_max = 100;
    // Ten messages become that much, and no more than a tenth of a batch.
    pipeline.limits.output_bytes_max = 10 * RESULTS * (RESULT_BYTES + 100);
    let summary = bench.run(pipeline, Mode::UntilEnd).await.unwrap();
    assert_eq!(summary.records, 100);
    let portions = seen.lock().unwrap().clone();
    assert_eq!(portions.iter().sum::<usize>(), 100);
    assert!(portions[1..].iter().all(|given| (1..=11).contains(given)), "{portions:?}");
    assert_eq!(bench.broker.committed(GROUP, TOPIC, 0), Some(100));
}
