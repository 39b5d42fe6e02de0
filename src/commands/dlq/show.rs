//! `millrace dlq show`: single letters with all that is known of them.

use std::{
    fmt::Write as _,
    io::{Write, stdout},
};

use bytes::Bytes;
use millrace_runtime::{Letter, Outcome, Resolution};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    form,
    letters::{self, Letters},
    select::{self, Filter},
};
use crate::{
    args::{DlqShowArgs, SelectArgs},
    assemble::Systems,
    plan,
    report::{Failure, counted},
};

pub async fn run(args: &DlqShowArgs, shutdown: &CancellationToken) -> Result<(), Failure> {
    let plan = plan::load(&args.at)?;
    let select = SelectArgs { ids: args.ids.clone(), ..SelectArgs::default() };
    let mut systems = Systems::new()?;
    let mut first = true;
    for chosen in select::topics(&plan, &select)? {
        let Some(log) = letters::open(&mut systems, &plan, &chosen, shutdown).await? else { continue };
        let filter = Filter::default();
        let mut letters = Letters::of(&log, &chosen, &filter, true, shutdown).await?;
        let mut found = Vec::new();
        while let Some(letter) = letters.next().await? {
            found.push(letter);
        }
        for id in chosen.ids.iter().flatten() {
            let Some((letter, outcome)) = found.iter().find(|(letter, _)| letter.id == *id) else {
                let why = format!("{}/{id} is no dead letter: it says what became of one", chosen.topic);
                return Err(Failure::input(why));
            };
            let resolution = letters.resolutions.iter().rev().find(|resolution| resolution.id == *id);
            let mut out = stdout().lock();
            if args.at.json {
                let mut whole = form::whole(log.topic(), letter, *outcome);
                whole["resolved"] = resolution.map_or(
                    Value::Null,
                    |resolution| json!({ "by": resolution.by, "at_ms": resolution.at_ms }),
                );
                writeln!(out, "{whole}")?;
            } else {
                let gap = if first { "" } else { "\n" };
                write!(out, "{gap}{}", text(log.topic(), letter, *outcome, resolution))?;
            }
            first = false;
        }
    }
    Ok(())
}

/// A letter for people.
fn text(topic: &str, letter: &Letter, outcome: Option<Outcome>, resolution: Option<&Resolution>) -> String {
    let mut lines: Vec<(&str, String)> = vec![("dead letter", form::id(topic, letter))];
    let mut state = form::state(outcome);
    if let Some(resolution) = resolution {
        let by = resolution.by.as_ref().map_or_else(String::new, |by| format!(" by {}", form::printable(by)));
        state.push_str(&format!("{by} at {}", form::time(resolution.at_ms)));
    }
    lines.push(("state", state));
    lines.push(("pipeline", letter.pipeline.clone()));
    if let Some(lane) = &letter.lane {
        lines.push(("lane", form::printable(lane)));
    }
    lines.push(("place", letter.place.to_string()));
    lines.push(("reason", form::printable(&letter.reason)));
    for (place, reason) in &letter.more {
        lines.push(("also", format!("{}: {}", form::printable(place), form::printable(reason))));
    }
    if let Some(about) = &letter.module {
        lines.push(("module", format!("{}, sha256 {}", about.module, about.digest)));
    }
    let replays = match letter.replays {
        0 => String::new(),
        replays => format!(", {} of them", counted(replays.into(), "replay")),
    };
    lines.push(("tried", format!("{}{replays}", counted(letter.attempts.into(), "time"))));
    let (first, last) = (form::time(letter.first_failed_ms), form::time(letter.last_failed_ms));
    lines.push(("failed", if first == last { first } else { format!("first {first}, last {last}") }));
    let record = &letter.record;
    let appended = match record.timestamp_ms {
        ms if ms >= 0 => format!(", appended {}", form::time(ms)),
        _ => String::new(),
    };
    lines.push((
        "record",
        format!("{}/{} offset {}{appended}", record.topic, record.partition, record.offset),
    ));
    lines.push(("key", record.key.as_ref().map_or_else(|| "none".to_owned(), one_line)));
    for header in record.headers.iter() {
        let value = header.value.as_ref().map_or_else(String::new, one_line);
        lines.push(("header", format!("{}: {value}", form::printable(&header.name))));
    }
    let mut text = String::new();
    for (name, value) in lines {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<12} {value}");
    }
    text.push_str(&value(letter));
    text
}

fn value(letter: &Letter) -> String {
    if let Some(bytes) = letter.truncated_bytes {
        return format!(
            "value        left out, it has {bytes} bytes; 'millrace dlq export' reads it from its topic\n"
        );
    }
    let Some(value) = &letter.record.value else { return "value        none\n".to_owned() };
    let bytes = counted(value.len() as u64, "byte");
    let shown = match serde_json::from_slice::<Value>(value).map(|json| serde_json::to_string_pretty(&json)) {
        Ok(Ok(pretty)) => pretty,
        _ => match std::str::from_utf8(value) {
            Ok(text) => text.lines().map(form::printable).collect::<Vec<_>>().join("\n"),
            Err(_) => return format!("value        {bytes}, not text; --json prints them as base64\n"),
        },
    };
    format!("value        {bytes}\n{shown}\n")
}

fn one_line(bytes: &Bytes) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => form::printable(text),
        Err(_) => format!("{}, not text", counted(bytes.len() as u64, "byte")),
    }
}
