//! What a record of a dead-letter topic says: a letter, a resolution, or nothing that Millrace wrote.

use std::{fmt, str::FromStr, sync::Arc};

use millrace_core::{Class, Error, Header, NewRecord, Record, Result};

use crate::{
    dead_letter::{FORMAT, Place},
    pipeline::ModuleAbout,
};

/// The header that makes a record a resolution: the letter it settles, as `PARTITION:OFFSET`.
pub const RESOLVES: &str = "millrace-resolves";

const OWN: &str = "millrace-";

/// Where a letter lies in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// How a letter was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It went through its pipeline.
    Replayed,
    /// A person gave it up.
    Discarded,
    /// It was replayed and failed again; a newer letter stands for it.
    Replaced,
}

/// A letter's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Which letter.
    pub id: LetterId,
    /// How.
    pub outcome: Outcome,
    /// Who did it, if that is known.
    pub by: Option<String>,
    /// When, ms since 1970.
    pub at_ms: i64,
}

/// A dead letter, read back.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Where it lies.
    pub id: LetterId,
    /// The pipeline that gave the record up.
    pub pipeline: String,
    /// The isolated sink whose lane it was.
    pub lane: Option<String>,
    /// Where in it the record failed first.
    pub place: Place,
    /// The error's class.
    pub class: String,
    /// The chain of reasons.
    pub reason: String,
    /// Further places and reasons.
    pub more: Vec<(String, String)>,
    /// The module at fault.
    pub module: Option<ModuleAbout>,
    /// How often the record was tried, replays included.
    pub attempts: u32,
    /// How often it was replayed before this letter.
    pub replays: u32,
    /// When it failed first, ms since 1970.
    pub first_failed_ms: i64,
    /// When it failed last, ms since 1970.
    pub last_failed_ms: i64,
    /// The record as it was read: origin, timestamp, key, value and headers.
    pub record: Record,
    /// The bytes of a value that was too large to be kept; then key, value and headers are not here.
    pub truncated_bytes: Option<u64>,
}

/// What lies in a dead-letter topic.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A record that failed.
    Letter(Box<Letter>),
    /// What became of one.
    Resolution(Resolution),
    /// Somebody else's record.
    Foreign,
}

impl Entry {
    /// Reads a record of a dead-letter topic.
    ///
    /// # Errors
    /// Fatal when a newer program wrote it; Reject when it calls itself a dead letter and lacks what one has.
    pub fn read(record: &Record) -> Result<Entry> {
        let fields = Fields(record);
        match fields.text("millrace-format") {
            None => return Ok(Entry::Foreign),
            Some(format) if format == FORMAT => {}
            Some(format) => {
                let why =
                    format!("has the format {format}, this program knows {FORMAT}; use a newer millrace");
                return Err(Error::fatal(fields.who(), why));
            }
        }
        if fields.text(RESOLVES).is_some() {
            return Ok(Entry::Resolution(Resolution {
                id: fields.parsed(RESOLVES)?,
                outcome: fields.parsed("millrace-resolution")?,
                by: fields.text("millrace-resolved-by"),
                at_ms: fields.parsed("millrace-resolved-at")?,
            }));
        }
        Letter::read(&fields).map(|letter| Entry::Letter(Box::new(letter)))
    }
}

impl Letter {
    fn read(fields: &Fields<'_>) -> Result<Self> {
        let record = fields.0;
        let kept = record.headers.iter().filter(|header| !header.name.starts_with(OWN));
        let module = fields.text("millrace-module").map(|module| ModuleAbout {
            module: module.into(),
            digest: fields.text("millrace-module-sha256").unwrap_or_default().into(),
        });
        let first_failed_ms = fields.parsed("millrace-first-failed-at")?;
        Ok(Letter {
            id: LetterId { partition: record.partition, offset: record.offset },
            pipeline: fields.required("millrace-pipeline")?,
            lane: fields.text("millrace-lane"),
            place: fields.parsed("millrace-place")?,
            class: fields.text("millrace-class").unwrap_or_else(|| Class::Reject.name().to_owned()),
            reason: fields.text("millrace-reason").unwrap_or_default(),
            more: more(&fields.text("millrace-more").unwrap_or_default()),
            module,
            attempts: fields.parsed_or("millrace-attempts", 1)?,
            replays: fields.parsed_or("millrace-replays", 0)?,
            first_failed_ms,
            last_failed_ms: fields.parsed_or("millrace-last-failed-at", first_failed_ms)?,
            record: Record {
                topic: fields.required("millrace-origin-topic")?.into(),
                partition: fields.parsed("millrace-origin-partition")?,
                offset: fields.parsed("millrace-origin-offset")?,
                timestamp_ms: fields.parsed("millrace-origin-timestamp")?,
                key: record.key.clone(),
                value: record.value.clone(),
                headers: kept.cloned().collect(),
            },
            truncated_bytes: match fields.text("millrace-value-truncated") {
                None => None,
                Some(_) => Some(fields.parsed("millrace-value-truncated")?),
            },
        })
    }

    /// Every place the record failed in, the first one first.
    pub fn places(&self) -> impl Iterator<Item = String> + '_ {
        std::iter::once(self.place.to_string()).chain(self.more.iter().map(|(place, _)| place.clone()))
    }

    /// When the log got the record: from then on its events may have had effects. Where the log keeps no
    /// times, when it failed first. Milliseconds since 1970.
    pub fn since_ms(&self) -> i64 {
        if self.record.timestamp_ms > 0 { self.record.timestamp_ms } else { self.first_failed_ms }
    }
}

