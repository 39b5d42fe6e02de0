//! The sinks of a simulated store. A call is as many operations as the store was told; each operation is atomic, a
//! call that is cut short has done some of them.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use millrace_core::{
    Answer, Call, EffectIdentity, Encoded, Error, Message, Op, Ordinals, Result, Sink, SinkId, View,
    views::{CounterEffect, MembersEffect, Polarity, TimelineEffect, TimelineOp},
};

use super::{
    document,
    kept::Kept,
    store::{Link, REFUSED},
    world::{Plant, World},
};

pub(super) struct SimSink {
    pub(super) link: Link,
    pub(super) id: SinkId,
    pub(super) view: View,
    pub(super) ops_max: usize,
}

impl SimSink {
    /// The operation that a message asks for, or none.
    fn ops(&self, messages: &[Message], ordinals: &mut Ordinals) -> Vec<Result<Option<Vec<Bytes>>>> {
        match &self.view {
            View::Timeline(view) => {
                let parts = |effect: TimelineEffect| {
                    let op = match effect.op {
                        TimelineOp::Add { score } => ["add".into(), score.to_string().into()],
                        TimelineOp::Remove => ["remove".into(), Bytes::new()],
                    };
                    [vec![effect.key.into(), effect.member.into()], op.to_vec()].concat()
                };
                messages.iter().map(|message| Ok(Some(parts(view.effect(message)?)))).collect()
            }
            View::Members(view) => {
                let parts = |effect: MembersEffect| {
                    let op = if effect.op == Polarity::Add { "add" } else { "remove" };
                    vec![
                        effect.key.into(),
                        effect.member.into(),
                        op.into(),
                        effect.version.to_string().into(),
                    ]
                };
                messages.iter().map(|message| Ok(Some(parts(view.effect(message)?)))).collect()
            }
            View::Document(view) => {
                let parts = |message: &Message| {
                    let effect = view.effect(message)?;
                    Ok(Some([vec![effect.key.into()], document::to_parts(&effect.change)].concat()))
                };
                messages.iter().map(parts).collect()
            }
            View::Counter(view) => {
                let mut id = self.id.clone();
                if self.link.world.has(Plant::LedgerWithoutSink) {
                    id.sink = "".into();
                }
                let parts = |effect: CounterEffect| {
                    let identity = effect.identity.as_str().to_owned();
                    vec![effect.key.into(), identity.into(), effect.by.to_string().into()]
                };
                let effects = view.effects(&id, messages, ordinals).into_iter();
                effects.map(|effect| effect.map(|effect| effect.map(parts))).collect()
            }
            View::Index(..) => unreachable!("invariant: indexes have a sink of their own"),
        }
    }

    fn kind(&self) -> &'static str {
        match &self.view {
            View::Timeline(_) => "timeline",
            View::Members(_) => "members",
            View::Document(_) => "document",
            View::Counter(_) => "counter",
            View::Index(..) => "index",
        }
    }
}

#[async_trait]
impl Sink for SimSink {
    async fn prepare(&self) -> Result<()> {
        let (world, process, system) = (&self.link.world, &self.link.process, &self.link.system);
        world.ask(process, system, "prepare", Box::pin(async {})).await
    }

    fn encode(&self, messages: &[Message]) -> Encoded {
        self.encode_part(messages, &mut Ordinals::default())
    }

    fn encode_part(&self, messages: &[Message], ordinals: &mut Ordinals) -> Encoded {
        let mut encoded = Encoded::default();
        let mut ops = Vec::new();
        for (message, op) in (0u32..).zip(self.ops(messages, ordinals)) {
            match op {
                Ok(Some(parts)) => ops.push(Op { message, parts }),
                Ok(None) => {}
                Err(error) => encoded.rejected.push((message, error)),
            }
        }
        let kind = self.kind();
        encoded.calls = ops.chunks(self.ops_max.max(1)).map(|ops| Call { kind, ops: ops.to_vec() }).collect();
        encoded
    }

