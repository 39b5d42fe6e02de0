//! The lookup step: one multi-get per batch, the answer put into the JSON value, large sets page by page.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use bytes::{BufMut, Bytes, BytesMut};
use millrace_core::{Class, Error, Lookup, Message, Origin, Page, PageRequest, Template};
use tokio::time::Duration;

use crate::{
    attempts::{Attempts, Target},
    breaker::Breaker,
    cache::Cache,
    dead_letter::Place,
    flow::{Context, Flow, Halt},
};

/// Messages looked up in one round trip, fewer where their pages could hold more than the members.
const WINDOW_MESSAGES_MAX: usize = 256;
const WINDOW_MEMBERS_MAX: usize = 32_768;

/// Members handed on at once: bounds what a fan-out makes of them.
const CHUNK_MEMBERS_MAX: usize = 4_096;

/// Bytes a worker's cache holds in all.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// A lookup and where it reads.
pub struct LookupStep {
    /// The step's id.
    pub id: Arc<str>,
    /// The store.
    pub store: Arc<dyn Lookup>,
    /// The store's breaker.
    pub breaker: Breaker,
    /// What is read.
    pub kind: LookupKind,
    /// The top-level field that the answer is put into.
    pub into: String,
    /// Answers younger than this are used again; zero turns the cache off.
    pub cache_ttl: Duration,
    /// The most keys in a worker's cache.
    pub cache_entries_max: usize,
    /// Event types that always read the store.
    pub uncached: HashSet<String>,
    /// Keeps what was closed from coming back.
    pub guard: Option<Guard>,
}

/// What a lookup reads.
pub enum LookupKind {
    /// The members of a set, as an array of strings, in pages.
    Members {
        /// The set's key.
        key: Template,
        /// The most members in a page.
        page_members_max: u32,
    },
    /// A JSON document, or null.
    Document {
        /// The document's key.
        key: Template,
    },
}

/// A mark in the store that one event sets and another asks for, so that two workers which handle a create
/// and a delete of one thing at the same moment come to the same end.
///
/// An event of `closed_by` sets the mark before its first page is read. Every other event asks for it after a
/// page was read and before it is handed on, and drops the page where it is set. So either the create sees
/// the mark, or the delete's pages are read later than the create's and cover the same members.
pub struct Guard {
    /// What the mark is for.
    pub id: Template,
    /// Event types that set it.
    pub closed_by: HashSet<String>,
    /// How long it stays.
    pub ttl: Duration,
}

/// A lookup's state in one worker.
pub(crate) struct LookupState {
    pub(crate) step: Arc<LookupStep>,
    cache: Cache,
}

/// A message whose pages are being read.
struct Open {
    message: Message,
    key: String,
    after: Option<String>,
    guard: Option<String>,
    /// It has closed its guard, and does not ask for it.
    closes: bool,
}

impl LookupState {
    pub(crate) fn new(step: Arc<LookupStep>) -> Self {
        let cache = Cache::new(step.cache_ttl, step.cache_entries_max, CACHE_BYTES_MAX);
        LookupState { step, cache }
    }
}

impl LookupStep {
    fn place(&self) -> Place {
        Place::Lookup(self.id.clone())
    }

    fn target<'a>(&'a self, context: &Context, place: &'a Place) -> Target<'a> {
        Target { place, breaker: &self.breaker, ledger: None, retry: context.pipeline.retry }
    }

    fn lists(types: &HashSet<String>, message: &Message) -> bool {
        message.origin.envelope.event_type.as_ref().is_some_and(|event_type| types.contains(event_type))
    }

    fn page_members_max(&self) -> u32 {
        match self.kind {
            LookupKind::Members { page_members_max, .. } => page_members_max.max(1),
            LookupKind::Document { .. } => 1,
        }
    }

    /// One call to the store.
    async fn ask(&self, requests: &[PageRequest]) -> Result<Vec<Page>, Error> {
        if let LookupKind::Members { .. } = self.kind {
            return self.store.members(requests).await;
        }
        let keys: Vec<String> = requests.iter().map(|request| request.key.clone()).collect();
        let documents = self.store.documents(&keys).await?;
        let page = |document: Option<String>| Page { members: document.into_iter().collect(), more: false };
        Ok(documents.into_iter().map(page).collect())
    }

    /// What is put into a message.
    fn json(&self, page: &[String]) -> String {
        match self.kind {
            LookupKind::Members { .. } => {
                serde_json::to_string(page).expect("invariant: strings are always JSON")
            }
            LookupKind::Document { .. } => page.first().cloned().unwrap_or_else(|| "null".to_owned()),
        }
    }
}

