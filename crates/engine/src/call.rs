//! One call of the transform: its input from messages, its answer back to messages with the origin each came from.

use bytes::{Bytes, BytesMut};
use millrace_core::Message;

use crate::{
    abi::{Kind, RecordOut, decode_answer},
    fault::{Fault, hint_text},
    frame::Frame,
    instance::Instance,
    program::Program,
};

/// Buffers that are used again from call to call.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    records: Vec<RecordOut>,
    /// For each of `records`, the index of the input it was made of.
    sources: Vec<usize>,
    copies: Copies,
}

/// Answers copied out of the guest. Small ones of a batch share their room, which is cheaper than one for each call.
#[derive(Debug, Default)]
struct Copies(BytesMut);

/// What a call that did not fail came to. Its outputs are appended already.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The input that the author's function refused, with its words; those after it were not looked at.
    pub(crate) refused: Option<(usize, String)>,
    /// Bytes answered.
    pub(crate) bytes: usize,
    /// Records answered.
    pub(crate) records: usize,
}

/// Where outputs and the accumulator go. Nothing is changed by a call that fails.
pub(crate) struct Effects<'a> {
    pub(crate) passed: &'a mut Vec<Message>,
    pub(crate) accumulator: &'a mut Vec<u8>,
}

impl Copies {
    const ROOM_BYTES: usize = 16 << 10;

    fn copy(&mut self, answer: &[u8]) -> Bytes {
        if answer.len() > Self::ROOM_BYTES / 4 {
            return Bytes::copy_from_slice(answer);
        }
        if self.0.capacity() - self.0.len() < answer.len() {
            self.0 = BytesMut::with_capacity(Self::ROOM_BYTES);
        }
        self.0.extend_from_slice(answer);
        self.0.split().freeze()
    }
}

impl Buffers {
    /// A batch is done: what comes next shares nothing with it.
    pub(crate) fn end_batch(&mut self) {
        self.copies = Copies::default();
    }

    /// Calls the transform with the messages of the frame, which are `messages`.
    pub(crate) fn transform(
        &mut self,
        program: &Program,
        instance: &mut Instance,
        messages: &[Message],
        frame: &Frame,
        timeout_ms: u64,
        effects: &mut Effects<'_>,
    ) -> Result<Answered, Fault> {
        let kind = program.info.kind;
        let limits = &program.limits;
        let accumulator = (kind == Kind::Aggregate).then_some(&**effects.accumulator);
        instance.transform(&frame.input(messages, accumulator), timeout_ms)?;
        let answer = instance.answer(limits.output_bytes_max)?;
        let records_max = match kind {
            Kind::ArrayMap if messages.len() == 1 => limits.output_records_max.min(limits.fan_out_max),
            _ => limits.output_records_max,
        };
        let decoded = decode_answer(answer, kind == Kind::Aggregate, records_max, &mut self.records)
            .map_err(|error| Fault::of_decoding(&error, records_max))?;
        let refused = match decoded.refusal {
            None => None,
            Some(refusal) => Some((refused_index(refusal.offset, messages, frame)?, hint_text(refusal.hint))),
        };
        let processed = refused.as_ref().map_or(messages.len(), |(index, _)| *index);
        let inputs = &messages[..processed];
        match kind {
            Kind::ArrayMap if program.info.provenance => {
                self.find_told_sources(inputs, frame, limits.fan_out_max)?;
            }
            Kind::ArrayMap => self.take_one_source(inputs),
            _ => self.find_sources(kind, inputs, frame)?,
        }
        if let Some(accumulator) = decoded.accumulator {
            let (length, max) = (accumulator.len(), limits.accumulator_bytes_max);
            if length > max {
                return Err(Fault::Accumulator { length, max });
            }
            effects.accumulator.clear();
            effects.accumulator.extend_from_slice(accumulator);
        }
        self.deliver(kind, answer, messages, effects.passed);
        Ok(Answered { refused, bytes: answer.len(), records: self.records.len() })
    }

    /// An array map that does not tell: its outputs are new records without an offset, all of the one record of the
    /// call. What was made of a record and then refused with it is dropped.
    fn take_one_source(&mut self, inputs: &[Message]) {
        let kept = if inputs.is_empty() { 0 } else { self.records.len() };
        self.sources.clear();
        self.sources.resize(kept, 0);
    }

    /// An array map that tells: any number of outputs for each input, in their order. A module that lies about it
    /// moves outputs between records of the call, which were all its own to answer for, and nothing else.
    fn find_told_sources(
        &mut self,
        inputs: &[Message],
        frame: &Frame,
        fan_out_max: usize,
    ) -> Result<(), Fault> {
        self.sources.clear();
        let (mut source, mut outputs) = (0, 0_usize);
        for record in &self.records {
            let delta = record.offset_delta;
            while inputs.get(source).is_some_and(|input| frame.offset_delta(source, input) < delta) {
                (source, outputs) = (source + 1, 0);
            }
            match inputs.get(source) {
                Some(input) if frame.offset_delta(source, input) == delta => self.sources.push(source),
                _ => return Err(Fault::Provenance(frame.base.offset.saturating_add(delta))),
            }
            outputs += 1;
            if outputs > fan_out_max {
                return Err(Fault::FanOut { max: fan_out_max });
            }
        }
        Ok(())
    }

    /// Finds the input each output was made of, and checks that there are as many as the kind allows.
    fn find_sources(&mut self, kind: Kind, inputs: &[Message], frame: &Frame) -> Result<(), Fault> {
        self.sources.clear();
        let mut next = 0;
        for record in &self.records {
            let delta = record.offset_delta;
            while inputs.get(next).is_some_and(|input| frame.offset_delta(next, input) < delta) {
                next += 1;
            }
            match inputs.get(next) {
                Some(input) if frame.offset_delta(next, input) == delta => self.sources.push(next),
                _ => return Err(Fault::Provenance(frame.base.offset.saturating_add(delta))),
            }
            next += 1;
        }
        let one_each = matches!(kind, Kind::Map | Kind::Aggregate);
        if one_each && self.sources.len() != inputs.len() { Err(Fault::Missing) } else { Ok(()) }
    }

    fn deliver(&mut self, kind: Kind, answer: &[u8], messages: &[Message], passed: &mut Vec<Message>) {
        passed.reserve(self.sources.len());
        // One copy for all outputs of the call, made at the first that needs it.
        let mut copy: Option<Bytes> = None;
        for (record, source) in self.records.iter().zip(&self.sources) {
            let message = &messages[*source];
            let key = record.key.clone();
            if kind == Kind::Filter
                && message.key.as_deref() == key.clone().map(|key| &answer[key])
                && message.value == answer[record.value.clone()]
            {
                passed.push(message.clone());
                continue;
            }
            let copy = copy.get_or_insert_with(|| self.copies.copy(answer));
            let key = key.map(|key| copy.slice(key));
            passed.push(Message::derived(message.origin.clone(), key, copy.slice(record.value.clone())));
        }
    }
}

/// The input that an error's absolute offset names.
fn refused_index(offset: i64, messages: &[Message], frame: &Frame) -> Result<usize, Fault> {
    let delta = offset.checked_sub(frame.base.offset).ok_or(Fault::RefusedOffset(offset))?;
    messages
        .iter()
        .enumerate()
        .position(|(index, message)| frame.offset_delta(index, message) == delta)
        .ok_or(Fault::RefusedOffset(offset))
}
