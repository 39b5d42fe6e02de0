//! The index sink of a simulated store: reads documents, merges, and writes each back if nobody else has meanwhile,
//! as a search engine without scripts has to. Whole documents are written with their own version instead.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use millrace_core::{
    Answer, Call, Encoded, Error, Message, Result, Sink, SinkId,
    views::{Change, Index, IndexMode},
};

use super::{
    document,
    kept::Indexed,
    store::{Link, REFUSED},
    world::Plant,
};

/// How often what has changed meanwhile is read again before the runtime is asked to come back.
const CONFLICTS_MAX: usize = 5;

pub(super) struct IndexSink {
    pub(super) link: Link,
    pub(super) id: SinkId,
    pub(super) view: Index,
}

/// What became of a write: done, or the document had changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Done,
    Conflict,
    NotTaken,
}

#[async_trait]
impl Sink for IndexSink {
    async fn prepare(&self) -> Result<()> {
        let (kept, name) = (self.link.kept.clone(), self.view.name.clone());
        let make = Box::pin(async move {
            kept.lock().expect("invariant: no panic under the lock").indexes.entry(name).or_default();
        });
        self.link.world.ask(&self.link.process, &self.link.system, "make index", make).await
    }

    fn encode(&self, messages: &[Message]) -> Encoded {
        let mut encoded = Encoded::default();
        for (place, message) in (0u32..).zip(messages) {
            match self.view.effect(message) {
                Err(error) => encoded.rejected.push((place, error)),
                Ok(effect) => {
                    let parts = [vec![effect.id.into()], document::to_parts(&effect.change)].concat();
                    encoded.calls.push(Call::single("index", place, parts));
                }
            }
        }
        encoded
    }

    async fn send(&self, calls: &[Call]) -> Vec<Answer> {
        let mut answers: Vec<Option<Answer>> = calls.iter().map(|call| refused(call).then(reject)).collect();
        for _ in 0..=CONFLICTS_MAX {
            let open: Vec<usize> = (0..calls.len()).filter(|place| answers[*place].is_none()).collect();
            if open.is_empty() {
                break;
            }
            if let Err(error) = self.round(calls, &open, &mut answers).await {
                let failed = || Answer::Failed(Error::new(error.class(), error.who(), error.why()));
                return answers.into_iter().map(|answer| answer.unwrap_or_else(failed)).collect();
            }
        }
        let busy = || Answer::Failed(Error::retry("index", "the document keeps changing"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(busy)).collect()
    }
}

impl IndexSink {
    /// Reads, merges and writes what is open; what has changed meanwhile stays open.
    async fn round(&self, calls: &[Call], open: &[usize], answers: &mut [Option<Answer>]) -> Result<()> {
        let mut works: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for place in open {
            works.entry(id(&calls[*place])).or_default().push(*place);
        }
        let found = self.read(works.keys().cloned().collect()).await?;
        let mut writes = Vec::new();
        for ((id, places), before) in works.iter().zip(found) {
            let changes: Vec<Change> =
                places.iter().map(|place| document::of_parts(&calls[*place].ops[0].parts[1..])).collect();
            writes.push((id.clone(), before, changes));
        }
        let written = self.write(writes).await?;
        for (places, written) in works.values().zip(written) {
            for place in places {
                answers[*place] = match written {
                    Written::Done => Some(Answer::Done),
                    Written::Conflict => None,
                    Written::NotTaken => Some(Answer::Failed(Error::retry("index", "too many requests"))),
                };
            }
        }
        Ok(())
    }

    async fn read(&self, ids: Vec<String>) -> Result<Vec<Indexed>> {
        let (kept, name) = (self.link.kept.clone(), self.view.name.clone());
        let read = Box::pin(async move {
            let kept = kept.lock().expect("invariant: no panic under the lock");
            let index = kept.indexes.get(&name)?;
            Some(ids.iter().map(|id| index.get(id).cloned().unwrap_or_default()).collect())
        });
        let what = format!("{} read", self.id);
        let found = self.link.world.ask(&self.link.process, &self.link.system, &what, read).await?;
        found.ok_or_else(|| Error::fatal("index", "was not prepared"))
    }

    async fn write(&self, writes: Vec<(String, Indexed, Vec<Change>)>) -> Result<Vec<Written>> {
        let Link { world, kept, process, system } = &self.link;
        let taken = if world.chance(world.faults().partial) { world.below(u64::MAX) } else { u64::MAX };
        let unconditional = world.has(Plant::MergeUnconditional);
        let (kept, name, mode) = (kept.clone(), self.view.name.clone(), self.view.mode);
        let what = format!("{} write {}", self.id, writes.len());
        let bulk = Box::pin(async move {
            let mut kept = kept.lock().expect("invariant: no panic under the lock");
            let index = kept.indexes.entry(name).or_default();
            let mut written = Vec::new();
            for (place, (id, before, changes)) in writes.into_iter().enumerate() {
                if taken >> (place % 64) & 1 == 0 {
                    written.push(Written::NotTaken);
                    continue;
                }
                let current = index.entry(id).or_default();
                if mode == IndexMode::Replace {
                    changes.iter().for_each(|change| current.stored.replace(change));
                } else if current.change == before.change || unconditional {
                    current.stored = before.stored;
                    changes.iter().for_each(|change| current.stored.merge(change));
                } else {
                    written.push(Written::Conflict);
                    continue;
                }
                current.change += 1;
                written.push(Written::Done);
            }
            written
        });
        world.ask(process, system, &what, bulk).await
    }
}

fn id(call: &Call) -> String {
    String::from_utf8_lossy(&call.ops[0].parts[0]).into_owned()
}

fn refused(call: &Call) -> bool {
    let has = |part: &Bytes| part.windows(REFUSED.len()).any(|text| text == REFUSED.as_bytes());
    call.ops[0].parts.iter().any(has)
}

fn reject() -> Answer {
    Answer::Failed(Error::reject("index", "refused"))
}
