//! What the demo shows in the end: a feed, a search, unread counters, dead letters, and where to look next.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use millrace_core::{Record, Result};
use serde_json::{Value, json};

use super::events::Generated;
use crate::{
    registry::EmbeddedViews,
    report::{counted, grouped},
};

/// What was seen.
pub struct Report {
    pub generated: Generated,
    pub seconds: f64,
    pub effects: u64,
    pub effects_per_second: u64,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub reader: String,
    pub feed: Vec<Post>,
    pub query: String,
    pub hits: Vec<Post>,
    pub hits_total: u64,
    pub unread: Vec<(String, i64)>,
    /// Reason to how many.
    pub dead_letters: BTreeMap<String, u64>,
    pub kept: Option<PathBuf>,
}

/// A post as a reader sees it.
pub struct Post {
    pub id: String,
    pub author: String,
    pub text: String,
}

impl Post {
    /// From the document of a post.
    pub fn of(document: &Value) -> Self {
        let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
        Post { id: text("post_id"), author: text("user_id"), text: text("content") }
    }

    fn json(&self) -> Value {
        json!({ "post_id": self.id, "user_id": self.author, "content": self.text })
    }
}

/// The newest posts of a user's feed.
pub async fn feed(store: &EmbeddedViews, user: &str, count: u32) -> Result<Vec<Post>> {
    let mut posts = Vec::new();
    for (post_id, _) in store.timeline(&format!("feed:{user}"), count).await? {
        if let Some(document) = store.document(&format!("post:{post_id}")).await? {
            posts.push(Post::of(&document));
        }
    }
    Ok(posts)
}

/// Dead letters by place and reason.
pub fn reasons(letters: &[Record]) -> BTreeMap<String, u64> {
    let mut reasons = BTreeMap::new();
    for letter in letters {
        let header = |name: &str| {
            letter.header(name).map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default()
        };
        let line = format!(
            "{} at {}: {}",
            header("millrace-pipeline"),
            header("millrace-place"),
            header("millrace-reason")
        );
        *reasons.entry(line).or_insert(0) += 1;
    }
    reasons
}

impl Report {
    pub fn json(&self) -> Value {
        let g = self.generated;
        json!({
            "generated": { "follows": g.follows, "posts": g.posts, "edits": g.edits, "deletes": g.deletes,
                "likes": g.likes, "redeliveries": g.redeliveries, "malformed": g.malformed },
            "seconds": self.seconds, "effects": self.effects, "effects_per_second": self.effects_per_second,
            "feed_p50_ms": self.p50_ms, "feed_p99_ms": self.p99_ms,
            "feed": { "user": self.reader, "posts": self.feed.iter().map(Post::json).collect::<Vec<_>>() },
            "search": { "query": self.query, "hits": self.hits_total, "first": self.hits.iter().map(Post::json).collect::<Vec<_>>() },
            "unread": self.unread.iter().map(|(user, count)| json!({ "user": user, "unread": count })).collect::<Vec<_>>(),
            "dead_letters": self.dead_letters,
        })
    }

    /// The text for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let g = self.generated;
        writeln!(
            out,
            "In {:.0} s: {}, {}, {}, {}; {} and {} among them.",
            self.seconds,
            counted(g.posts, "post"),
            counted(g.edits, "edit"),
            counted(g.deletes, "delete"),
            counted(g.likes, "like"),
            counted(g.redeliveries, "redelivery").replace("ys", "ies"),
            counted(g.malformed, "malformed event"),
        )?;
        let latency = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"));
        writeln!(
            out,
            "{} effects, {} a second; a post is in all its feeds after {} (p50) and {} (p99) at the most.",
            grouped(self.effects),
            grouped(self.effects_per_second),
            latency(self.p50_ms),
            latency(self.p99_ms),
        )?;
        writeln!(out, "\nThe feed of {}, newest first", self.reader)?;
        for post in &self.feed {
            writeln!(out, "  {:<8} {:<6} {}", post.id, post.author, post.text)?;
        }
        writeln!(out, "\nSearch for '{}': {}", self.query, counted(self.hits_total, "post"))?;
        for post in &self.hits {
            writeln!(out, "  {:<8} {:<6} {}", post.id, post.author, post.text)?;
        }
        writeln!(out, "\nMost unread likes; each like counts once, however often it was delivered")?;
        for (user, count) in &self.unread {
            writeln!(out, "  {:<15} {:>6}", user, grouped(count.unsigned_abs()))?;
        }
        let letters: u64 = self.dead_letters.values().sum();
        writeln!(
            out,
            "\n{}: what could not be processed, and why; nothing else was held up",
            counted(letters, "dead letter")
        )?;
        for (reason, count) in &self.dead_letters {
            writeln!(out, "  {count:>6}  {reason}")?;
        }
        writeln!(out, "\nWhere to look next")?;
        match &self.kept {
            Some(dir) => kept(out, dir)?,
            None => writeln!(
                out,
                "  millrace demo --keep DIR       keep the log and the views and look at them yourself"
            )?,
        }
        writeln!(out, "  pipelines.yaml                 what has just run; 'millrace check' checks it")?;
        writeln!(
            out,
            "  README.md                      the same on Kafka or Redpanda, Redis and Elasticsearch"
        )
    }
}

fn kept(out: &mut String, dir: &Path) -> std::fmt::Result {
    let dir = dir.display();
    writeln!(out, "  sqlite3 {dir}/views.db .tables")?;
    writeln!(out, "  millrace topic list --embedded={dir}")?;
    writeln!(
        out,
        "  millrace topic tail content-events.dlq --from beginning --until-end --json --embedded={dir}"
    )
}
