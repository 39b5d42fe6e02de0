//! How a letter looks: as a line of the table, as a JSON object, and read back from one.

use std::io::{self, Write};

use bytes::Bytes;
use jiff::Timestamp;
use millrace_core::{Header, Record};
use millrace_runtime::{DEAD_LETTER_FORMAT, Letter, LetterId, ModuleAbout, Outcome};
use serde_json::{Map, Value, json};

use crate::{args::Id, json_bytes};

/// How much of a reason a line of the table has room for.
const REASON_CHARS_MAX: usize = 100;

/// The head of the table.
pub fn head() -> String {
    columns(["id", "failed", "pipeline", "place", "state", "reason"])
}

/// A letter as a line of the table, or as JSON.
pub fn print(
    out: &mut impl Write,
    as_json: bool,
    topic: &str,
    letter: &Letter,
    outcome: Option<Outcome>,
) -> io::Result<()> {
    if as_json {
        writeln!(out, "{}", Value::from(summary(topic, letter, outcome)))
    } else {
        writeln!(out, "{}", row(topic, letter, outcome))
    }
}

fn row(topic: &str, letter: &Letter, outcome: Option<Outcome>) -> String {
    let mut reason: String = printable(&letter.reason).chars().take(REASON_CHARS_MAX).collect();
    if reason.len() < letter.reason.len() {
        reason.push('…');
    }
    let failed = time(letter.last_failed_ms);
    let place = letter.place.to_string();
    columns([&id(topic, letter), &failed, &pipeline(letter), &place, &state(outcome), &reason])
}

fn columns([id, failed, pipeline, place, state, reason]: [&str; 6]) -> String {
    format!("{id:<26} {failed:<20} {pipeline:<16} {place:<16} {state:<9} {reason}")
}

/// The letter's id with its topic.
pub fn id(topic: &str, letter: &Letter) -> String {
    format!("{topic}/{}", letter.id)
}

/// The pipeline, and the lane of it, as health and metrics name them.
fn pipeline(letter: &Letter) -> String {
    match &letter.lane {
        Some(lane) => format!("{}/{}", letter.pipeline, printable(lane)),
        None => letter.pipeline.clone(),
    }
}

/// What became of a letter.
pub fn state(outcome: Option<Outcome>) -> String {
    outcome.map_or_else(|| "open".to_owned(), |outcome| outcome.to_string())
}

/// A time in UTC, to the second.
pub fn time(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => ms.to_string(),
    }
}

/// Text that does nothing to a terminal, on one line.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// All that is known of a letter but its value and headers.
fn summary(topic: &str, letter: &Letter, outcome: Option<Outcome>) -> Map<String, Value> {
    let record = &letter.record;
    let more: Vec<Value> =
        letter.more.iter().map(|(place, reason)| json!({ "place": place, "reason": reason })).collect();
    let about = json!({
        "format": DEAD_LETTER_FORMAT,
        "id": id(topic, letter),
        "state": state(outcome),
        "pipeline": letter.pipeline,
        "lane": letter.lane,
        "place": letter.place.to_string(),
        "class": letter.class,
        "reason": letter.reason,
        "more": more,
        "module": letter.module.as_ref().map(|about| &*about.module),
        "module_sha256": letter.module.as_ref().map(|about| &*about.digest),
        "attempts": letter.attempts,
        "replays": letter.replays,
        "first_failed_ms": letter.first_failed_ms,
        "last_failed_ms": letter.last_failed_ms,
        "origin": {
            "topic": &*record.topic, "partition": record.partition, "offset": record.offset,
            "timestamp_ms": record.timestamp_ms,
        },
        "key": json_bytes::to_json(record.key.as_ref()),
        "value_truncated": letter.truncated_bytes,
    });
    match about {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// A letter whole.
pub fn whole(topic: &str, letter: &Letter, outcome: Option<Outcome>) -> Value {
    let mut fields = summary(topic, letter, outcome);
    let header = |header: &Header| json!({ "name": &*header.name, "value": json_bytes::to_json(header.value.as_ref()) });
    let headers: Vec<Value> = letter.record.headers.iter().map(header).collect();
    fields.insert("headers".into(), headers.into());
    fields.insert("value".into(), json_bytes::to_json(letter.record.value.as_ref()));
    fields.into()
}

/// A letter read back from a line of an export, and its topic.
///
/// # Errors
/// What is wrong with the line.
pub fn read(line: &[u8]) -> Result<(String, Letter), String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| format!("no JSON: {error}"))?;
    let fields = Fields(&value);
    let format = fields.text("format")?;
    if format != DEAD_LETTER_FORMAT {
        return Err(format!("it has the format {format}, this program knows {DEAD_LETTER_FORMAT}"));
    }
    let id: Id = fields.text("id")?.parse()?;
    let topic = id.topic.ok_or("its id names no topic")?;
    let origin = Fields(&value["origin"]);
    let headers = value["headers"].as_array().ok_or("'headers' is not a list")?;
    let record = Record {
        topic: origin.text("topic")?.into(),
        partition: origin.number("partition")?,
        offset: origin.number("offset")?,
        timestamp_ms: origin.number("timestamp_ms")?,
        key: fields.bytes("key")?,
        value: fields.bytes("value")?,
        headers: headers.iter().map(|header| Fields(header).header()).collect::<Result<_, _>>()?,
    };
    let module = value["module"].as_str().map(|module| ModuleAbout {
        module: module.into(),
        digest: value["module_sha256"].as_str().unwrap_or_default().into(),
    });
    let more = value["more"].as_array().into_iter().flatten();
    let letter = Letter {
        id: LetterId { partition: id.at.partition, offset: id.at.offset },
        pipeline: fields.text("pipeline")?,
        lane: value["lane"].as_str().map(str::to_owned),
        place: fields.text("place")?.parse()?,
        class: fields.text("class")?,
        reason: fields.text("reason")?,
        more: more
            .map(|m| Ok((Fields(m).text("place")?, Fields(m).text("reason")?)))
            .collect::<Result<_, String>>()?,
        module,
        attempts: fields.number("attempts")?,
        replays: fields.number("replays")?,
        first_failed_ms: fields.number("first_failed_ms")?,
        last_failed_ms: fields.number("last_failed_ms")?,
        record,
        truncated_bytes: value["value_truncated"].as_u64(),
    };
    Ok((topic, letter))
}

struct Fields<'v>(&'v Value);

impl Fields<'_> {
    fn text(&self, name: &str) -> Result<String, String> {
        self.0[name].as_str().map(str::to_owned).ok_or_else(|| format!("'{name}' is not a text"))
    }

    fn number<T: TryFrom<i64>>(&self, name: &str) -> Result<T, String> {
        let number = self.0[name].as_i64().and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("'{name}' is not a number of its range"))
    }

    fn bytes(&self, name: &str) -> Result<Option<Bytes>, String> {
        let value = self.0.get(name).ok_or_else(|| format!("'{name}' is missing"))?;
        json_bytes::of_json(value).map_err(|why| format!("'{name}': {why}"))
    }

    fn header(&self) -> Result<Header, String> {
        Ok(Header { name: self.text("name")?.into(), value: self.bytes("value")? })
    }
}
