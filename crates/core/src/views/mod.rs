//! Views: what sinks keep, apart from where they keep it. Each view has its settings and says which effect a
//! message asks for; a store's crate turns the effect into its own calls. So Redis, Elasticsearch and the
//! embedded store mean the same by `timeline`.

mod counter;
mod document;
mod index;
mod members;
mod op;
mod timeline;

pub use counter::{COUNTER, Counter, CounterEffect};
pub use document::{Change, DOCUMENT, Document, DocumentEffect, FieldVersions};
pub use index::{FieldType, INDEX, INDEX_FIELD_TYPES, Index, IndexEffect, IndexFields, IndexMode};
pub use members::{MEMBERS, Members, MembersEffect};
pub use op::{OpRule, Polarity};
pub use timeline::{TIMELINE, Timeline, TimelineEffect, TimelineOp};

use crate::{
    error::Error,
    settings::{Problems, Settings},
    template::Template,
};

/// How long ledgers and tombstones are kept when nothing is said: 30 days.
pub const LEDGER_DEFAULT: &str = "30d";

/// The largest integer a script's double holds exactly: versions and ranks stay below it.
pub(crate) const VERSION_MAX: i64 = 1 << 53;

fn required_template(settings: &Settings, key: &str, problems: &mut Problems) -> Option<Template> {
    let template = settings.template(key);
    if template.is_none() && problems.is_empty() {
        problems.add(settings.at(), settings.path(), format!("'{key}' is missing"));
    }
    template
}

fn version_of(template: &Template, message: &crate::Message) -> Result<i64, Error> {
    let version = template.render_integer(message)?;
    if (0..=VERSION_MAX).contains(&version) {
        Ok(version)
    } else {
        Err(Error::reject(
            format!("template '{template}'"),
            format!("gives {version}, not a version from 0 to 2^53"),
        ))
    }
}

#[cfg(test)]
mod tests;
