//! Mode `merge`: read the documents, merge the changes into them, write them if they are still the same, and
//! read again those that are not.
//!
//! Changes of one document in one send are merged first and cost one item. When the server refuses such an item,
//! its changes are halved until the one at fault stands alone, so that it alone is rejected.

use std::collections::{HashMap, HashSet, VecDeque};

use millrace_core::{Class, Error, Result};
use rand::RngExt;
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::time::{Duration, sleep};

use crate::{
    bulk::{Bulk, Item, Written},
    client::Reply,
    document::Document,
    encode::Work,
    failure::{Cause, Shared, Trouble},
};

/// One read asks for at most this many documents.
const DOCUMENTS_MAX: usize = 500;

/// How often a document that others change meanwhile is read again before it is left to the caller's retry.
const CONFLICTS_MAX: u32 = 8;

/// The longest wait before reading again; grows by this with each conflict.
const PAUSE_MS: u64 = 10;

/// Changes of one document, by their place among the works.
#[derive(Debug)]
struct Group {
    places: Vec<usize>,
    conflicts: u32,
}

#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow)]
    docs: Vec<Found<'a>>,
}

#[derive(Deserialize)]
struct Found<'a> {
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    found: bool,
    #[serde(rename = "_seq_no")]
    seq_no: Option<u64>,
    #[serde(rename = "_primary_term")]
    primary_term: Option<u64>,
    #[serde(borrow, rename = "_source")]
    source: Option<&'a RawValue>,
    error: Option<Cause>,
}

/// The changes that are still to be made, and what became of the others.
struct Merging<'a> {
    bulk: &'a Bulk<'a>,
    works: &'a [Work<'a>],
    waiting: VecDeque<Group>,
    written: Vec<Option<Written>>,
}

/// Writes all changes and answers for each.
pub(crate) async fn merge(bulk: &Bulk<'_>, works: &[Work<'_>]) -> Vec<Written> {
    let written = works.iter().map(|_| None).collect();
    let mut merging = Merging { bulk, works, waiting: by_document(works), written };
    let mut documents_max = DOCUMENTS_MAX;
    while !merging.waiting.is_empty() {
        let round = merging.take_round(documents_max);
        match merging.read(&round).await {
            Ok(reply) => {
                let conflicts = merging.write(round, &reply).await;
                pause(conflicts).await;
            }
            Err(Trouble::TooLarge) if round.len() > 1 => {
                documents_max = round.len() / 2;
                merging.waiting.extend(round);
            }
            Err(trouble) => merging.stop(round, trouble),
        }
    }
    let unanswered = || Written::Failed(Error::retry(bulk.who, "was not answered"));
    merging.written.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
}

