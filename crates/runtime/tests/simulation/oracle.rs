//! What must be there at the end, computed from the input by plain code that knows neither runtime nor store.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use millrace_core::Record;
use millrace_testkit::sim::{Kept, Log, REFUSED, World};
use serde_json::Value;

use crate::{
    input::{self, Appended, CREATED, DELETED},
    pipelines::{INDEX, ISOLATED, Lane, OUT, Systems, WHOLE},
    setup::{Flow, Setup},
};

/// Whether a lane's group has committed all that its topic holds.
pub fn is_committed(log: &Log, lane: Lane) -> bool {
    let progress = log.progress(&lane.group(), lane.flow.topic());
    let topic = log.info(lane.flow.topic()).expect("the topics are there");
    let done = |number: &i32, end: i64| progress.get(number).copied().unwrap_or_default() >= end;
    topic.partitions.iter().all(|(number, span)| done(number, span.end))
}

/// Compares what is there with what must be.
pub fn check(world: &World, setup: &Setup, systems: &Systems, appended: &[Appended]) {
    let oracle = Oracle { world, setup, appended };
    for lane in setup.lanes() {
        oracle.committed(&systems.log, lane);
        oracle.dead_letters(&systems.log, lane);
    }
    for flow in &setup.flows {
        let feeds = systems.feeds.kept.lock().expect("no panic under the lock");
        match flow {
            Flow::Follows => oracle.sets(&feeds),
            Flow::Feed => oracle.feeds(&feeds),
            Flow::Posts => {
                let search = systems.search.kept.lock().expect("no panic under the lock");
                oracle.posts(&feeds, &search);
            }
            Flow::Points => {
                oracle.points(&feeds);
                oracle.outputs(&systems.log);
            }
        }
    }
}

struct Oracle<'a> {
    world: &'a World,
    setup: &'a Setup,
    appended: &'a [Appended],
}

