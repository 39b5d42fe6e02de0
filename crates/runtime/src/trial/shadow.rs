//! A shadow: the version on trial is given a copy of what the wanted one gets. The wanted one's outcome is what counts;
//! how the other's differs is noted, and nothing else of it is kept, its errors least of all.

use std::{collections::HashSet, iter::Peekable, slice, sync::Arc, vec};

use bytes::Bytes;
use millrace_core::{LookBack, Message, Origin, Outcome, Result, Step, StepContext, StepFactory, StepUsage};
use tokio::time::{Duration, Instant};

use super::{Difference, Tried, records_of, same_record};

/// A shadow is given so many messages at once, so that a slow one is noticed before it has had them all.
const PORTION: usize = 100;

/// A shadow may take so long for a batch, and so many times what the other version took.
const ALLOWED: Duration = Duration::from_secs(1);
const ALLOWED_TIMES: u32 = 10;

/// Opens both versions.
pub(super) struct ShadowFactory {
    pub(super) main: Arc<dyn StepFactory>,
    pub(super) shadow: Arc<dyn StepFactory>,
    pub(super) tried: Arc<Tried>,
}

struct Shadowed {
    main: Box<dyn Step>,
    /// None when it is switched off.
    shadow: Option<Box<dyn Step>>,
    tried: Arc<Tried>,
    context: StepContext,
}

impl StepFactory for ShadowFactory {
    fn open(&self, context: &StepContext) -> Result<Box<dyn Step>> {
        let main = self.main.open(context)?;
        if context.lane.is_some() {
            // The main lane has compared the same records.
            return Ok(main);
        }
        let (tried, context) = (self.tried.clone(), context.clone());
        let mut step = Shadowed { main, shadow: None, tried, context };
        match self.shadow.open(&step.context) {
            Ok(shadow) => {
                step.shadow = Some(shadow);
                step.tried.switched(step.context.partition, None);
            }
            Err(error) => step.switch_off(error.chain()),
        }
        Ok(Box::new(step))
    }

    fn keeps_state(&self) -> bool {
        self.main.keeps_state()
    }
}

impl Shadowed {
    fn switch_off(&mut self, why: String) {
        let StepContext { pipeline, partition, .. } = &self.context;
        tracing::warn!(
            pipeline = &**pipeline,
            partition,
            module = &*self.tried.about.module,
            reason = why,
            "a shadow is switched off"
        );
        self.shadow = None;
        self.tried.switched(*partition, Some(why));
    }

    /// Does something to the shadow that must not matter.
    fn with_shadow(&mut self, what: impl FnOnce(&mut Box<dyn Step>) -> Result<()>) {
        if let Some(Err(error)) = self.shadow.as_mut().map(what) {
            self.switch_off(error.chain());
        }
    }
}

impl Step for Shadowed {
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome> {
        let Some(shadow) = &mut self.shadow else { return self.main.apply(batch) };
        let (copy, started) = (batch.clone(), Instant::now());
        let outcome = self.main.apply(batch)?;
        if let Err(why) = compare(shadow, copy, &outcome, started.elapsed(), &self.tried) {
            self.switch_off(why);
        }
        Ok(outcome)
    }

    fn look_back(&self) -> Option<LookBack> {
        self.main.look_back()
    }

    fn prime(&mut self, history: Vec<Message>) -> Result<()> {
        self.with_shadow(|shadow| shadow.prime(history.clone()));
        self.main.prime(history)
    }

    fn snapshot(&self) -> Option<Bytes> {
        self.main.snapshot()
    }

    fn usage(&self) -> StepUsage {
        self.main.usage()
    }

    fn restore(&mut self, state: Bytes) -> Result<()> {
        self.with_shadow(|shadow| shadow.restore(state.clone()));
        self.main.restore(state)
    }
}

