//! A module as a step: one instance for one partition, used again from batch to batch and replaced when it fails or
//! has grown.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{Error, LookBack, Message, Outcome, Rejected, Result, Step, StepUsage};

use crate::{
    abi::Kind,
    call::{Answered, Buffers, Effects},
    fault::Fault,
    frame::Frame,
    history::History,
    instance::Instance,
    plan::{Failure, Pace, Plan, Verdict},
    program::Program,
};

/// Messages that room is made for in advance.
const EXPECTED_MAX: usize = 4_096;

/// See the module's documentation.
pub(crate) struct ModuleStep {
    program: Arc<Program>,
    /// None after a failure, until the next call. Boxed: each call takes it and puts it back.
    instance: Option<Box<Instance>>,
    history: Option<History>,
    accumulator: Vec<u8>,
    pace: Pace,
    buffers: Buffers,
    usage: StepUsage,
    /// Messages made of the last batch.
    made: usize,
}

/// A call, and what the plan needs to know of it.
struct Attempt {
    result: Result<Answered, Fault>,
    fresh: bool,
    ticks: u64,
    /// It came near its fuel.
    fuel_low: bool,
}

impl ModuleStep {
    pub(crate) fn open(program: Arc<Program>) -> Result<Self> {
        let limits = &program.limits;
        let instance = program.open()?;
        Ok(ModuleStep {
            usage: StepUsage { memory_bytes: instance.memory_bytes() as u64, recycles: 0 },
            instance: Some(Box::new(instance)),
            history: program.look_back.map(|look_back| History::new(look_back, limits.history_bytes_max)),
            accumulator: Vec::new(),
            pace: Pace::new(limits.timeout_ms, limits.call_records_max),
            buffers: Buffers::default(),
            made: 0,
            program,
        })
    }

    /// An instance as it is at the start: initialised, and shown the history.
    fn reopen(&mut self) -> Result<Instance> {
        match &mut self.history {
            None => self.program.open(),
            Some(history) => history.open_primed(&self.program),
        }
    }

    /// One call. Outputs are appended and the accumulator moves on only if it does not fail.
    fn attempt(
        &mut self,
        messages: &[Message],
        frame: &Frame,
        timeout_ms: u64,
        passed: &mut Vec<Message>,
    ) -> Result<Attempt> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => Box::new(self.reopen()?),
        };
        let fresh = instance.is_fresh();
        let start = self.program.ticks().now();
        let result = self.buffers.transform(
            &self.program,
            &mut instance,
            messages,
            frame,
            timeout_ms,
            &mut Effects { passed, accumulator: &mut self.accumulator },
        );
        let ticks = self.program.ticks().now() - start;
        let fuel_low = instance.is_fuel_low();
        self.usage.memory_bytes = self.usage.memory_bytes.max(instance.memory_bytes() as u64);
        match &result {
            Ok(_) if instance.has_outgrown() => {
                self.usage.recycles += 1;
                tracing::debug!(
                    module = %self.program.name,
                    memory_bytes = instance.memory_bytes(),
                    "instance replaced, its memory has grown"
                );
            }
            Ok(_) => self.instance = Some(instance),
            Err(fault) => {
                self.usage.recycles += 1;
                tracing::debug!(module = %self.program.name, %fault, records = messages.len(), "call failed");
            }
        }
        Ok(Attempt { result, fresh, ticks, fuel_low })
    }

    fn remember(&mut self, messages: &[Message]) {
        if let Some(history) = &mut self.history {
            history.extend(messages);
        }
    }

    fn rejection(&self, message: &Message, why: String, refused: bool) -> Rejected {
        Rejected { origin: message.origin.clone(), error: Error::reject(self.program.who(), why), refused }
    }

    /// Does what [`Plan::next`] asks for once.
    fn advance(&mut self, plan: &mut Plan, messages: &[Message], outcome: &mut Outcome) -> Result<()> {
        let limits = self.program.limits;
        let frame = Frame::cut(messages, limits.input_bytes_max);
        let messages = &messages[..frame.len];
        if frame.len == 1 && messages[0].size_bytes() > limits.memory_bytes_max {
            let why = format!("a record of {} bytes does not fit its memory", messages[0].value.len());
            outcome.rejected.push(self.rejection(&messages[0], why, false));
            plan.rejected();
            return Ok(());
        }
        let attempt = self.attempt(messages, &frame, plan.timeout_ms(&self.pace), &mut outcome.passed)?;
        match attempt.result {
            Ok(answered) => match answered.refused {
                None => {
                    let strained = attempt.fuel_low
                        || answered.bytes > limits.output_bytes_max / 4
                        || answered.records > limits.output_records_max / 4;
                    plan.passed(&mut self.pace, frame.len, attempt.ticks, strained);
                    self.remember(messages);
                }
                Some((index, hint)) => {
                    plan.refused(&mut self.pace, index);
                    self.remember(&messages[..index]);
                    outcome.rejected.push(self.rejection(&messages[index], hint, true));
                }
            },
            Err(fault) => {
                let failure = Failure {
                    records: frame.len,
                    fresh: attempt.fresh,
                    timed_out: fault.is_time_out(),
                    ticks: attempt.ticks,
                };
                match plan.failed(&mut self.pace, failure) {
                    Verdict::Narrow => {}
                    Verdict::Reject => {
                        outcome.rejected.push(self.rejection(&messages[0], fault.to_string(), false));
                    }
                    Verdict::GiveUp => {
                        let why = format!("fails on too many records and too slowly, last: {fault}");
                        return Err(Error::fatal(self.program.who(), why));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Step for ModuleStep {
    fn apply(&mut self, batch: Vec<Message>) -> Result<Outcome> {
        // As many as last time, within reason: to grow while records are worked on is dearer.
        let expected = self.made.min(EXPECTED_MAX);
        let mut outcome = Outcome { passed: Vec::with_capacity(expected), ..Outcome::default() };
        let mut plan = Plan::new(batch.len());
        while let Some(range) = plan.next(&self.pace) {
            self.advance(&mut plan, &batch[range], &mut outcome)?;
        }
        self.buffers.end_batch();
        self.made = outcome.passed.len();
        Ok(outcome)
    }

    fn look_back(&self) -> Option<LookBack> {
        self.program.look_back
    }

    fn snapshot(&self) -> Option<Bytes> {
        (self.program.info.kind == Kind::Aggregate).then(|| Bytes::copy_from_slice(&self.accumulator))
    }

    fn usage(&self) -> StepUsage {
        self.usage
    }

    fn restore(&mut self, state: Bytes) -> Result<()> {
        let (length, max) = (state.len(), self.program.limits.accumulator_bytes_max);
        if length > max {
            let why = format!("its stored state has {length} bytes, at most {max} are allowed");
            return Err(Error::fatal(self.program.who(), why));
        }
        self.accumulator = state.into();
        Ok(())
    }

    fn prime(&mut self, messages: Vec<Message>) -> Result<()> {
        if let Some(history) = &mut self.history {
            history.extend(&messages);
            self.instance = Some(Box::new(history.open_primed(&self.program)?));
        }
        Ok(())
    }
}
