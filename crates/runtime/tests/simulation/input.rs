//! The events of a run, and where in the log they came to lie.

use std::sync::{Arc, Mutex};

use millrace_core::NewRecord;
use millrace_testkit::sim::{Log, REFUSED, World};
use serde_json::{Value, json};

use crate::setup::{Flow, Setup};

pub const CONTENT: &str = "content";
pub const SOCIAL: &str = "social";

pub const CREATED: &str = "content.post.created.v1";
pub const UPDATED: &str = "content.post.updated.v1";
pub const DELETED: &str = "content.post.deleted.v1";
pub const FOLLOWED: &str = "social.user.followed.v1";
pub const UNFOLLOWED: &str = "social.user.unfollowed.v1";
const UNLISTED: &str = "media.media.uploaded.v1";

pub const USERS: u64 = 3;
const FOLLOWERS: u64 = 12;
const PRELOADED: u64 = 3;
const CIRCLES: u64 = 3;

/// More than a counter may be moved by.
const BONUS_TOO_LARGE: i64 = 10_000_000_000;

/// An event as it is appended, the key included.
#[derive(Clone, Debug)]
pub struct Event {
    pub topic: &'static str,
    pub key: String,
    /// None is a record that is no event.
    pub body: Option<Value>,
}

/// An event in the log.
#[derive(Clone, Debug)]
pub struct Appended {
    pub event: Event,
    pub partition: i32,
    pub offset: i64,
}

/// Where the appended events are collected. Cloning shares it.
pub type Appendeds = Arc<Mutex<Vec<Appended>>>;

impl Event {
    pub fn kind(&self) -> &str {
        self.body.as_ref().and_then(|body| body["eventType"].as_str()).unwrap_or_default()
    }

    pub fn id(&self) -> &str {
        self.body.as_ref().and_then(|body| body["eventId"].as_str()).unwrap_or_default()
    }

    pub fn text(&self, field: &str) -> &str {
        self.body.as_ref().and_then(|body| body["payload"][field].as_str()).unwrap_or_default()
    }

    pub fn number(&self, field: &str) -> i64 {
        self.body.as_ref().and_then(|body| body["payload"][field].as_i64()).unwrap_or_default()
    }

    fn value(&self) -> String {
        self.body.as_ref().map_or_else(|| "{ not JSON".to_owned(), ToString::to_string)
    }
}

/// Who follows whom before the run begins.
pub fn preloaded(user: u64) -> Vec<String> {
    (0..PRELOADED).map(|n| follower((user + n) % FOLLOWERS)).collect()
}

pub fn follower(number: u64) -> String {
    format!("f{number}")
}

pub fn followers() -> impl Iterator<Item = String> {
    (0..FOLLOWERS).map(follower)
}

pub fn circles() -> impl Iterator<Item = String> {
    (0..CIRCLES).map(|number| format!("circle:c{number}"))
}

/// Numbers events and versions.
#[derive(Default)]
struct Writer {
    last: i64,
    events: Vec<Event>,
}

impl Writer {
    fn add(&mut self, topic: &'static str, key: &str, kind: &str, mut payload: Value) {
        self.last += 1;
        payload["at"] = self.last.into();
        let body = json!({ "eventId": format!("e{}", self.last), "eventType": kind, "payload": payload });
        self.events.push(Event { topic, key: key.to_owned(), body: Some(body) });
    }
}

/// All events of a run, in the order in which they are appended.
pub fn events(world: &World, setup: &Setup) -> Vec<Event> {
    let mut writer = Writer::default();
    if setup.flows != [Flow::Follows] {
        for post in 0..setup.posts {
            post_of(world, &mut writer, post);
        }
    }
    if setup.flows.contains(&Flow::Follows) {
        for _ in 0..setup.follows {
            follow(world, &mut writer);
        }
    }
    let mut events = writer.events;
    for _ in 0..world.below(4) {
        let topic = if setup.flows.contains(&Flow::Follows) { SOCIAL } else { CONTENT };
        events.push(Event { topic, key: format!("bad{}", world.below(9)), body: None });
    }
    if events.is_empty() {
        return events;
    }
    // A producer that was not answered appends again.
    for _ in 0..world.below(6) {
        events.push(events[world.index(events.len())].clone());
    }
    // Near neighbours change places: keys lie in different partitions, and their producers know nothing of order.
    for place in 0..events.len() {
        let other = (place + world.index(8)).min(events.len() - 1);
        events.swap(place, other);
    }
    events
}

fn post_of(world: &World, writer: &mut Writer, number: u64) {
    let user = format!("u{}", world.below(USERS));
    let refused = world.chance(0.06);
    let post = if refused { format!("{REFUSED}-{number}") } else { format!("p{number}") };
    let bonus = if world.chance(0.05) { BONUS_TOO_LARGE } else { world.pick(&[0, 2, 5]) };
    let flawed = world.chance(0.05);
    let mut payload = json!({
        "op": "put", "user": user, "post": post, "bonus": bonus,
        "doc": { "text": format!("first {number}"), "by": user, "tags": [number] },
    });
    if flawed {
        payload["flaw"] = "step".into();
    }
    writer.add(CONTENT, &user, CREATED, payload);
    for update in 0..world.below(3) {
        let doc = match world.below(2) {
            0 => json!({ "text": format!("text {update}") }),
            _ => json!({ "text": format!("text {update}"), "edited": update }),
        };
        writer.add(CONTENT, &post, UPDATED, json!({ "op": "put", "user": user, "post": post, "doc": doc }));
    }
    if world.chance(0.1) {
        writer.add(CONTENT, &post, UNLISTED, json!({ "user": user }));
    }
    // What becomes of a create that is rejected and deleted depends on which came first.
    if world.chance(0.4) && !refused && !flawed {
        writer.add(CONTENT, &post, DELETED, json!({ "op": "delete", "user": user, "post": post }));
    }
}

/// Sets that a lookup reads only grow; the others change in both directions.
fn follow(world: &World, writer: &mut Writer) {
    let member = if world.chance(0.05) { format!("{REFUSED}-m") } else { follower(world.below(FOLLOWERS)) };
    if world.chance(0.6) {
        let set = format!("followers:u{}", world.below(USERS));
        writer.add(SOCIAL, &set, FOLLOWED, json!({ "op": "add", "set": set, "member": member }));
    } else {
        let set = format!("circle:c{}", world.below(CIRCLES));
        let (kind, op) = if world.chance(0.5) { (FOLLOWED, "add") } else { (UNFOLLOWED, "remove") };
        // Not keyed by the set: its changes come from several partitions.
        writer.add(SOCIAL, &member, kind, json!({ "op": op, "set": set, "member": member }));
    }
}

/// Appends the events over time.
pub async fn append(world: World, log: Log, events: Vec<Event>, within_ms: u64, appended: Appendeds) {
    let pause = within_ms / (events.len() as u64 + 1);
    for event in events {
        let key = Some(event.key.clone().into());
        let record = NewRecord { key, value: Some(event.value().into()), ..NewRecord::default() };
        let at = log.append(event.topic, record).expect("the topics are there");
        world.note(|| format!("log: {}/{} {} is {}", event.topic, at.partition, at.offset, event.value()));
        appended.lock().unwrap().push(Appended { event, partition: at.partition, offset: at.offset });
        // Bursts and silence.
        let ms = if world.chance(0.5) { 0 } else { world.below(4 * pause + 1) };
        world.wait(ms).await;
    }
}