fn by_document(works: &[Work<'_>]) -> VecDeque<Group> {
    let mut groups: VecDeque<Group> = VecDeque::new();
    let mut place_of: HashMap<&str, usize> = HashMap::new();
    for (place, work) in works.iter().enumerate() {
        let group = *place_of.entry(work.id).or_insert_with(|| {
            groups.push_back(Group { places: Vec::new(), conflicts: 0 });
            groups.len() - 1
        });
        groups[group].places.push(place);
    }
    groups
}

/// Two writers that conflict must not meet again in step.
async fn pause(conflicts: u32) {
    if conflicts > 0 {
        let pause_ms = rand::rng().random_range(1..=PAUSE_MS * u64::from(conflicts));
        sleep(Duration::from_millis(pause_ms)).await;
    }
}

impl<'a> Merging<'a> {
    fn id(&self, group: &Group) -> &'a str {
        self.works[group.places[0]].id
    }

    /// The next documents, each once.
    fn take_round(&mut self, documents_max: usize) -> Vec<Group> {
        let mut round = Vec::new();
        let mut later = VecDeque::new();
        let mut taken = HashSet::new();
        while let Some(group) = self.waiting.pop_front() {
            if round.len() < documents_max && taken.insert(self.id(&group)) {
                round.push(group);
            } else {
                later.push_back(group);
            }
        }
        self.waiting = later;
        round
    }

    async fn read(&self, round: &[Group]) -> Result<Reply, Trouble> {
        let ids: Vec<&str> = round.iter().map(|group| self.id(group)).collect();
        let path = format!("{}/_mget", self.bulk.alias);
        self.bulk.client.post(&path, json!({ "ids": ids }).to_string()).await
    }

    /// Merges and writes a round. Gives the most conflicts that any of its documents has met so far, if some
    /// are to be read again.
    async fn write(&mut self, round: Vec<Group>, reply: &Reply) -> u32 {
        let read: Read<'_> = match reply.json(self.bulk.client.who()) {
            Ok(read) => read,
            Err(trouble) => {
                self.stop(round, trouble);
                return 0;
            }
        };
        let fits = read.docs.len() == round.len()
            && read.docs.iter().zip(&round).all(|(found, group)| found.id == self.id(group));
        if !fits {
            let error =
                Error::retry(self.bulk.client.who(), "answers for other documents than it was asked for");
            self.stop(round, Trouble::Failed(error));
            return 0;
        }
        let (mut items, mut groups) = (Vec::new(), Vec::new());
        for (group, found) in round.into_iter().zip(&read.docs) {
            match self.merged(&group, found) {
                Ok(Some(item)) => {
                    items.push(item);
                    groups.push(group);
                }
                Ok(None) => self.answer(&group, || Written::Yes),
                Err(error) => self.failed(group, error),
            }
        }
        let written = self.bulk.write(&items).await;
        self.settle(groups, written)
    }

    /// The item that brings a document up to date; none when it is.
    fn merged(&self, group: &Group, found: &Found<'_>) -> Result<Option<Item>> {
        if let Some(cause) = &found.error {
            let class = if cause.class(503) == Class::Fatal { Class::Fatal } else { Class::Retry };
            return Err(Error::new(class, self.bulk.who, cause.text(503)));
        }
        let mut document = match (found.found, found.source) {
            (true, Some(source)) => Document::stored(source)?,
            (true, None) => {
                return Err(Error::fatal(self.bulk.who, "the index does not keep the documents' source"));
            }
            (false, _) => Document::default(),
        };
        for place in &group.places {
            document.apply(&self.works[*place])?;
        }
        let Some(source) = document.changed_source() else { return Ok(None) };
        let id = self.id(group);
        let action = match (found.found, found.seq_no, found.primary_term) {
            (true, Some(seq_no), Some(term)) => {
                json!({ "index": { "_id": id, "if_seq_no": seq_no, "if_primary_term": term } })
            }
            (true, _, _) => {
                return Err(Error::retry(self.bulk.who, "a document was read without its number"));
            }
            (false, _, _) => json!({ "create": { "_id": id } }),
        };
        Ok(Some(Item { action: action.to_string(), source }))
    }

    fn settle(&mut self, groups: Vec<Group>, written: Vec<Written>) -> u32 {
        let all_failed = !written.is_empty()
            && written
                .iter()
                .all(|answer| matches!(answer, Written::Failed(error) if error.class() != Class::Reject));
        let mut conflicts = 0;
        for (mut group, answer) in groups.into_iter().zip(written) {
            match answer {
                Written::Yes => self.answer(&group, || Written::Yes),
                Written::Conflict if group.conflicts == CONFLICTS_MAX => {
                    self.failed(group, Error::retry(self.bulk.who, "others keep changing the document"));
                }
                Written::Conflict => {
                    group.conflicts += 1;
                    conflicts = conflicts.max(group.conflicts);
                    self.waiting.push_back(group);
                }
                Written::Failed(error) => self.failed(group, error),
            }
        }
        if all_failed {
            let error = Error::retry(self.bulk.who, "the others of this send failed");
            self.stop(Vec::new(), Trouble::Failed(error));
        }
        conflicts
    }

    /// A rejected group of several changes is halved, to find the change at fault.
    fn failed(&mut self, mut group: Group, error: Error) {
        if error.class() == Class::Reject && group.places.len() > 1 {
            let second = group.places.split_off(group.places.len() / 2);
            self.waiting.push_front(Group { places: second, conflicts: 0 });
            self.waiting.push_front(Group { places: group.places, conflicts: 0 });
            return;
        }
        let mut error = Shared::of(error);
        self.answer(&group, || Written::Failed(error.next()));
    }

    /// Ends everything that is not done: the system does not serve us now.
    fn stop(&mut self, round: Vec<Group>, trouble: Trouble) {
        let mut error = Shared::of(match trouble {
            Trouble::TooLarge => Error::reject(self.bulk.who, "the stored document is too large to be read"),
            // A read has no input that could be at fault.
            other => other.into_error(self.bulk.who, Class::Fatal),
        });
        for group in round {
            self.answer(&group, || Written::Failed(error.next()));
        }
        for group in std::mem::take(&mut self.waiting) {
            self.answer(&group, || Written::Failed(error.not_tried()));
        }
    }

    fn answer(&mut self, group: &Group, mut answer: impl FnMut() -> Written) {
        for place in &group.places {
            self.written[*place] = Some(answer());
        }
    }
}
