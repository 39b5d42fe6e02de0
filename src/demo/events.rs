//! The events of a day in that network: posts, edits, deletes, likes, redeliveries and a few that are broken.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};

use super::network::Network;

/// One event and where it goes.
pub struct Event {
    /// The topic.
    pub topic: &'static str,
    /// The record's key.
    pub key: String,
    /// The record's value.
    pub value: String,
}

/// What was generated, to compare with what came out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Generated {
    pub follows: u64,
    pub posts: u64,
    pub edits: u64,
    pub deletes: u64,
    pub likes: u64,
    pub redeliveries: u64,
    pub malformed: u64,
}

/// Makes events, one after the other.
pub struct Day {
    network: Network,
    rng: SmallRng,
    now_ms: i64,
    next_id: u64,
    recent: VecDeque<Post>,
    pub generated: Generated,
}

#[derive(Clone)]
struct Post {
    id: String,
    author: u32,
    version: u32,
}

/// Posts that may still be edited, deleted or liked.
const RECENT_MAX: usize = 2_000;

const OPENINGS: [&str; 8] = [
    "Just tried",
    "Still thinking about",
    "Can't believe",
    "Anyone else into",
    "Morning with",
    "Hot take on",
    "Finally finished",
    "Looking for tips on",
];
const THINGS: [&str; 12] = [
    "the new coffee place",
    "a trail run",
    "sourdough",
    "that documentary",
    "vintage synths",
    "street photography",
    "the night train",
    "learning Rust",
    "homemade ramen",
    "the city marathon",
    "old film cameras",
    "a tiny garden",
];
const ENDINGS: [&str; 8] = [
    "and I have no regrets",
    "send help",
    "highly recommended",
    "what a week",
    "more soon",
    "ask me anything",
    "it was worth the wait",
    "see you there",
];
const TAGS: [&str; 8] = ["coffee", "running", "bread", "film", "music", "travel", "rust", "food"];

impl Day {
    /// A day that begins at `start_ms`; equal seeds give equal events.
    pub fn new(network: Network, seed: u64, start_ms: i64) -> Self {
        Day {
            network,
            rng: SmallRng::seed_from_u64(seed),
            now_ms: start_ms,
            next_id: 1,
            recent: VecDeque::new(),
            generated: Generated::default(),
        }
    }

    /// The network it happens in.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What was there before the day: people and whom they follow.
    pub fn history(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for person in 0..self.network.people.len() as u32 {
            let user_id = user(person);
            let name = &self.network.people[person as usize];
            let payload = json!({ "user_id": user_id, "username": name, "email": format!("{name}@mail.example"),
                "registered_at": self.now_ms, "premium": person % 10 == 0 });
            let value = self.envelope("identity.user.registered.v1", &user_id, &payload);
            events.push(Event { topic: "user-events", key: user_id, value });
        }
        let follows: Vec<(u32, u32)> = self.network.follows().collect();
        for (follower, followee) in follows {
            let payload =
                json!({ "follower_id": user(follower), "followee_id": user(followee), "at": self.now_ms });
            let value = self.envelope("social.user.followed.v1", &user(follower), &payload);
            events.push(Event { topic: "social-events", key: user(follower), value });
            self.generated.follows += 1;
        }
        events
    }

    /// The next thing that happens, with its redelivery if it has one.
    pub fn next(&mut self, events: &mut Vec<Event>) {
        self.now_ms += self.rng.random_range(1..40);
        let event = match self.rng.random_range(0..1_000) {
            0..3 => self.broken(),
            3..380 => self.post(),
            380..430 => self.edit(),
            430..460 => self.delete(),
            _ => self.like(),
        };
        if self.rng.random_range(0..100) == 0 {
            self.generated.redeliveries += 1;
            events.push(Event { topic: event.topic, key: event.key.clone(), value: event.value.clone() });
        }
        events.push(event);
    }

