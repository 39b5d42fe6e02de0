//! A step and a portion of messages: what it makes of them, and what is done when it fails on one record after the
//! other.
//!
//! Another version takes over at a portion's beginning: nothing that the one before made of the portion has left the step
//! by then, so each record has its results from one version.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{Message, Outcome, Result, off_the_reactor};
use tokio::time::Instant;

use super::{Flow, Halt, StepState};
use crate::{
    dead_letter::Place, pipeline::ModuleAbout, quarantine::Then, steering::HeldBy, trial::Tried,
    versions::Version,
};

/// What another version needs to do a portion over.
struct Kept {
    messages: Vec<Message>,
    /// What the step carried from batch to batch before it.
    state: Option<Bytes>,
}

/// A module that fails on one record after the other.
struct Failing {
    step: Arc<str>,
    about: ModuleAbout,
    /// Which version it is, for people: a canary's own name.
    module: Arc<str>,
    then: Then,
    /// In which way, without words of the module's own.
    reason: String,
    /// The step cannot work at all.
    fatal: bool,
}

impl Flow {
    /// Has the step at a stage work on messages, at least one. Gives what it made of them.
    pub(super) async fn apply(
        &mut self,
        index: usize,
        mut messages: Vec<Message>,
    ) -> Result<Vec<Message>, Halt> {
        loop {
            let kept = self.step(index).keep(&messages);
            let made_bytes_max = self.context.pipeline.limits.output_bytes_max;
            let (result, reason) = self.step(index).work(messages, made_bytes_max);
            let partition = self.context.partition;
            let failing = reason.and_then(|reason| self.step(index).failing(partition, reason, &result));
            let again = match failing {
                Some(failing) => self.relieve(index, failing, kept).await?,
                None => None,
            };
            match again {
                Some(again) => messages = again,
                None => return result.map(|outcome| self.settle(index, outcome)).map_err(Halt::Fatal),
            }
        }
    }

    /// Does what the policy says. Gives the messages where another version is to do them over.
    async fn relieve(
        &mut self,
        index: usize,
        failing: Failing,
        kept: Option<Kept>,
    ) -> Result<Option<Vec<Message>>, Halt> {
        let context = self.context.clone();
        let (pipeline, step, module) = (&*context.pipeline.name, &*failing.step, &*failing.module);
        if failing.then == Then::Skip {
            let reason = &*failing.reason;
            tracing::warn!(pipeline, step, module, reason, "a module fails again and again, and goes on");
            return Ok(None);
        }
        if failing.then == Then::Previous
            && let Some(kept) = &kept
            && let Some(version) = self.turns(index).instead_of(&context, &failing.about).await?
            && self.take_over(index, &version, kept).await?
        {
            let (instead, reason) = (&*version.about.module, &*failing.reason);
            tracing::error!(
                pipeline,
                step,
                module,
                reason,
                instead,
                "a module fails again and again, another version takes over"
            );
            let reason = format!("{reason}; {instead} takes its place");
            self.turns(index).quarantine(&failing.about, &version, reason);
            return Ok(Some(kept.messages.clone()));
        }
        if failing.fatal {
            return Ok(None);
        }
        context.pause(HeldBy::Quarantine, format!("step {step}: {module} {}", failing.reason)).await?;
        if let Some(watch) = &mut self.step(index).watch {
            watch.begin_again();
        }
        // Who resumes it may have deployed something better.
        if let Some(kept) = kept
            && let Some(version) = self.turns(index).news(&failing.about)
            && self.take_over(index, &version, &kept).await?
        {
            return Ok(Some(kept.messages));
        }
        Ok(None)
    }

    /// Whether a version can go on from the beginning of what was kept.
    async fn take_over(&mut self, index: usize, version: &Arc<Version>, kept: &Kept) -> Result<bool, Halt> {
        let opened = version.factory.open(&self.context.step_context()).and_then(|mut step| {
            kept.state.clone().map_or(Ok(()), |state| step.restore(state))?;
            Ok(step)
        });
        match opened {
            Ok(step) => {
                self.turn_to(index, version, step, kept.messages[0].offset()).await?;
                Ok(true)
            }
            Err(error) => {
                let (pipeline, module) = (&*self.context.pipeline.name, &*version.about.module);
                tracing::error!(pipeline, module, error = %error.chain(), "a version cannot take over");
                Ok(false)
            }
        }
    }

    /// Notes what was rejected, and gives what passed.
    fn settle(&mut self, index: usize, outcome: Outcome) -> Vec<Message> {
        let StepState { id, about, trial, .. } = self.step(index);
        let (id, about, trial) = (id.clone(), about.clone(), trial.clone());
        if let Some(trial) = &trial {
            trial.count(&self.context.metrics, &self.context.pipeline.name, &id);
        }
        let partition = self.context.partition;
        for rejected in outcome.rejected {
            let canary = trial.as_ref().filter(|trial| trial.took(partition, &rejected.origin));
            let about = canary.map_or(&about, |canary| &canary.about);
            self.reject(rejected.origin, Place::Step(id.clone()), &rejected.error, Some(about));
        }
        outcome.passed
    }
}

impl StepState {
    /// What may be needed again: no more than references, but not for nothing.
    fn keep(&self, messages: &[Message]) -> Option<Kept> {
        let (Some(watch), Some(_)) = (&self.watch, &self.turns) else { return None };
        let keeps = match watch.then() {
            Then::Previous => true,
            Then::Stop => watch.is_close(messages.len()),
            Then::Skip => false,
        };
        keeps.then(|| Kept { messages: messages.to_vec(), state: self.step.snapshot() })
    }

    /// What the step makes of messages; and what is to be said of it, if it cannot go on like that.
    fn work(&mut self, messages: Vec<Message>, made_bytes_max: usize) -> (Result<Outcome>, Option<String>) {
        let offsets: Vec<i64> = messages.iter().map(Message::offset).collect();
        let started = Instant::now();
        match off_the_reactor(|| self.step.apply(messages)) {
            Ok(outcome) => {
                self.meters.note(offsets.len(), &outcome, started.elapsed(), self.step.usage());
                let made_bytes = outcome.passed.iter().map(Message::size_bytes).sum();
                self.portions.learn(offsets.len(), made_bytes, made_bytes_max);
                let said = self.watch.as_mut().and_then(|watch| watch.look(&offsets, &outcome.rejected));
                (Ok(outcome), said)
            }
            Err(error) => {
                let said = error.why().to_owned();
                (Err(error), Some(said))
            }
        }
    }

    /// Who fails, if anything is to be done about it beside what is done in any case. A canary has no version before it:
    /// the pipeline stops, and whoever tries it takes it back.
    fn failing(&self, partition: i32, reason: String, result: &Result<Outcome>) -> Option<Failing> {
        let fatal = result.is_err();
        let last = result.as_ref().ok().and_then(|outcome| outcome.rejected.last());
        let took = |trial: &&Arc<Tried>| last.is_some_and(|last| trial.took(partition, &last.origin));
        let canary = self.trial.as_ref().filter(took);
        let then = match self.watch.as_ref()?.then() {
            Then::Previous if canary.is_some() => Then::Stop,
            then => then,
        };
        if fatal && then != Then::Previous {
            return None;
        }
        self.meters.quarantines.inc();
        let module = canary.map_or(&self.about, |canary| &canary.about).module.clone();
        Some(Failing { step: self.id.clone(), about: self.about.clone(), module, then, reason, fatal })
    }
}
