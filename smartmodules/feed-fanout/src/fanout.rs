//! One event and its followers as timeline entries. The followers stand in the event because a lookup step before
//! this module has put them there; what all entries share is written once.

use std::borrow::Cow;
use std::collections::BTreeMap;

use event::{ENVELOPE_FIELDS, Error, Event, Field, Params, text};
use serde_json::value::RawValue;

const CREATED: &str = "content.post.created.";
const DELETED: &str = "content.post.deleted.";

/// The parameters.
#[derive(Debug)]
pub struct Settings {
    from: String,
}

/// One record for one follower.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The follower.
    pub key: Vec<u8>,
    /// The JSON of the entry.
    pub value: Vec<u8>,
}

/// The JSON of an entry before and after the follower.
struct Frame {
    before: &'static str,
    after: String,
}

impl Settings {
    /// Reads `from`, the field beside the envelope's own that holds the followers.
    pub fn new(params: BTreeMap<String, String>) -> Result<Self, Error> {
        let params = Params::new(params, &["from"])?;
        let from = params.text("from")?.unwrap_or("followers");
        if ENVELOPE_FIELDS.contains(&from) {
            return Err(Error::param("from", "is a field of the envelope"));
        }
        Ok(Self { from: from.into() })
    }

    /// The entries of one event, in the order of its followers.
    pub fn entries(&self, value: &[u8]) -> Result<impl Iterator<Item = Entry>, Error> {
        let (event, followers) = Event::parse_with(value, &self.from)?;
        let frame = Frame::of(&event)?;
        Ok(followers_of(&followers)?.into_iter().map(move |follower| frame.entry(follower)))
    }
}