    fn post(&mut self) -> Event {
        let author = self.network.author(&mut self.rng);
        let id = format!("p{}", self.next_id);
        let visibility = match self.rng.random_range(0..20) {
            0 => "PRIVATE",
            1..4 => "FOLLOWERS_ONLY",
            _ => "PUBLIC",
        };
        let tags = if self.rng.random_range(0..2) == 0 { vec![self.pick(&TAGS)] } else { vec![] };
        let payload = json!({ "post_id": id, "user_id": user(author), "content": self.text(), "type": "TEXT",
            "visibility": visibility, "tags": tags, "created_at": self.now_ms, "version": 1 });
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Post { id: id.clone(), author, version: 1 });
        self.generated.posts += 1;
        let value = self.envelope("content.post.created.v1", &id, &payload);
        Event { topic: "content-events", key: user(author), value }
    }

    fn edit(&mut self) -> Event {
        let Some(index) = self.some_post() else { return self.post() };
        let content = format!("{} (edited)", self.text());
        let post = &mut self.recent[index];
        post.version += 1;
        let post = post.clone();
        let payload = json!({ "post_id": post.id, "user_id": user(post.author), "content": content,
            "updated_at": self.now_ms, "version": post.version });
        self.generated.edits += 1;
        let value = self.envelope("content.post.updated.v1", &post.id, &payload);
        Event { topic: "content-events", key: post.id, value }
    }

    fn delete(&mut self) -> Event {
        let Some(post) = self.some_post().and_then(|index| self.recent.remove(index)) else {
            return self.post();
        };
        let payload = json!({ "post_id": post.id, "user_id": user(post.author), "deleted_at": self.now_ms });
        self.generated.deletes += 1;
        let value = self.envelope("content.post.deleted.v1", &post.id, &payload);
        Event { topic: "content-events", key: post.id, value }
    }

    fn like(&mut self) -> Event {
        let Some(index) = self.some_post() else { return self.post() };
        let post = self.recent[index].clone();
        let followers = &self.network.followers[post.author as usize];
        let Some(last) = followers.len().checked_sub(1) else { return self.post() };
        let liker = followers[self.rng.random_range(0..=last)];
        let payload = json!({ "post_id": post.id, "user_id": user(liker), "author_id": user(post.author),
            "liked_at": self.now_ms });
        self.generated.likes += 1;
        let value = self.envelope("social.post.liked.v1", &post.id, &payload);
        Event { topic: "social-events", key: post.id, value }
    }

    fn broken(&mut self) -> Event {
        self.generated.malformed += 1;
        let id = format!("broken{}", self.next_id);
        let value = match self.rng.random_range(0..3) {
            0 => "{\"eventId\":\"truncated".to_owned(),
            1 => {
                let payload = json!({ "post_id": id, "user_id": "u1", "content": "no date", "visibility": "PUBLIC",
                    "created_at": "NaN", "version": 1 });
                self.envelope("content.post.created.v1", &id, &payload)
            }
            _ => {
                let payload =
                    json!({ "user_id": "u1", "content": "no id", "created_at": self.now_ms, "version": 1 });
                self.envelope("content.post.created.v1", "", &payload)
            }
        };
        Event { topic: "content-events", key: id, value }
    }

    fn envelope(&mut self, event_type: &str, biz_id: &str, payload: &Value) -> String {
        let id = self.next_id;
        self.next_id += 1;
        json!({ "eventId": id.to_string(), "eventType": event_type, "bizId": biz_id,
            "occurredAt": rfc3339(self.now_ms), "source": "demo", "correlationId": format!("{id:08x}"),
            "payload": payload })
        .to_string()
    }

    fn some_post(&mut self) -> Option<usize> {
        let last = self.recent.len().checked_sub(1)?;
        Some(self.rng.random_range(0..=last))
    }

    fn text(&mut self) -> String {
        format!("{} {}, {}", self.pick(&OPENINGS), self.pick(&THINGS), self.pick(&ENDINGS))
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.rng.random_range(0..words.len())]
    }
}

/// The id of a person.
pub fn user(person: u32) -> String {
    format!("u{person}")
}

fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map(|at| at.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_days() {
        let day = || {
            let mut rng = SmallRng::seed_from_u64(1);
            let mut day = Day::new(Network::generate(50, 5, &mut rng), 1, 1_700_000_000_000);
            let mut events = day.history();
            (0..500).for_each(|_| day.next(&mut events));
            events.into_iter().map(|event| event.value).collect::<Vec<_>>()
        };
        assert_eq!(day(), day());
    }
}
