//! An event as a document. The payload is copied as it was written: names, order and digits.

use std::collections::BTreeMap;
use std::io::Write;

use event::{Error, Event, Field, Params, each, write_string};

use crate::status::{Statuses, Step};

/// The parameters.
#[derive(Debug)]
pub struct Settings {
    id: Option<String>,
    delete: Option<Vec<String>>,
    version: String,
    statuses: Option<Statuses>,
}

impl Settings {
    /// Reads `id`, `delete`, `version` and `status`.
    pub fn new(params: BTreeMap<String, String>) -> Result<Self, Error> {
        let params = Params::new(params, &["id", "delete", "version", "status"])?;
        let delete = match params.get("delete") {
            Some(_) => Some(params.list("delete", "")?.into_iter().map(str::to_owned).collect()),
            None => None,
        };
        Ok(Self {
            id: params.text("id")?.map(str::to_owned),
            delete,
            version: params.text("version")?.unwrap_or("version").into(),
            statuses: Statuses::new(&params)?,
        })
    }

    /// The JSON of the document, or of its delete.
    pub fn document(&self, value: &[u8]) -> Result<Vec<u8>, Error> {
        let event = Event::parse(value)?;
        let event_type = event.event_type()?;
        if self.deletes(&event_type) {
            return self.delete_of(&event);
        }
        let payload = event.payload.required()?;
        let [id, version] = event.payload.pick("payload", self.names())?;
        let step = match &self.statuses {
            Some(statuses) => Some(
                statuses
                    .after(&event_type)
                    .ok_or_else(|| event.wrong_type("one of those in parameter `status`"))?,
            ),
            None => None,
        };
        let mut out = Vec::with_capacity(payload.len() + 96);
        self.head(&mut out, "put", &event, id, version)?;
        if let Some(step) = step {
            write(&mut out, format_args!(r#","rank":{}"#, step.rank));
        }
        out.extend_from_slice(br#","document":"#);
        match step {
            Some(step) => with_status(&mut out, payload, step)?,
            None => out.extend_from_slice(payload.as_bytes()),
        }
        out.push(b'}');
        Ok(out)
    }

    /// A delete needs no payload where the id is the envelope's.
    fn delete_of(&self, event: &Event<'_, '_>) -> Result<Vec<u8>, Error> {
        let payload =
            if self.id.is_none() { event.payload.raw().unwrap_or("{}") } else { event.payload.required()? };
        let [id, version] = event::pick(payload, "payload", self.names())?;
        let mut out = Vec::with_capacity(96);
        self.head(&mut out, "delete", event, id, version)?;
        out.push(b'}');
        Ok(out)
    }

    fn head(
        &self,
        out: &mut Vec<u8>,
        op: &str,
        event: &Event<'_, '_>,
        id: Field<'_, '_>,
        version: Field<'_, '_>,
    ) -> Result<(), Error> {
        let id = if self.id.is_some() { id } else { event.biz_id }.id()?;
        let version = match version.optional_integer()? {
            Some(version) => version,
            None => event.occurred_at_ms()?,
        };
        write(out, format_args!(r#"{{"op":"{op}","id":"#));
        write_string(out, &id);
        write(out, format_args!(r#","version":{version}"#));
        Ok(())
    }

    /// The names of the payload's fields that are read. Without `id` its place holds a name that is read anyway.
    fn names(&self) -> [&str; 2] {
        [self.id.as_deref().unwrap_or(&self.version), &self.version]
    }

    fn deletes(&self, event_type: &str) -> bool {
        match &self.delete {
            Some(types) => types.iter().any(|listed| listed == event_type),
            None => event_type.split('.').nth(2) == Some("deleted"),
        }
    }
}

/// The payload with its field `status` set, wherever it had one before.
fn with_status(out: &mut Vec<u8>, payload: &str, step: &Step) -> Result<(), Error> {
    out.push(b'{');
    each(payload, "payload", |name, raw| {
        if name != "status" {
            write_string(out, name);
            out.push(b':');
            out.extend_from_slice(raw.as_bytes());
            out.push(b',');
        }
    })?;
    out.extend_from_slice(br#""status":"#);
    write_string(out, &step.name);
    out.push(b'}');
    Ok(())
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("invariant: a Vec takes every byte");
}

#[cfg(test)]
mod tests;