    async fn send(&self, calls: &[Call]) -> Vec<Answer> {
        let Link { world, process, system, .. } = &self.link;
        let ops: usize = calls.iter().map(|call| call.ops.len()).sum();
        let taken = if world.chance(world.faults().partial) { world.index(ops + 1) } else { ops };
        let writer = Writer {
            world: world.clone(),
            kept: self.link.kept.clone(),
            view: self.view.clone(),
            left: taken,
        };
        let what = || format!("{} {ops} ops", self.id);
        if world.has(Plant::AcknowledgesBeforeEffect) {
            tokio::spawn(writer.write(calls.to_vec()));
            world.latency().await;
            return calls.iter().map(|_| Answer::Done).collect();
        }
        match world.ask(process, system, &what(), Box::pin(writer.write(calls.to_vec()))).await {
            Ok(answers) => {
                world.note(|| format!("{}: {} answered, {taken} done", process.name(), what()));
                answers
            }
            Err(error) => {
                calls.iter().map(|_| Answer::Failed(Error::retry(error.who(), error.why()))).collect()
            }
        }
    }
}

/// A request's work at the store.
struct Writer {
    world: World,
    kept: Arc<Mutex<Kept>>,
    view: View,
    /// Operations until the connection breaks.
    left: usize,
}

impl Writer {
    async fn write(mut self, calls: Vec<Call>) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            // Others come in between the calls of a pipeline, not between the operations of one.
            if self.world.chance(0.2) {
                self.world.latency().await;
            }
            answers.push(self.call(&call).await);
        }
        answers
    }

    async fn call(&mut self, call: &Call) -> Answer {
        let refused = |part: &Bytes| part.windows(REFUSED.len()).any(|text| text == REFUSED.as_bytes());
        if call.ops.iter().flat_map(|op| &op.parts).any(refused) {
            return Answer::Failed(Error::reject("store", "refused"));
        }
        for op in &call.ops {
            if self.left == 0 {
                return Answer::Failed(Error::retry("store", "connection reset"));
            }
            self.left -= 1;
            self.apply(&op.parts).await;
        }
        Answer::Done
    }

    async fn apply(&self, parts: &[Bytes]) {
        let text = |index: usize| String::from_utf8_lossy(&parts[index]).into_owned();
        match &self.view {
            View::Timeline(view) => {
                let op = match text(2).as_str() {
                    "add" => TimelineOp::Add { score: text(3).parse().unwrap_or_default() },
                    _ => TimelineOp::Remove,
                };
                let effect = TimelineEffect { key: text(0), member: text(1), op };
                if self.world.has(Plant::TombstoneBefore) && effect.op != TimelineOp::Remove {
                    let removed = self.kept().is_removed(&effect);
                    self.world.latency().await;
                    if !removed {
                        self.kept().add_anyway(&effect, view.stored_max);
                    }
                    return;
                }
                self.kept().timeline(&effect, view.stored_max);
            }
            View::Members(_) => {
                let op = if text(2) == "add" { Polarity::Add } else { Polarity::Remove };
                let version = text(3).parse().unwrap_or_default();
                self.kept().member(&MembersEffect { key: text(0), member: text(1), op, version });
            }
            View::Document(_) => self.kept().document(&text(0), &document::of_parts(&parts[1..])),
            View::Counter(_) => {
                let identity = EffectIdentity::parse(&text(1)).expect("invariant: encoded by this sink");
                let by = text(2).parse().unwrap_or_default();
                self.count(&CounterEffect { key: text(0), by, identity }).await;
            }
            View::Index(..) => unreachable!("invariant: indexes have a sink of their own"),
        }
    }

    async fn count(&self, effect: &CounterEffect) {
        if !self.world.has(Plant::LedgerApart) {
            return self.kept().count(effect);
        }
        let counted = self.kept().is_counted(effect);
        if !counted {
            self.kept().move_counter(effect);
            self.world.latency().await;
            self.kept().note_counted(effect);
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().expect("invariant: nobody panics while holding the store's lock")
    }
}