impl Resolution {
    /// The record that settles the letter, for the letter's own topic and partition.
    pub fn record(&self) -> NewRecord {
        let mut headers = vec![
            ("millrace-format", FORMAT.to_owned()),
            (RESOLVES, self.id.to_string()),
            ("millrace-resolution", self.outcome.to_string()),
            ("millrace-resolved-at", self.at_ms.to_string()),
        ];
        headers.extend(self.by.clone().map(|by| ("millrace-resolved-by", by)));
        let header = |(name, value): (&str, String)| Header { name: name.into(), value: Some(value.into()) };
        NewRecord {
            key: None,
            value: None,
            headers: headers.into_iter().map(header).collect(),
            partition: Some(self.id.partition),
            source_offset: None,
        }
    }
}

/// The headers of a record, with errors that name it.
struct Fields<'r>(&'r Record);

impl Fields<'_> {
    fn who(&self) -> String {
        let Record { topic, partition, offset, .. } = self.0;
        format!("dead letter {topic}/{partition}:{offset}")
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0.header(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    fn required(&self, name: &str) -> Result<String> {
        self.text(name).ok_or_else(|| Error::reject(self.who(), format!("has no header {name}")))
    }

    fn parsed<T: FromStr>(&self, name: &str) -> Result<T> {
        let text = self.required(name)?;
        text.parse().map_err(|_| Error::reject(self.who(), format!("its header {name} cannot be read")))
    }

    fn parsed_or<T: FromStr>(&self, name: &str, usual: T) -> Result<T> {
        if self.0.header(name).is_some() { self.parsed(name) } else { Ok(usual) }
    }
}

/// The further failures, as far as they can be read: they are for people.
fn more(json: &str) -> Vec<(String, String)> {
    let listed: Vec<serde_json::Value> = serde_json::from_str(json).unwrap_or_default();
    let text = |entry: &serde_json::Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    listed.iter().map(|entry| (text(entry, "place"), text(entry, "reason"))).collect()
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no PARTITION:OFFSET");
        let (partition, offset) = text.split_once(':').ok_or_else(wrong)?;
        let partition = partition.parse().ok().filter(|partition| *partition >= 0).ok_or_else(wrong)?;
        let offset = offset.parse().ok().filter(|offset| *offset >= 0).ok_or_else(wrong)?;
        Ok(LetterId { partition, offset })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Replayed => "replayed",
            Outcome::Discarded => "discarded",
            Outcome::Replaced => "replaced",
        })
    }
}

impl FromStr for Outcome {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "replayed" => Ok(Outcome::Replayed),
            "discarded" => Ok(Outcome::Discarded),
            "replaced" => Ok(Outcome::Replaced),
            _ => Err(format!("'{text}' is no resolution")),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = |id: &str| -> Arc<str> { id.into() };
        match text.split_once(':') {
            None if text == "decode" => Ok(Place::Decode),
            Some(("step", step)) if !step.is_empty() => Ok(Place::Step(id(step))),
            Some(("lookup", lookup)) if !lookup.is_empty() => Ok(Place::Lookup(id(lookup))),
            Some(("sink", sink)) if !sink.is_empty() => Ok(Place::Sink(id(sink))),
            _ => Err(format!("'{text}' is no place; places are decode, step:ID, lookup:ID and sink:ID")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn record(headers: &[(&str, &str)]) -> Record {
        let header = |(name, value): &(&str, &str)| Header {
            name: (*name).into(),
            value: Some(value.to_string().into()),
        };
        Record {
            topic: "events.dlq".into(),
            partition: 2,
            offset: 5,
            timestamp_ms: 9,
            key: None,
            value: Some("{}".into()),
            headers: headers.iter().map(header).collect(),
        }
    }

    #[test]
    fn a_resolution_is_read_as_it_was_written() {
        let id = LetterId { partition: 2, offset: 7 };
        let written = Resolution { id, outcome: Outcome::Replaced, by: Some("ann".into()), at_ms: 12 };
        let new = written.record();
        assert_eq!((new.partition, &new.key, &new.value), (Some(2), &None, &None));
        let read = Record { headers: new.headers.into(), value: None, ..record(&[]) };
        assert!(matches!(Entry::read(&read).unwrap(), Entry::Resolution(read) if read == written));
    }

    #[test]
    fn what_is_no_letter_is_told_from_what_is_broken() {
        assert!(matches!(Entry::read(&record(&[("trace", "1")])).unwrap(), Entry::Foreign));
        let newer = Entry::read(&record(&[("millrace-format", "2")])).unwrap_err();
        assert_eq!(newer.class(), Class::Fatal);
        assert_eq!(newer.who(), "dead letter events.dlq/2:5");
        let broken =
            Entry::read(&record(&[("millrace-format", "1"), ("millrace-pipeline", "p")])).unwrap_err();
        assert_eq!(broken.class(), Class::Reject);
    }

    #[test]
    fn places_and_ids_are_read_as_they_are_shown() {
        for text in ["decode", "step:a", "lookup:b", "sink:c"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for text in ["", "step:", "decode:x", "sinks:c"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
        assert_eq!("3:14".parse::<LetterId>().unwrap(), LetterId { partition: 3, offset: 14 });
        for text in ["", "3", ":", "3:", "-1:2", "1:-2", "a:b"] {
            assert!(text.parse::<LetterId>().is_err(), "{text}");
        }
    }
}
