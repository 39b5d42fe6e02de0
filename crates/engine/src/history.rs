//! The records that `look_back` has seen or would see now: kept in the host, so that an instance can be replaced.

use std::collections::VecDeque;

use millrace_core::{Error, LookBack, Message, Result};

use crate::{
    frame::Frame,
    instance::{Instance, LookedBack},
    program::Program,
};

/// Failures of `look_back` in one priming after which the module is given up.
const FAULTS_MAX: usize = 40;

/// The last messages, oldest first, bounded in number, bytes and age.
#[derive(Debug)]
pub(crate) struct History {
    messages: VecDeque<Message>,
    look_back: LookBack,
    bytes: usize,
    bytes_max: usize,
}

impl History {
    pub(crate) fn new(look_back: LookBack, bytes_max: usize) -> Self {
        History { messages: VecDeque::new(), look_back, bytes: 0, bytes_max }
    }

    /// Appends messages that were processed, and forgets what is beyond the bounds.
    pub(crate) fn extend(&mut self, messages: &[Message]) {
        for message in messages {
            self.bytes += message.size_bytes();
            self.messages.push_back(message.clone());
        }
        let newest_ms = self.messages.back().map_or(0, timestamp_ms);
        while let Some(oldest) = self.messages.front() {
            let too_old = self.look_back.age_max.is_some_and(|age| {
                u128::try_from(newest_ms.saturating_sub(timestamp_ms(oldest)))
                    .is_ok_and(|passed_ms| passed_ms > age.as_millis())
            });
            let too_many = self.messages.len() > self.look_back.records_max as usize;
            if !too_old && !too_many && self.bytes <= self.bytes_max {
                break;
            }
            self.remove(0);
        }
    }

    fn remove(&mut self, index: usize) {
        if let Some(message) = self.messages.remove(index) {
            self.bytes -= message.size_bytes();
        }
    }

    /// Opens an instance and shows it the history. A record that `look_back` refuses or fails on is left out, then
    /// and later: one bad record must not keep a pipeline from starting for as long as it is remembered.
    ///
    /// # Errors
    /// Fatal when no instance can be opened, or `look_back` fails on too many records.
    pub(crate) fn open_primed(&mut self, program: &Program) -> Result<Instance> {
        let mut faults = 0;
        let mut left_out = LeftOut::default();
        let mut records_max = program.limits.call_records_max;
        loop {
            let mut instance = program.open()?;
            match self.show(&mut instance, program, &mut records_max, &mut left_out) {
                Shown::All => {
                    left_out.report(program);
                    return Ok(instance);
                }
                Shown::Failed(why) => {
                    faults += 1;
                    if faults > FAULTS_MAX {
                        let why = format!("look_back failed {faults} times, last: {why}");
                        return Err(Error::fatal(program.who(), why));
                    }
                }
            }
        }
    }

    /// Shows all messages to one instance. After a failure the instance is of no use any more, and either the
    /// records of a call are fewer or the record at fault is gone.
    fn show(
        &mut self,
        instance: &mut Instance,
        program: &Program,
        records_max: &mut usize,
        left_out: &mut LeftOut,
    ) -> Shown {
        let limits = &program.limits;
        let mut at = 0;
        while at < self.messages.len() {
            let messages = &self.messages.make_contiguous()[at..];
            let messages = &messages[..messages.len().min(*records_max)];
            let frame = Frame::cut(messages, limits.input_bytes_max);
            let messages = &messages[..frame.len];
            let shown = instance.look_back(&frame.input(messages, None), limits.timeout_ms);
            let why = match shown {
                Ok(LookedBack::All) => {
                    at += frame.len;
                    continue;
                }
                Ok(LookedBack::Refused { offset, hint }) => {
                    let refused = (0..frame.len).find(|index| {
                        frame.base.offset.saturating_add(frame.offset_delta(*index, &messages[*index]))
                            == offset
                    });
                    if let Some(index) = refused {
                        left_out.add(&messages[index], &hint);
                        self.remove(at + index);
                        at += index;
                        // The rest of the call was encoded in vain, as in a transform.
                        *records_max = (2 * (index + 1)).min(limits.call_records_max);
                        continue;
                    }
                    format!("its error is of offset {offset}, which is not of the input")
                }
                Err(fault) => fault.to_string(),
            };
            if frame.len == 1 {
                left_out.add(&messages[0], &why);
                self.remove(at);
            } else {
                *records_max = frame.len / 2;
            }
            return Shown::Failed(why);
        }
        Shown::All
    }
}

enum Shown {
    All,
    Failed(String),
}

/// Records that `look_back` did not take, for one line in the log.
#[derive(Debug, Default)]
struct LeftOut {
    count: usize,
    first: Option<(i64, String)>,
}

impl LeftOut {
    fn add(&mut self, message: &Message, why: &str) {
        self.count += 1;
        self.first.get_or_insert_with(|| (message.offset(), why.to_owned()));
    }

    fn report(&self, program: &Program) {
        if let Some((offset, why)) = &self.first {
            tracing::warn!(module = %program.name, count = self.count, offset, "look_back left records out");
            // The module's words may quote the record.
            tracing::debug!(module = %program.name, offset, why, "why look_back left it out");
        }
    }
}

fn timestamp_ms(message: &Message) -> i64 {
    message.origin.record.timestamp_ms
}
