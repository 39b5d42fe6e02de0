//! Dotted paths into an event, as parameters have them: `payload.user.id`. A name with a dot in it has no path.

use crate::{Error, Field, envelope::utf8, pick};

/// Names from the event down to a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    segments: Vec<Segment>,
}

/// One name of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The path of the object that has the field, empty for the event.
    pub object: String,
    /// The name of the field.
    pub name: String,
}

impl Path {
    /// Reads the path that parameter `param` holds.
    pub fn parse(param: &str, text: &str) -> Result<Self, Error> {
        let mut segments = Vec::new();
        let mut object = String::new();
        for name in text.split('.') {
            if name.is_empty() {
                return Err(Error::param(param, "has a path with an empty name"));
            }
            segments.push(Segment { object: object.clone(), name: name.into() });
            if !object.is_empty() {
                object.push('.');
            }
            object.push_str(name);
        }
        Ok(Self { segments })
    }

    /// The names, from the event down. There is at least one.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The field at this path of the event `value`. Everything above it must be an object.
    pub fn find<'a, 'n>(&'n self, value: &'a [u8]) -> Result<Field<'a, 'n>, Error> {
        let (last, above) = self.segments.split_last().expect("invariant: a path has a name");
        let mut json = utf8(value)?;
        for segment in above {
            let [field] = pick(json, &segment.object, [&segment.name])?;
            json = field.required()?;
        }
        let [field] = pick(json, &last.object, [&last.name])?;
        Ok(field)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_path_leads_to_its_field() {
        let path = Path::parse("by", "payload.shipTo.state").unwrap();
        let find = |json: &'static str| {
            path.find(json.as_bytes()).and_then(|f| f.required()).map_err(|e| e.to_string())
        };
        assert_eq!(find(r#"{"payload":{"shipTo":{"state":"SP"}}}"#), Ok("\"SP\""));
        assert_eq!(find(r#"{"payload":{"shipTo":{}}}"#), Err("payload.shipTo.state is missing".into()));
        assert_eq!(find(r#"{"payload":{}}"#), Err("payload.shipTo is missing".into()));
        assert_eq!(find(r#"{"payload":{"shipTo":[]}}"#), Err("payload.shipTo must be a JSON object".into()));
        assert_eq!(find("[]"), Err("event must be a JSON object".into()));
    }

    #[test]
    fn empty_names_are_refused() {
        for text in ["", ".", "a.", ".a", "a..b"] {
            let error = Path::parse("by", text).unwrap_err();
            assert_eq!(error.to_string(), "parameter `by` has a path with an empty name", "{text}");
        }
    }
}
