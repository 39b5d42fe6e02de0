//! What must be true in the end, computed straight from the events without any of Millrace's code.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{corpus::Corpus, servers::World};

/// The end state.
#[derive(Debug, Default)]
pub struct Reference {
    /// Per user with followees: post and score, newest first, ties by id downwards, at most 800.
    pub feeds: BTreeMap<String, Vec<(String, i64)>>,
    /// Every post that is not deleted.
    pub posts: BTreeMap<String, Value>,
    /// Distinct likes received from others.
    pub unread: BTreeMap<String, i64>,
    /// All users.
    pub users: BTreeSet<String>,
    /// Every post that ever was.
    created: BTreeSet<String>,
}

impl Reference {
    pub fn of(corpus: &Corpus) -> Self {
        let mut reference = Reference::default();
        let mut posts: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for payload in payloads(&corpus.created) {
            posts.insert(text(&payload, "post_id"), payload);
        }
        reference.created = posts.keys().cloned().collect();
        for update in payloads(&corpus.updated) {
            let post = posts.get_mut(&text(&update, "post_id")).expect("a post is created");
            if update["version"].as_i64() > post["version"].as_i64() {
                for (field, value) in update {
                    post.insert(field, value);
                }
            }
        }
        for deleted in payloads(&corpus.deleted) {
            posts.remove(&text(&deleted, "post_id"));
        }
        let mut followers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for follow in payloads(&corpus.follows) {
            followers.entry(text(&follow, "followee_id")).or_default().insert(text(&follow, "follower_id"));
        }
        for (id, post) in &posts {
            if post["visibility"] == "PRIVATE" {
                continue;
            }
            let score = post["created_at"].as_i64().expect("a time");
            for follower in followers.get(&text(post, "user_id")).into_iter().flatten() {
                reference.feeds.entry(follower.clone()).or_default().push((id.clone(), score));
            }
        }
        for feed in reference.feeds.values_mut() {
            feed.sort_by(|a, b| (b.1, &b.0).cmp(&(a.1, &a.0)));
            feed.truncate(800);
        }
        let mut seen = BTreeSet::new();
        for line in &corpus.likes {
            let like: Value = serde_json::from_str(line).expect("an event");
            let payload = &like["payload"];
            if payload["user_id"] != payload["author_id"] && seen.insert(like["eventId"].to_string()) {
                let author = payload["author_id"].as_str().expect("an author").to_owned();
                *reference.unread.entry(author).or_default() += 1;
            }
        }
        reference.posts = posts.into_iter().map(|(id, post)| (id, Value::Object(post))).collect();
        reference.users = payloads(&corpus.users).map(|user| text(&user, "user_id")).collect();
        reference
    }

    /// Fails where a reader would see anything else.
    pub fn assert_seen_in(&self, world: &mut dyn World) {
        for user in &self.users {
            let feed = world.feed(user);
            assert_eq!(feed, self.feeds.get(user).cloned().unwrap_or_default(), "the feed of {user}");
            let unread = self.unread.get(user).copied().unwrap_or(0);
            assert_eq!(world.unread(user).unwrap_or(0), unread, "unread of {user}");
        }
        let found = world.index("posts");
        assert_eq!(ids(&found), ids(&self.posts), "the posts of the index");
        for (id, post) in &self.posts {
            assert_same(&found[id], post, "the index");
            let summary = world.post(id).unwrap_or_else(|| panic!("post:{id} is missing"));
            assert_same(&summary, post, "the summary");
        }
        for id in &self.created {
            assert_eq!(world.post(id).is_some(), self.posts.contains_key(id), "post:{id}");
        }
        assert_eq!(world.index("users").into_keys().collect::<BTreeSet<_>>(), self.users);
    }
}

fn ids(posts: &BTreeMap<String, Value>) -> Vec<&String> {
    posts.keys().collect()
}

/// Every field of the reference; what is beside them is bookkeeping.
fn assert_same(seen: &Value, post: &Value, what: &str) {
    for (field, value) in post.as_object().expect("a post") {
        assert_eq!(&seen[field], value, "{field} of {} in {what}", post["post_id"]);
    }
}

fn payloads(lines: &[String]) -> impl Iterator<Item = Map<String, Value>> + '_ {
    lines.iter().map(|line| {
        let event: Value = serde_json::from_str(line).expect("an event");
        event["payload"].as_object().expect("a payload").clone()
    })
}

fn text(payload: &Map<String, Value>, field: &str) -> String {
    payload[field].as_str().expect("text").to_owned()
}
