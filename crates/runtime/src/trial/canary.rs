//! A canary: some of the records are processed by the version on trial, all others by the one that is wanted.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{LookBack, Message, Origin, Outcome, Result, Step, StepContext, StepFactory, StepUsage};

use super::{Part, Tried, records_of};

/// Opens the one version, the other, or both.
pub(super) struct CanaryFactory {
    pub(super) main: Arc<dyn StepFactory>,
    pub(super) canary: Arc<dyn StepFactory>,
    pub(super) part: Part,
    pub(super) tried: Arc<Tried>,
}

/// The canary of a whole partition.
struct Whole {
    step: Box<dyn Step>,
    tally: Tally,
}

/// Both versions, and who gets what.
struct Shared {
    main: Box<dyn Step>,
    canary: Box<dyn Step>,
    part: Part,
    partition: i32,
    tally: Tally,
}

/// Counts what the canary does. None: in the lane of an isolated sink, which gets the records once more.
struct Tally(Option<Arc<Tried>>);

impl StepFactory for CanaryFactory {
    fn open(&self, context: &StepContext) -> Result<Box<dyn Step>> {
        let tally = Tally(context.lane.is_none().then(|| self.tried.clone()));
        let partition = context.partition;
        Ok(match &self.part {
            Part::Partitions(partitions) if partitions.contains(&partition) => {
                Box::new(Whole { step: self.canary.open(context)?, tally })
            }
            Part::Partitions(_) => self.main.open(context)?,
            Part::Share(_) => Box::new(Shared {
                main: self.main.open(context)?,
                canary: self.canary.open(context)?,
                part: self.part.clone(),
                partition,
                tally,
            }),
        })
    }

    fn keeps_state(&self) -> bool {
        self.main.keeps_state()
    }
}

impl Tally {
    fn note(&self, records: usize, outcome: &Outcome) {
        if let Some(tried) = &self.0 {
            tried.ran(records, outcome.rejected.len());
        }
    }
}

impl Step for Whole {
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome> {
        let records = records_of(&batch).len();
        let outcome = self.step.apply(batch)?;
        self.tally.note(records, &outcome);
        Ok(outcome)
    }

    fn look_back(&self) -> Option<LookBack> {
        self.step.look_back()
    }

    fn prime(&mut self, history: Vec<Message>) -> Result<()> {
        self.step.prime(history)
    }

    fn snapshot(&self) -> Option<Bytes> {
        self.step.snapshot()
    }

    fn usage(&self) -> StepUsage {
        self.step.usage()
    }

    fn restore(&mut self, state: Bytes) -> Result<()> {
        self.step.restore(state)
    }
}

/// Neither of the two has a state or a history: each sees only a part of the records.
impl Step for Shared {
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome> {
        let records = records_of(&batch);
        let (part, partition) = (&self.part, self.partition);
        let (taken, left): (Vec<Message>, Vec<Message>) =
            batch.into_iter().partition(|message| part.takes(partition, &message.origin));
        let taken_records = records_of(&taken).len();
        let main = apply(&mut self.main, left)?;
        let canary = apply(&mut self.canary, taken)?;
        self.tally.note(taken_records, &canary);
        Ok(merged(&records, main, canary))
    }

    fn usage(&self) -> StepUsage {
        let (main, canary) = (self.main.usage(), self.canary.usage());
        StepUsage {
            memory_bytes: main.memory_bytes.max(canary.memory_bytes),
            recycles: main.recycles + canary.recycles,
        }
    }
}

fn apply(step: &mut Box<dyn Step>, part: Vec<Message>) -> Result<Outcome> {
    if part.is_empty() { Ok(Outcome::default()) } else { step.apply(part) }
}

/// Both outcomes in the order of the records.
fn merged(records: &[Arc<Origin>], main: Outcome, canary: Outcome) -> Outcome {
    let mut passed = Vec::with_capacity(main.passed.len() + canary.passed.len());
    let mut sides = [main.passed, canary.passed].map(|side| side.into_iter().peekable());
    for record in records {
        for side in &mut sides {
            passed
                .extend(std::iter::from_fn(|| side.next_if(|message| Arc::ptr_eq(&message.origin, record))));
        }
    }
    let mut rejected = main.rejected;
    rejected.extend(canary.rejected);
    Outcome { passed, rejected }
}
