//! A timeline: members ordered by score, the newest kept. What a feed is made of.

use tokio::time::Duration;

use super::{
    LEDGER_DEFAULT,
    op::{OpRule, Polarity},
    required_template,
};
use crate::{
    error::Error,
    message::Message,
    settings::{Field, Kind, Object, Problems, Settings, Shape},
    template::Template,
};

/// `timeline:` in YAML.
pub static TIMELINE: Kind = Kind { name: "timeline", settings: &SETTINGS };

static SETTINGS: Object = Object {
    name: "timeline",
    doc: "Members ordered by score, the newest kept: a feed. Removed members stay out, also when their add comes late.",
    fields: &[
        Field::required("store", Shape::Text, "the store that keeps it"),
        Field::required("key", Shape::Template, "the timeline's key, as 'feed:{follower}'"),
        Field::with_default("op", Shape::Op(&["add", "remove"]), "add", "add or remove the member"),
        Field::required("member", Shape::Template, "the member, as '{post_id}'"),
        Field::required(
            "score",
            Shape::Template,
            "its score, a finite number, as '{created_at}'; not read by a remove",
        ),
        Field::with_default(
            "keep",
            Shape::Integer { min: 1, max: 1_000_000 },
            "800",
            "how many of the newest members readers see",
        ),
        Field::with_default(
            "slack",
            Shape::Integer { min: 0, max: 1_000_000 },
            "200",
            "how many more are stored, to fill gaps that removes leave",
        ),
        Field::optional("ttl", Shape::Duration, "forget a timeline that got no member for this long"),
        Field::with_default("ledger", Shape::Duration, LEDGER_DEFAULT, "how long a removed member stays out"),
    ],
};

const WORDS: [&str; 2] = ["add", "remove"];

/// The settings, parsed.
#[derive(Clone, Debug)]
pub struct Timeline {
    key: Template,
    op: OpRule,
    member: Template,
    score: Template,
    /// How many members are stored: keep + slack.
    pub stored_max: u32,
    /// How many readers see.
    pub keep: u32,
    /// Life of an idle timeline.
    pub ttl: Option<Duration>,
    /// Life of a tombstone.
    pub ledger: Duration,
}

/// What a message asks of a timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct TimelineEffect {
    /// The timeline's key.
    pub key: String,
    /// The member.
    pub member: String,
    /// What to do with it.
    pub op: TimelineOp,
}

/// The operation on a timeline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TimelineOp {
    /// Add with this score, unless the member was removed.
    Add {
        /// Finite.
        score: f64,
    },
    /// Remove, and keep out from now on.
    Remove,
}

impl Timeline {
    /// Reads checked settings. None when a problem was added, or had been reported by the check.
    pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        let keep = settings.count("keep").unwrap_or(800);
        Some(Timeline {
            key: required_template(settings, "key", problems)?,
            op: OpRule::read(settings, "op", &WORDS)?,
            member: required_template(settings, "member", problems)?,
            score: required_template(settings, "score", problems)?,
            stored_max: keep.saturating_add(settings.count("slack").unwrap_or(200)),
            keep,
            ttl: settings.duration("ttl"),
            ledger: settings.duration("ledger").unwrap_or(Duration::from_secs(30 * 86_400)),
        })
    }

    /// The effect of a message.
    ///
    /// # Errors
    /// Reject, naming the template or field at fault.
    pub fn effect(&self, message: &Message) -> Result<TimelineEffect, Error> {
        let op = match self.op.of(message)? {
            Polarity::Add => TimelineOp::Add { score: self.score.render_number(message)? },
            Polarity::Remove => TimelineOp::Remove,
        };
        Ok(TimelineEffect { key: self.key.render_id(message)?, member: self.member.render_id(message)?, op })
    }
}
