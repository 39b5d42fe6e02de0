//! Whom an event concerns, and what he is told.

use std::collections::BTreeMap;
use std::io::Write;

use event::{Error, Event, Field, Params, write_string};

const KINDS: [Kind; 3] = [Kind::Like, Kind::Comment, Kind::Follow];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Like,
    Comment,
    Follow,
}

/// The parameters.
#[derive(Debug)]
pub struct Settings {
    count: Vec<Kind>,
}

/// One notification.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice {
    /// The person who is told.
    pub recipient: String,
    /// The JSON of the notification.
    pub json: Vec<u8>,
}

/// What an event says: who did it, to whom, to which post and when.
struct Deed<'a> {
    actor: Field<'a, 'static>,
    recipient: Field<'a, 'static>,
    post: Option<Field<'a, 'static>>,
    at: Field<'a, 'static>,
}

impl Kind {
    fn of(event_type: &str) -> Option<Self> {
        match event_type {
            "social.post.liked.v1" => Some(Self::Like),
            "social.post.commented.v1" => Some(Self::Comment),
            "social.user.followed.v1" => Some(Self::Follow),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Like => "like",
            Self::Comment => "comment",
            Self::Follow => "follow",
        }
    }

    fn deed<'a>(self, payload: &Field<'a, '_>) -> Result<Deed<'a>, Error> {
        if self == Self::Follow {
            let [actor, recipient, at] = payload.pick("payload", ["follower_id", "followee_id", "at"])?;
            return Ok(Deed { actor, recipient, post: None, at });
        }
        let [actor, recipient, post, at, liked_at] =
            payload.pick("payload", ["user_id", "author_id", "post_id", "at", "liked_at"])?;
        let at = if self == Self::Like { liked_at.or(at) } else { at.or(liked_at) };
        Ok(Deed { actor, recipient, post: Some(post), at })
    }
}

impl Settings {
    /// Reads `count`, the kinds that add to the unread counter.
    pub fn new(params: BTreeMap<String, String>) -> Result<Self, Error> {
        let params = Params::new(params, &["count"])?;
        let mut count = Vec::new();
        for name in params.list("count", Kind::Like.name())? {
            let kind = KINDS.into_iter().find(|kind| kind.name() == name);
            count.push(kind.ok_or_else(|| Error::param("count", "takes like, comment and follow"))?);
        }
        Ok(Self { count })
    }

