//! A small social network as events, generated: the input of the end-to-end tests. Equal seeds, equal events.

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use serde_json::{Value, json};

/// Events as NDJSON lines, by what they are produced as.
#[derive(Clone, Debug, Default)]
pub struct Corpus {
    pub users: Vec<String>,
    pub follows: Vec<String>,
    pub created: Vec<String>,
    pub updated: Vec<String>,
    pub deleted: Vec<String>,
    pub likes: Vec<String>,
}

const START_MS: i64 = 1_700_000_000_000;

impl Corpus {
    /// `people` persons and `posts` posts, with edits, deletes, likes, self-likes and redeliveries; the
    /// order of the events is shuffled within each kind.
    pub fn generate(people: u32, posts: u32, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut corpus = Corpus::default();
        let mut id = 0u64;
        for person in 0..people {
            let payload = json!({ "user_id": user(person), "username": format!("name{person}"),
                "email": format!("{person}@mail.example"), "premium": false, "registered_at": START_MS });
            corpus.users.push(event(&mut id, "identity.user.registered.v1", &user(person), &payload));
            for _ in 0..rng.random_range(1..people / 3) {
                let followee = rng.random_range(0..people);
                if followee != person {
                    let payload =
                        json!({ "follower_id": user(person), "followee_id": user(followee), "at": START_MS });
                    corpus.follows.push(event(&mut id, "social.user.followed.v1", &user(person), &payload));
                }
            }
        }
        for number in 0..posts {
            corpus.post(&mut rng, &mut id, people, number);
        }
        for kind in [&mut corpus.created, &mut corpus.updated, &mut corpus.deleted, &mut corpus.likes] {
            let again: Vec<String> = kind.iter().filter(|_| rng.random_range(0..20) == 0).cloned().collect();
            kind.extend(again);
            kind.shuffle(&mut rng);
        }
        corpus
    }

    /// The number-th post and all that happens to it; `id` is the last event id given.
    pub fn post(&mut self, rng: &mut SmallRng, id: &mut u64, people: u32, number: u32) {
        let (post, author) = (format!("p{number}"), rng.random_range(0..people));
        let at = START_MS + i64::from(number) * 1_000 + rng.random_range(0..3_000);
        let visibility = ["PUBLIC", "PUBLIC", "FOLLOWERS_ONLY", "PRIVATE"][rng.random_range(0..4)];
        let tags: Vec<&str> = if rng.random_range(0..2) == 0 { vec![] } else { vec!["tag"] };
        let payload = json!({ "post_id": post, "user_id": user(author), "content": format!("text of {post} é\"\\"),
            "type": "TEXT", "visibility": visibility, "tags": tags, "created_at": at, "version": 1 });
        self.created.push(event(id, "content.post.created.v1", &post, &payload));
        for version in 2..2 + rng.random_range(0..3) {
            let payload = json!({ "post_id": post, "user_id": user(author),
                "content": format!("text of {post}, version {version}"), "updated_at": at + version, "version": version });
            self.updated.push(event(id, "content.post.updated.v1", &post, &payload));
        }
        if rng.random_range(0..8) == 0 {
            let payload = json!({ "post_id": post, "user_id": user(author), "deleted_at": at + 10 });
            self.deleted.push(event(id, "content.post.deleted.v1", &post, &payload));
        }
        for _ in 0..rng.random_range(0..4) {
            let liker = rng.random_range(0..people);
            let payload = json!({ "post_id": post, "user_id": user(liker), "author_id": user(author), "liked_at": at + 5 });
            self.likes.push(event(id, "social.post.liked.v1", &post, &payload));
        }
    }
}

pub fn user(person: u32) -> String {
    format!("u{person}")
}

fn event(id: &mut u64, event_type: &str, biz_id: &str, payload: &Value) -> String {
    *id += 1;
    json!({ "eventId": format!("e{id}"), "eventType": event_type, "bizId": biz_id, "occurredAt": "2023-11-14T22:13:20Z",
        "source": "test", "correlationId": format!("c{id}"), "payload": payload })
    .to_string()
}
