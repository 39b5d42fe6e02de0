//! A versioned set: who follows whom. An older event never undoes a newer one.

use tokio::time::Duration;

use super::{
    LEDGER_DEFAULT,
    op::{OpRule, Polarity},
    required_template, version_of,
};
use crate::{
    error::Error,
    message::Message,
    settings::{Field, Kind, Object, Problems, Settings, Shape},
    template::Template,
};

/// `members:` in YAML.
pub static MEMBERS: Kind = Kind { name: "members", settings: &SETTINGS };

static SETTINGS: Object = Object {
    name: "members",
    doc: "A set whose members carry the version that put them in or out; a lookup reads it page by page.",
    fields: &[
        Field::required("store", Shape::Text, "the store that keeps it"),
        Field::required("key", Shape::Template, "the set's key, as 'followers:{payload.followee_id}'"),
        Field::with_default("op", Shape::Op(&["add", "remove"]), "add", "add or remove the member"),
        Field::required("member", Shape::Template, "the member"),
        Field::with_default(
            "version",
            Shape::Template,
            "{@occurred_at}",
            "an integer; the higher one wins, at equal versions the add",
        ),
        Field::with_default(
            "ledger",
            Shape::Duration,
            LEDGER_DEFAULT,
            "how long a removed member's version is remembered",
        ),
    ],
};

const WORDS: [&str; 2] = ["add", "remove"];

/// The settings, parsed.
#[derive(Clone, Debug)]
pub struct Members {
    key: Template,
    op: OpRule,
    member: Template,
    version: Template,
    /// Life of a removed member's version.
    pub ledger: Duration,
}

/// What a message asks of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembersEffect {
    /// The set's key.
    pub key: String,
    /// The member.
    pub member: String,
    /// In or out.
    pub op: Polarity,
    /// From 0 to 2^53.
    pub version: i64,
}

impl Members {
    /// Reads checked settings. None when a problem was added, or had been reported by the check.
    pub fn read(settings: &Settings, problems: &mut Problems) -> Option<Self> {
        Some(Members {
            key: required_template(settings, "key", problems)?,
            op: OpRule::read(settings, "op", &WORDS)?,
            member: required_template(settings, "member", problems)?,
            version: settings.template("version").or_else(|| Template::parse("{@occurred_at}").ok())?,
            ledger: settings.duration("ledger").unwrap_or(Duration::from_secs(30 * 86_400)),
        })
    }

    /// The effect of a message.
    ///
    /// # Errors
    /// Reject, naming the template or field at fault.
    pub fn effect(&self, message: &Message) -> Result<MembersEffect, Error> {
        Ok(MembersEffect {
            op: self.op.of(message)?,
            version: version_of(&self.version, message)?,
            key: self.key.render_id(message)?,
            member: self.member.render_id(message)?,
        })
    }
}