/// Runs the lookup at stage `at` of `flow` and everything after it, page by page.
pub(crate) async fn run(flow: &mut Flow, at: usize, messages: Vec<Message>) -> Result<(), Halt> {
    let step = flow.lookup(at).step.clone();
    let mut open = open(flow, &step, messages).await?;
    let window_max = (WINDOW_MEMBERS_MAX / step.page_members_max() as usize).clamp(1, WINDOW_MESSAGES_MAX);
    let chunk_bytes_max = flow.context.pipeline.limits.output_bytes_max;
    while !open.is_empty() {
        let mut window: Vec<Open> = open.drain(..open.len().min(window_max)).collect();
        let pages = read(flow, at, &step, &mut window).await?;
        let closed = closed(flow, &step, &window).await?;
        let mut rest = VecDeque::new();
        let mut chunk = Vec::new();
        let (mut members, mut bytes) = (0, 0);
        for ((mut entry, (page, more)), closed) in window.into_iter().zip(pages).zip(closed) {
            if closed {
                continue;
            }
            match splice(&entry.message, &step.into, &step.json(&page)) {
                Ok(message) => {
                    bytes += message.size_bytes();
                    chunk.push(message);
                }
                Err(error) => {
                    flow.reject(entry.message.origin.clone(), step.place(), &error, None);
                    continue;
                }
            }
            members += page.len();
            if let Some(last) = page.last().filter(|_| more) {
                entry.after = Some(last.clone());
                rest.push_back(entry);
            }
            if members >= CHUNK_MEMBERS_MAX || bytes >= chunk_bytes_max {
                flow.run(at + 1, std::mem::take(&mut chunk)).await?;
                (members, bytes) = (0, 0);
            }
        }
        flow.run(at + 1, chunk).await?;
        // The rest comes first, so that few sets are open at a time.
        rest.append(&mut open);
        open = rest;
    }
    Ok(())
}

/// A set's key and the member its page begins after.
type PagePlace = (String, Option<String>);

/// What was found for one message, and whether there is more after it. A document is the one member of its page.
type Found = (Arc<[String]>, bool);

async fn open(
    flow: &mut Flow,
    step: &Arc<LookupStep>,
    messages: Vec<Message>,
) -> Result<VecDeque<Open>, Halt> {
    let mut open = VecDeque::with_capacity(messages.len());
    let mut closing = Vec::new();
    let template = match &step.kind {
        LookupKind::Members { key, .. } | LookupKind::Document { key } => key,
    };
    for message in messages {
        let rendered = template.render_id(&message).and_then(|key| {
            let guard = step.guard.as_ref().map(|guard| guard.id.render_id(&message)).transpose()?;
            Ok((key, guard))
        });
        match rendered {
            Err(error) => flow.reject(message.origin.clone(), step.place(), &error, None),
            Ok((key, guard)) => {
                // It may wait for many pages: without its parsed JSON, which takes several times the room of its text.
                let message = Message::derived(message.origin, message.key, message.value);
                let name = flow.context.pipeline.configured_name();
                let mut guard = guard.map(|id| format!("{name}/{}/{id}", step.id));
                let closes = step.guard.as_ref().is_some_and(|g| LookupStep::lists(&g.closed_by, &message));
                if closes {
                    closing.extend(guard.take());
                }
                open.push_back(Open { message, key, after: None, guard, closes });
            }
        }
    }
    if let Some(guard) = step.guard.as_ref().filter(|_| !closing.is_empty()) {
        let first = open.iter().find(|entry| entry.closes).map(|entry| &*entry.message.origin);
        let place = step.place();
        let mut attempts = Attempts::new(&flow.context, step.target(&flow.context, &place));
        let closed = attempts.call(first, || step.store.close(&closing, guard.ttl)).await?;
        if let Err(error) = given_up(closed)? {
            let refused: VecDeque<Open>;
            (refused, open) = open.into_iter().partition(|entry| entry.closes);
            for Open { message, .. } in refused {
                flow.reject(message.origin, step.place(), &error, None);
            }
        }
    }
    Ok(open)
}

/// Which entries go no further: their guard is closed, or cannot be asked for.
async fn closed(flow: &mut Flow, step: &LookupStep, window: &[Open]) -> Result<Vec<bool>, Halt> {
    let guarded = || window.iter().filter(|entry| entry.guard.is_some());
    let guards: Vec<String> = guarded().filter_map(|entry| entry.guard.clone()).collect();
    let Some(first) = guarded().next() else { return Ok(vec![false; window.len()]) };
    let place = step.place();
    let mut attempts = Attempts::new(&flow.context, step.target(&flow.context, &place));
    let answers = attempts.call(Some(&first.message.origin), || step.store.closed(&guards)).await?;
    let answers = given_up(answers)?.unwrap_or_else(|error| {
        for entry in guarded() {
            flow.reject(entry.message.origin.clone(), step.place(), &error, None);
        }
        vec![true; guards.len()]
    });
    let mut answers = answers.into_iter();
    Ok(window.iter().map(|entry| entry.guard.is_some() && answers.next().unwrap_or(false)).collect())
}