/// Gives the shadow what the other version took `took` for, and notes how the outcomes differ.
///
/// # Errors
/// Why the shadow is not to be asked again.
fn compare(
    shadow: &mut Box<dyn Step>,
    copy: Vec<Message>,
    outcome: &Outcome,
    took: Duration,
    tried: &Tried,
) -> std::result::Result<(), String> {
    let (mut main, mut rest) = (Results::of(outcome), copy.into_iter().peekable());
    let started = Instant::now();
    loop {
        let portion = portion(&mut rest);
        if portion.is_empty() {
            return Ok(());
        }
        let records = records_of(&portion);
        let other = shadow.apply(portion).map_err(|error| error.chain())?;
        tried.ran(records.len(), other.rejected.len());
        let mut other = Results::of(&other);
        for record in &records {
            if let Some(difference) = main.next(record).differs_from(&other.next(record)) {
                tried.differs(record, difference);
            }
        }
        too_slow(took, started.elapsed())?;
    }
}

/// The next messages, with all that came from their last record.
fn portion(rest: &mut Peekable<vec::IntoIter<Message>>) -> Vec<Message> {
    let mut portion: Vec<Message> = Vec::with_capacity(PORTION.min(rest.len()));
    let belongs = |portion: &[Message], next: &Message| {
        portion.len() < PORTION || portion.last().is_some_and(|last| same_record(last, next))
    };
    while let Some(message) = rest.next_if(|next| belongs(&portion, next)) {
        portion.push(message);
    }
    portion
}

/// A shadow holds up the pipeline for as long as it takes, which must not be for long.
fn too_slow(took: Duration, shadow_took: Duration) -> std::result::Result<(), String> {
    if shadow_took <= ALLOWED + took * ALLOWED_TIMES {
        return Ok(());
    }
    Err(format!(
        "took more than {} ms for records that the version in use takes {} ms for",
        shadow_took.as_millis(),
        took.as_millis()
    ))
}

/// An outcome, record by record.
struct Results<'a> {
    passed: Peekable<slice::Iter<'a, Message>>,
    rejected: HashSet<*const Origin>,
}

/// What became of one record.
struct Became<'a> {
    rejected: bool,
    passed: Vec<&'a Message>,
}

impl<'a> Results<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        let rejected = outcome.rejected.iter().map(|rejected| Arc::as_ptr(&rejected.origin)).collect();
        Results { passed: outcome.passed.iter().peekable(), rejected }
    }

    /// Of the next record.
    fn next(&mut self, record: &Arc<Origin>) -> Became<'a> {
        let of_record = |message: &&Message| Arc::ptr_eq(&message.origin, record);
        let passed = std::iter::from_fn(|| self.passed.next_if(of_record)).collect();
        Became { rejected: self.rejected.contains(&Arc::as_ptr(record)), passed }
    }
}

impl Became<'_> {
    /// In what `shadow` differs from this, if it does.
    fn differs_from(&self, shadow: &Self) -> Option<Difference> {
        match (self.rejected, shadow.rejected) {
            (true, true) => return None,
            (false, true) => return Some(Difference::Rejected),
            (true, false) => return Some(Difference::Accepted),
            (false, false) => {}
        }
        if self.passed.len() != shadow.passed.len() {
            return Some(Difference::Count);
        }
        let mut pairs = self.passed.iter().zip(&shadow.passed);
        pairs.find_map(|(one, other)| match () {
            () if one.key != other.key => Some(Difference::Key),
            () if one.value != other.value => Some(Difference::Value),
            () => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shadow_may_take_some_time_but_not_any() {
        let ms = Duration::from_millis;
        assert_eq!(too_slow(ms(2), ms(1_020)), Ok(()));
        assert_eq!(too_slow(ms(5_000), ms(50_000)), Ok(()));
        let why = too_slow(ms(2), ms(1_021)).expect_err("it is too slow");
        assert_eq!(why, "took more than 1021 ms for records that the version in use takes 2 ms for");
    }
}