impl Oracle<'_> {
    fn equal<T: PartialEq + Debug>(&self, what: &str, is: &T, must: &T) {
        if is != must {
            self.world.violation(format!("{what} is {is:?}, must be {must:?}"));
        }
    }

    /// The events that a flow listens to, each occurrence.
    fn heard(&self, flow: Flow) -> impl Iterator<Item = &Appended> {
        self.appended
            .iter()
            .filter(move |one| one.event.topic == flow.topic() && flow.events().contains(&one.event.kind()))
    }

    fn committed(&self, log: &Log, lane: Lane) {
        let progress = log.progress(&lane.group(), lane.flow.topic());
        let ends = log.info(lane.flow.topic()).expect("the topics are there").partitions;
        let ends: BTreeMap<i32, i64> = ends
            .into_iter()
            .filter(|(_, span)| span.end > 0)
            .map(|(number, span)| (number, span.end))
            .collect();
        let progress = progress.into_iter().filter(|(_, next)| *next > 0).collect();
        self.equal(&format!("progress of {}", lane.name()), &progress, &ends);
    }

    /// Where each occurrence of an event is rejected, if it is.
    fn place(&self, Lane { flow, sink }: Lane, one: &Appended) -> Option<&'static str> {
        let event = &one.event;
        if event.topic != flow.topic() {
            return None;
        }
        if event.body.is_none() {
            // Of all lanes the main one buries it.
            return sink.is_none().then_some("decode");
        }
        if !flow.events().contains(&event.kind()) {
            return None;
        }
        let flawed = event.text("flaw") == "step";
        let refused = event.text("post").starts_with(REFUSED);
        match flow {
            Flow::Follows => event.text("member").starts_with(REFUSED).then_some("sink:followers"),
            Flow::Feed if flawed => Some("step:fanout"),
            Flow::Feed => refused.then_some("sink:feeds"),
            Flow::Posts if sink == Some(ISOLATED) => refused.then_some("sink:index"),
            Flow::Posts => refused.then_some("sink:documents"),
            Flow::Points => (event.number("bonus") > 1_000_000_000).then_some("sink:bonus"),
        }
    }

    /// Whether the main lane rejects it.
    fn is_rejected(&self, flow: Flow, one: &Appended) -> bool {
        self.place(Lane { flow, sink: None }, one).is_some()
    }

    /// Each rejected record is a dead letter, and nothing else is.
    fn dead_letters(&self, log: &Log, lane: Lane) {
        let flow = lane.flow;
        let header = |record: &Record, name: &str| {
            String::from_utf8_lossy(record.header(name).unwrap_or_default()).into_owned()
        };
        let letters = log.records(&format!("{}.dlq", flow.topic()));
        let own = letters.iter().filter(|letter| {
            header(letter, "millrace-pipeline") == flow.name()
                && header(letter, "millrace-lane") == lane.sink.unwrap_or_default()
        });
        let fields = ["millrace-origin-partition", "millrace-origin-offset", "millrace-place"];
        let records = log.records(flow.topic());
        let mut is = Vec::new();
        for letter in own {
            let [partition, offset, place] = fields.map(|name| header(letter, name));
            let origin = records.iter().find(|record| {
                record.partition.to_string() == partition && record.offset.to_string() == offset
            });
            let is_copy = origin.is_some_and(|one| (&one.key, &one.value) == (&letter.key, &letter.value));
            self.equal(
                &format!("whether a dead letter of {partition}/{offset} is its record"),
                &is_copy,
                &true,
            );
            is.push([partition, offset, place]);
        }
        let must = self.appended.iter().filter_map(|one| {
            let place = self.place(lane, one)?;
            Some([one.partition.to_string(), one.offset.to_string(), place.to_owned()])
        });
        self.once(&format!("dead letters of {}", lane.name()), is, must.collect());
    }

    /// Compares in any order; without transactions, things may be there more than once.
    fn once<T: Ord + Debug>(&self, what: &str, mut is: Vec<T>, mut must: Vec<T>) {
        for list in [&mut is, &mut must] {
            list.sort_unstable();
            if !self.setup.transactions {
                list.dedup();
            }
        }
        self.equal(what, &is, &must);
    }

    /// Per member the newest word; a set that was there before keeps its members.
    fn sets(&self, kept: &Kept) {
        let mut last: BTreeMap<(String, String), (i64, bool)> = BTreeMap::new();
        for user in 0..input::USERS {
            for member in input::preloaded(user) {
                last.insert((format!("followers:u{user}"), member), (0, true));
            }
        }
        for one in self.heard(Flow::Follows).filter(|one| !one.event.text("member").starts_with(REFUSED)) {
            let key = (one.event.text("set").to_owned(), one.event.text("member").to_owned());
            let word = (one.event.number("at"), one.event.text("op") == "add");
            let known = last.entry(key).or_insert(word);
            *known = (*known).max(word);
        }
        let sets = input::circles().chain((0..input::USERS).map(|user| format!("followers:u{user}")));
        for set in sets {
            let must: Vec<String> = last
                .iter()
                .filter(|((of, _), (_, present))| *of == set && *present)
                .map(|((_, member), _)| member.clone())
                .collect();
            self.equal(&set, &kept.members_of(&set), &must);
        }
    }

    /// A post is in the feeds of those who followed before, may be in those of who followed since, and is in no
    /// other; a deleted one is in none.
    fn feeds(&self, kept: &Kept) {
        let deleted: BTreeSet<&str> = self
            .heard(Flow::Feed)
            .filter(|one| one.event.kind() == DELETED)
            .map(|one| one.event.text("post"))
            .collect();
        for follower in input::followers() {
            let is: BTreeMap<String, f64> =
                kept.newest(&format!("feed:{follower}"), usize::MAX).into_iter().collect();
            let (mut must, mut may) = (BTreeMap::new(), BTreeMap::new());
            for one in self.heard(Flow::Feed).filter(|one| one.event.kind() == CREATED) {
                let post = one.event.text("post");
                if deleted.contains(post) || self.is_rejected(Flow::Feed, one) {
                    continue;
                }
                let user = one.event.text("user");
                let score = one.event.number("at") as f64;
                if self.has_always_followed(&follower, user) {
                    must.insert(post.to_owned(), score);
                } else if self.has_ever_followed(&follower, user) {
                    may.insert(post.to_owned(), score);
                }
            }
            let is: BTreeMap<String, f64> =
                is.into_iter().filter(|(post, score)| may.get(post) != Some(score)).collect();
            self.equal(&format!("feed of {follower}"), &is, &must);
        }
    }

    fn has_always_followed(&self, follower: &str, user: &str) -> bool {
        let number = user.trim_start_matches('u').parse().unwrap_or_default();
        input::preloaded(number).iter().any(|one| one == follower)
    }

    fn has_ever_followed(&self, follower: &str, user: &str) -> bool {
        let set = format!("followers:{user}");
        self.heard(Flow::Follows)
            .any(|one| one.event.text("set") == set && one.event.text("member") == follower)
    }

    /// Per field the newest part, or where documents are replaced the newest; deleted is deleted.
    fn posts(&self, feeds: &Kept, search: &Kept) {
        let mut posts: BTreeMap<&str, BTreeMap<&str, (i64, &Value)>> = BTreeMap::new();
        let mut newest: BTreeMap<&str, (i64, &Value)> = BTreeMap::new();
        let mut deleted = BTreeSet::new();
        for one in self.heard(Flow::Posts) {
            let post = one.event.text("post");
            let fields = posts.entry(post).or_default();
            if one.event.kind() == DELETED {
                deleted.insert(post);
            }
            let document = one.event.body.as_ref().map(|body| &body["payload"]["doc"]);
            if let Some(document) = document.filter(|document| document.is_object()) {
                let at = one.event.number("at");
                let known = newest.entry(post).or_insert((at, document));
                if at > known.0 {
                    *known = (at, document);
                }
            }
            let part = document.and_then(Value::as_object);
            for (name, value) in part.into_iter().flatten() {
                let at = one.event.number("at");
                let known = fields.entry(name).or_insert((at, value));
                if at > known.0 {
                    *known = (at, value);
                }
            }
        }
        for (post, fields) in posts {
            let there = !deleted.contains(post) && !post.starts_with(REFUSED);
            let must: Option<Value> = there.then(|| {
                fields.into_iter().map(|(name, (_, value))| (name.to_owned(), value.clone())).collect()
            });
            let document = feeds.document_text(&format!("post:{post}"));
            let document: Option<Value> = document.and_then(|text| serde_json::from_str(&text).ok());
            self.equal(&format!("document {post}"), &document, &must);
            self.equal(&format!("indexed {post}"), &search.indexed(INDEX, post), &must);
            let must = newest.get(post).filter(|_| there).map(|(_, document)| (*document).clone());
            self.equal(&format!("indexed whole {post}"), &search.indexed(WHOLE, post), &must);
        }
    }

    /// Each event moves each counter once, however often it was appended.
    fn points(&self, kept: &Kept) {
        let mut counted = BTreeSet::new();
        let mut points: BTreeMap<&str, i64> = BTreeMap::new();
        for one in self.heard(Flow::Points).filter(|one| counted.insert(one.event.id().to_owned())) {
            let bonus = if self.is_rejected(Flow::Points, one) { 0 } else { one.event.number("bonus") };
            *points.entry(one.event.text("user")).or_default() += 1 + bonus;
        }
        for (user, must) in points {
            self.equal(&format!("points of {user}"), &kept.counter(&format!("points:{user}")), &Some(must));
        }
    }

    /// Every event that was appended is in the topic, in a transaction with its number within its partition: steps
    /// have what they carried.
    fn outputs(&self, log: &Log) {
        let numbered = |nth: u64| if self.setup.transactions { nth } else { 0 };
        let output = |record: Record| {
            let value: Value =
                serde_json::from_slice(record.value.as_deref().unwrap_or_default()).unwrap_or_default();
            let id = value["eventId"].as_str().unwrap_or("none").to_owned();
            (id, numbered(value["nth"].as_u64().unwrap_or_default()))
        };
        let mut heard: Vec<&Appended> = self.heard(Flow::Points).collect();
        heard.sort_by_key(|one| (one.partition, one.offset));
        let mut last: BTreeMap<i32, u64> = BTreeMap::new();
        let must = heard.into_iter().map(|one| {
            let nth = last.entry(one.partition).or_default();
            *nth += 1;
            (one.event.id().to_owned(), numbered(*nth))
        });
        self.once("the topic written", log.records(OUT).into_iter().map(output).collect(), must.collect());
    }
}