/// One page for every entry of the window; entries whose key cannot be read are rejected and removed.
async fn read(
    flow: &mut Flow,
    at: usize,
    step: &LookupStep,
    window: &mut Vec<Open>,
) -> Result<Vec<Found>, Halt> {
    let members_max = step.page_members_max();
    let mut known: HashMap<PagePlace, Found> = HashMap::new();
    let mut requests = Vec::new();
    let mut asked = HashSet::new();
    for entry in window.iter() {
        let place = (entry.key.clone(), entry.after.clone());
        let cached = if entry.after.is_some() || LookupStep::lists(&step.uncached, &entry.message) {
            None
        } else {
            flow.lookup(at).cache.get(&entry.key)
        };
        match cached {
            // What another message of this window read from the store is fresher than the cache.
            Some(members) if !asked.contains(&place) => {
                known.entry(place).or_insert((members, false));
            }
            _ => {
                if asked.insert(place.clone()) {
                    requests.push(PageRequest { key: place.0, after: place.1, members_max });
                }
            }
        }
    }
    let first = window.first().map(|entry| entry.message.origin.clone());
    for (request, page) in fetch(&flow.context, step, &requests, first.as_deref()).await? {
        match page {
            Ok(page) => {
                let members: Arc<[String]> = page.members.into();
                if request.after.is_none() && !page.more {
                    flow.lookup(at).cache.put(request.key.clone(), members.clone());
                }
                known.insert((request.key, request.after), (members, page.more));
            }
            Err(error) => {
                let refused = |entry: &Open| entry.key == request.key && entry.after == request.after;
                for entry in window.extract_if(.., |entry| refused(entry)) {
                    flow.reject(entry.message.origin, step.place(), &error, None);
                }
            }
        }
    }
    Ok(window
        .iter()
        .map(|entry| {
            let place = (entry.key.clone(), entry.after.clone());
            known.get(&place).cloned().unwrap_or_else(|| (Arc::new([]), false))
        })
        .collect())
}

type Fetched = Vec<(PageRequest, Result<Page, Error>)>;

/// All pages in one round trip; where the store refuses that, one by one to find the key at fault.
async fn fetch(
    context: &Context,
    step: &LookupStep,
    requests: &[PageRequest],
    origin: Option<&Origin>,
) -> Result<Fetched, Halt> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let place = step.place();
    let mut attempts = Attempts::new(context, step.target(context, &place));
    match attempts.call(origin, || step.ask(requests)).await? {
        Ok(pages) => return Ok(requests.iter().cloned().zip(pages.into_iter().map(Ok)).collect()),
        Err(error) if error.class() == Class::Retry => {
            let copy = || Error::retry(error.who(), error.why());
            return Ok(requests.iter().map(|request| (request.clone(), Err(copy()))).collect());
        }
        Err(_) => {}
    }
    let mut fetched = Vec::with_capacity(requests.len());
    for request in requests {
        attempts.begin_again();
        let page = attempts.call(origin, || step.ask(std::slice::from_ref(request))).await?;
        fetched.push((request.clone(), page.map(|pages| pages.into_iter().next().unwrap_or_default())));
    }
    Ok(fetched)
}

/// A guard is never refused for a record's sake; that it could not be reached for too long is the records' end.
fn given_up<T>(answer: Result<T, Error>) -> Result<Result<T, Error>, Halt> {
    match answer {
        Err(error) if error.class() != Class::Retry => Err(Halt::Fatal(error)),
        answer => Ok(answer),
    }
}

/// The message with `"into": json` as the last field of its value.
fn splice(message: &Message, into: &str, json: &str) -> Result<Message, Error> {
    let value = message.value.trim_ascii();
    let Some(body) = value.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")) else {
        return Err(Error::reject("message", "the value is not a JSON object"));
    };
    let mut spliced = BytesMut::with_capacity(value.len() + into.len() + json.len() + 8);
    spliced.put_u8(b'{');
    spliced.put_slice(body);
    if !body.trim_ascii().is_empty() {
        spliced.put_u8(b',');
    }
    spliced.put_slice(serde_json::Value::from(into).to_string().as_bytes());
    spliced.put_u8(b':');
    spliced.put_slice(json.as_bytes());
    spliced.put_u8(b'}');
    let value: Bytes = spliced.freeze();
    Ok(Message::derived(message.origin.clone(), message.key.clone(), value))
}