    /// The notification of an event; none where it concerns nobody else or is of another type.
    pub fn notice(&self, value: &[u8]) -> Result<Option<Notice>, Error> {
        let event = Event::parse(value)?;
        let Some(kind) = Kind::of(&event.event_type()?) else {
            return Ok(None);
        };
        let id = event.event_id.text()?;
        let deed = kind.deed(&event.payload)?;
        let (actor, recipient) = (deed.actor.text()?, deed.recipient.text()?);
        let post = deed.post.map(|post| post.text()).transpose()?;
        let at = deed.at.integer()?;
        if actor == recipient {
            return Ok(None);
        }
        let mut json = Vec::with_capacity(192);
        text(&mut json, r#"{"notification_id":"#, &id);
        text(&mut json, r#","recipient":"#, &recipient);
        text(&mut json, r#","actor":"#, &actor);
        text(&mut json, r#","kind":"#, kind.name());
        if let Some(post) = post {
            text(&mut json, r#","post_id":"#, &post);
        }
        let unread = u8::from(self.count.contains(&kind));
        write!(json, r#","at":{at},"unread":{unread}}}"#).expect("invariant: a Vec takes every byte");
        Ok(Some(Notice { recipient: recipient.into_owned(), json }))
    }
}

fn text(json: &mut Vec<u8>, before: &str, value: &str) {
    json.extend_from_slice(before.as_bytes());
    write_string(json, value);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn make(count: Option<&str>) -> Result<Settings, String> {
        let params = count.map(|count| ("count".to_owned(), count.to_owned())).into_iter().collect();
        Settings::new(params).map_err(|e| e.to_string())
    }

    fn run(count: Option<&str>, kind: &str, payload: &str) -> Result<Option<(String, String)>, String> {
        let value = format!(r#"{{"eventId":"e1","eventType":"social.{kind}.v1","payload":{payload}}}"#);
        let notice = make(count).unwrap().notice(value.as_bytes()).map_err(|e| e.to_string())?;
        Ok(notice.map(|notice| (notice.recipient, String::from_utf8(notice.json).unwrap())))
    }

    const LIKE: &str = r#"{"post_id":"p1","user_id":"u2","author_id":"u1","liked_at":5}"#;
    const COMMENT: &str = r#"{"post_id":"p1","user_id":"u2","author_id":"u\"1","at":6,"text":"hi"}"#;
    const FOLLOW: &str = r#"{"follower_id":"u2","followee_id":"u1","at":7}"#;

    #[test]
    fn each_kind_tells_whom_it_concerns() {
        let like = r#"{"notification_id":"e1","recipient":"u1","actor":"u2","kind":"like","post_id":"p1","at":5,"unread":1}"#;
        assert_eq!(run(None, "post.liked", LIKE), Ok(Some(("u1".into(), like.into()))));
        let comment = r#"{"notification_id":"e1","recipient":"u\"1","actor":"u2","kind":"comment","post_id":"p1","at":6,"unread":0}"#;
        assert_eq!(run(None, "post.commented", COMMENT), Ok(Some(("u\"1".into(), comment.into()))));
        let follow =
            r#"{"notification_id":"e1","recipient":"u1","actor":"u2","kind":"follow","at":7,"unread":0}"#;
        assert_eq!(run(None, "user.followed", FOLLOW), Ok(Some(("u1".into(), follow.into()))));
    }

    #[test]
    fn the_parameter_says_what_counts() {
        let unread = |count, kind, payload| {
            let (_, json) = run(Some(count), kind, payload).unwrap().unwrap();
            json.ends_with(r#""unread":1}"#)
        };
        assert!(unread("like, follow", "user.followed", FOLLOW));
        assert!(!unread("follow", "post.liked", LIKE));
        assert!(!unread("", "post.liked", LIKE));
        assert_eq!(make(Some("likes")).unwrap_err(), "parameter `count` takes like, comment and follow");
    }

    #[test]
    fn nobody_is_told_what_he_did_himself() {
        assert_eq!(
            run(None, "post.liked", r#"{"post_id":"p","user_id":"u1","author_id":"u1","at":5}"#),
            Ok(None)
        );
        assert_eq!(run(None, "user.followed", r#"{"follower_id":"u1","followee_id":"u1","at":5}"#), Ok(None));
    }

    #[test]
    fn other_events_are_passed_over() {
        assert_eq!(run(None, "user.unfollowed", FOLLOW), Ok(None));
        assert_eq!(run(None, "post.viewed", "3"), Ok(None));
    }

    #[test]
    fn hostile_events_are_named() {
        let error = |kind, payload| run(None, kind, payload).unwrap_err();
        assert_eq!(error("post.liked", "null"), "payload is missing");
        assert_eq!(
            error("post.liked", r#"{"user_id":"a","post_id":"p","at":1}"#),
            "payload.author_id is missing"
        );
        assert_eq!(
            error("post.liked", r#"{"user_id":1,"author_id":"b"}"#),
            "payload.user_id must be a non-empty string"
        );
        assert_eq!(
            error("post.liked", r#"{"user_id":"a","author_id":"b","at":1}"#),
            "payload.post_id is missing"
        );
        assert_eq!(
            error("post.liked", r#"{"user_id":"a","author_id":"b","post_id":"p"}"#),
            "payload.liked_at is missing"
        );
        assert_eq!(
            error("post.commented", r#"{"user_id":"a","author_id":"b","post_id":"p"}"#),
            "payload.at is missing"
        );
        let at = r#"{"follower_id":"a","followee_id":"b","at":"now"}"#;
        assert_eq!(error("user.followed", at), "payload.at must be an integer from 0 to 9007199254740991");
        let anonymous = br#"{"eventType":"social.user.followed.v1","payload":{}}"#;
        assert_eq!(make(None).unwrap().notice(anonymous).unwrap_err().to_string(), "eventId is missing");
        assert_eq!(make(None).unwrap().notice(b"{}").unwrap_err().to_string(), "eventType is missing");
    }

    #[test]
    fn the_parameters_are_those_of_its_description() {
        let description = include_str!("../SmartModule.toml");
        let names: Vec<_> =
            description.split("[[params]]").skip(1).filter_map(|p| p.split('"').nth(1)).collect();
        let error = Settings::new(BTreeMap::from([("?".to_owned(), String::new())])).unwrap_err().to_string();
        assert_eq!(error, format!("unknown parameter `?`, known are {}", names.join(", ")));
    }
}