impl Frame {
    fn of(event: &Event<'_, '_>) -> Result<Self, Error> {
        let kind = event.event_type()?;
        let names = ["post_id", "user_id", "created_at"];
        if is(&kind, CREATED) {
            let [post, author, created_at] = event.payload.pick("payload", names)?;
            let (post, author, created_at) = (text_json(&post)?, text_json(&author)?, created_at.integer()?);
            let after = format!(r#","post_id":{post},"author_id":{author},"created_at":{created_at}}}"#);
            Ok(Self { before: r#"{"op":"add","follower":"#, after })
        } else if is(&kind, DELETED) {
            let [post, ..] = event.payload.pick("payload", names)?;
            let after = format!(r#","post_id":{}}}"#, text_json(&post)?);
            Ok(Self { before: r#"{"op":"remove","follower":"#, after })
        } else {
            Err(event.wrong_type("content.post.created.* or content.post.deleted.*"))
        }
    }

    fn entry(&self, follower: Follower<'_>) -> Entry {
        let mut value = Vec::with_capacity(self.before.len() + follower.json.len() + self.after.len());
        value.extend_from_slice(self.before.as_bytes());
        value.extend_from_slice(follower.json.as_bytes());
        value.extend_from_slice(self.after.as_bytes());
        Entry { key: follower.name.into_owned().into_bytes(), value }
    }
}

struct Follower<'a> {
    name: Cow<'a, str>,
    json: &'a str,
}

/// Every follower is read before the first entry is made: an event either fans out whole or not at all.
fn followers_of<'a>(field: &Field<'a, '_>) -> Result<Vec<Follower<'a>>, Error> {
    let json = field.required()?;
    let items: Vec<&RawValue> =
        serde_json::from_str(json).map_err(|_| Error::wrong(field.path(), "an array of strings"))?;
    let mut followers = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let json = item.get();
        let name = text(json)
            .ok_or_else(|| Error::wrong(format!("{}[{at}]", field.path()), "a non-empty string"))?;
        followers.push(Follower { name, json });
    }
    Ok(followers)
}

/// The JSON of a field that is a non-empty string.
fn text_json<'a>(field: &Field<'a, '_>) -> Result<&'a str, Error> {
    field.text()?;
    field.required()
}

fn is(kind: &str, prefix: &str) -> bool {
    kind.strip_prefix(prefix).is_some_and(|version| !version.is_empty())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const POST: &str = r#"{"post_id":"p1","user_id":"u1","created_at":1424129760000,"visibility":"PUBLIC"}"#;

    fn run(value: &str) -> Result<Vec<(String, String)>, String> {
        let settings = Settings::new(BTreeMap::new()).unwrap();
        let entries = settings.entries(value.as_bytes()).map_err(|e| e.to_string())?;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ok(entries.map(|entry| (text(entry.key), text(entry.value))).collect())
    }

    fn event(kind: &str, payload: &str, followers: &str) -> String {
        format!(r#"{{"eventType":"{kind}","payload":{payload},"followers":{followers}}}"#)
    }

    #[test]
    fn a_created_post_is_added_for_each_follower() {
        let entries = run(&event("content.post.created.v1", POST, r#"["u2", "u\"3"]"#)).unwrap();
        let value = |follower: &str| {
            format!(
                r#"{{"op":"add","follower":{follower},"post_id":"p1","author_id":"u1","created_at":1424129760000}}"#
            )
        };
        assert_eq!(entries, [("u2".into(), value(r#""u2""#)), ("u\"3".into(), value(r#""u\"3""#))]);
    }

    #[test]
    fn a_deleted_post_is_removed_and_needs_no_more_than_its_id() {
        let entries = run(&event("content.post.deleted.v2", r#"{"post_id":"p1"}"#, r#"["u2"]"#)).unwrap();
        assert_eq!(entries, [("u2".into(), r#"{"op":"remove","follower":"u2","post_id":"p1"}"#.into())]);
    }

    #[test]
    fn nobody_follows() {
        assert_eq!(run(&event("content.post.created.v1", POST, "[]")), Ok(Vec::new()));
    }

    #[test]
    fn other_events_are_refused() {
        for kind in ["content.post.updated.v1", "content.post.created.", "content.post.created", "x"] {
            let error = run(&event(kind, POST, "[]")).unwrap_err();
            assert_eq!(error, "eventType must be content.post.created.* or content.post.deleted.*", "{kind}");
        }
    }

    #[test]
    fn hostile_fields_are_named() {
        let created = |payload: &str, followers: &str| {
            run(&event("content.post.created.v1", payload, followers)).unwrap_err()
        };
        let at = |value| created(&format!(r#"{{"post_id":"p","user_id":"u","created_at":{value}}}"#), "[]");
        assert!(at("-1").starts_with("payload.created_at must be an integer"));
        assert!(at("1.5").starts_with("payload.created_at must be an integer"));
        assert!(at("9007199254740992").starts_with("payload.created_at must be an integer"));
        assert_eq!(at("null"), "payload.created_at is missing");
        assert_eq!(created(r#"{"post_id":7}"#, "[]"), "payload.post_id must be a non-empty string");
        assert_eq!(
            created(r#"{"post_id":"p","user_id":""}"#, "[]"),
            "payload.user_id must be a non-empty string"
        );
        assert_eq!(created(POST, "null"), "followers is missing");
        assert_eq!(created(POST, r#"{"u2":1}"#), "followers must be an array of strings");
        assert_eq!(created(POST, r#"["u2",3]"#), "followers[1] must be a non-empty string");
        assert_eq!(created(POST, r#"["u2","u3",""]"#), "followers[2] must be a non-empty string");
        assert_eq!(created("[]", "[]"), "payload must be a JSON object");
    }

    #[test]
    fn the_followers_may_stand_elsewhere_but_not_in_the_envelope() {
        let make = |from: &str| Settings::new(BTreeMap::from([("from".to_owned(), from.to_owned())]));
        let value = br#"{"eventType":"content.post.deleted.v1","payload":{"post_id":"p"},"fans":["u2"]}"#;
        assert_eq!(make("fans").unwrap().entries(value).unwrap().count(), 1);
        let error = make("payload").unwrap_err();
        assert_eq!(error.to_string(), "parameter `from` is a field of the envelope");
        assert!(make("").is_err());
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
