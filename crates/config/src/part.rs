//! Reading a mapping against its table: what is not given, or was given wrongly and reported, reads as the
//! table's default.

use millrace_core::settings::{Location, Node, Object, Problems, Settings, parse_duration, parse_size};
use tokio::time::Duration;

/// A mapping of the file and the table it was checked against.
pub(crate) struct Part {
    pub(crate) settings: Settings,
    object: &'static Object,
}

impl Part {
    pub(crate) fn new(node: &Node, path: impl Into<String>, object: &'static Object) -> Self {
        Part { settings: Settings::new(node.clone(), path), object }
    }

    /// A nested mapping; its defaults where it is not given.
    pub(crate) fn part(&self, key: &str, object: &'static Object) -> Part {
        let absent = || {
            Settings::new(
                Node { at: self.at(), kind: millrace_core::settings::NodeKind::Null },
                self.path_of(key),
            )
        };
        Part { settings: self.settings.object(key).unwrap_or_else(absent), object }
    }

    pub(crate) fn at(&self) -> Location {
        self.settings.at()
    }

    pub(crate) fn at_key(&self, key: &str) -> Location {
        self.settings.at_key(key)
    }

    pub(crate) fn path_of(&self, key: &str) -> String {
        self.settings.path_of(key)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.settings.node(key).is_some()
    }

    pub(crate) fn duration(&self, key: &str) -> Duration {
        let default = || parse_duration(self.default(key)?);
        self.settings.duration(key).or_else(default).unwrap_or_default()
    }

    pub(crate) fn size(&self, key: &str) -> u64 {
        let default = || parse_size(self.default(key)?);
        self.settings.size(key).or_else(default).unwrap_or_default()
    }

    pub(crate) fn count(&self, key: &str) -> u32 {
        let default = || self.default(key)?.parse().ok();
        self.settings.count(key).or_else(default).unwrap_or_default()
    }

    /// A number that may be larger than a count.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.settings.text(key)?.parse().ok()
    }

    fn default(&self, key: &str) -> Option<&'static str> {
        self.object.fields.iter().find(|field| field.key == key)?.default
    }

    /// A time span that must lie between two others, both included.
    pub(crate) fn duration_within(
        &self,
        key: &str,
        (min, max): (&str, &str),
        problems: &mut Problems,
    ) -> Duration {
        let value = self.duration(key);
        let bound = |text| parse_duration(text).expect("invariant: bounds are time spans");
        if !(bound(min)..=bound(max)).contains(&value) {
            self.out_of_bounds(key, min, max, problems);
        }
        value
    }

    /// A size that must lie between two others, both included.
    pub(crate) fn size_within(&self, key: &str, (min, max): (&str, &str), problems: &mut Problems) -> u64 {
        let value = self.size(key);
        let bound = |text| parse_size(text).expect("invariant: bounds are sizes");
        if !(bound(min)..=bound(max)).contains(&value) {
            self.out_of_bounds(key, min, max, problems);
        }
        value
    }

    fn out_of_bounds(&self, key: &str, min: &str, max: &str, problems: &mut Problems) {
        let shown = self.settings.shown(key).unwrap_or_default();
        let message = format!("expected from {min} to {max}, found '{shown}'");
        problems.add(self.at_key(key), &self.path_of(key), message);
    }
}
