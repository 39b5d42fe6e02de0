//! Which of two opposite operations a message asks for.

use std::collections::HashMap;

use crate::{
    error::Error,
    message::Message,
    settings::{NodeKind, Settings},
    template::Template,
};

/// Adding or taking away; each view has its own words for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// `add`, `put`.
    Add,
    /// `remove`, `delete`.
    Remove,
}

/// Where the operation is read from.
#[derive(Clone, Debug)]
pub struct OpRule {
    words: &'static [&'static str; 2],
    source: OpSource,
}

#[derive(Clone, Debug)]
enum OpSource {
    Template(Template),
    ByEventType(HashMap<String, Polarity>),
}

impl OpRule {
    /// The rule under `key`: a template, or a mapping from word to event types; the first word always when
    /// nothing is given. `words` are those of adding and of taking away.
    pub fn read(settings: &Settings, key: &str, words: &'static [&'static str; 2]) -> Option<Self> {
        let source = match settings.node(key).map(|node| &node.kind) {
            None => OpSource::Template(Template::parse(words[0]).ok()?),
            Some(NodeKind::Map(entries)) => {
                let mut by_type = HashMap::new();
                for (word, types) in entries {
                    let polarity = polarity(words, &word.text)?;
                    by_type
                        .extend(types.items().iter().filter_map(|t| Some((t.text()?.to_owned(), polarity))));
                }
                OpSource::ByEventType(by_type)
            }
            Some(_) => OpSource::Template(settings.template(key)?),
        };
        Some(OpRule { words, source })
    }

    /// The operation for a message.
    ///
    /// # Errors
    /// Reject when the message says none or an unknown one.
    pub fn of(&self, message: &Message) -> Result<Polarity, Error> {
        match &self.source {
            OpSource::Template(template) => {
                let word = template.render(message)?;
                polarity(self.words, &word).ok_or_else(|| {
                    let why = format!(
                        "gives an unknown operation, known are {} and {}",
                        self.words[0], self.words[1]
                    );
                    Error::reject(format!("template '{template}'"), why)
                })
            }
            OpSource::ByEventType(by_type) => {
                let envelope = &message.origin.envelope;
                let event_type = envelope.event_type.as_deref().unwrap_or_default();
                by_type
                    .get(event_type)
                    .copied()
                    .ok_or_else(|| Error::reject("op", format!("event type '{event_type}' has no operation")))
            }
        }
    }

    /// The template, if the operation is read from the message.
    pub fn template(&self) -> Option<&Template> {
        match &self.source {
            OpSource::Template(template) => Some(template),
            OpSource::ByEventType(_) => None,
        }
    }
}

fn polarity(words: &[&str; 2], word: &str) -> Option<Polarity> {
    match words.iter().position(|known| *known == word)? {
        0 => Some(Polarity::Add),
        _ => Some(Polarity::Remove),
    }
}
