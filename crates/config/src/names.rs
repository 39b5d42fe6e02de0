//! Names: what they may look like, and what was probably meant by one that is unknown.

use millrace_core::settings::{Key, Location, Node, Problems, did_you_mean};

/// Names of brokers, stores, modules and pipelines.
const NAME_BYTES_MAX: usize = 100;
/// Ids of steps and sinks are part of ledger entries and headers.
const ID_BYTES_MAX: usize = 64;
/// As Kafka has it.
const TOPIC_BYTES_MAX: usize = 249;
/// Elasticsearch allows 255 bytes; a store appends to the name.
const INDEX_BYTES_MAX: usize = 200;
/// Stores keep their own record of versions under this name.
const OWN_FIELD: &str = "millrace";

/// A name where it stands.
pub(crate) struct Name<'a> {
    text: &'a str,
    /// As an error may show it.
    shown: String,
    at: Location,
}

impl<'a> Name<'a> {
    /// A key: it holds no variables.
    pub(crate) fn of_key(key: &'a Key) -> Self {
        Name { text: &key.text, shown: clip(&key.text), at: key.at }
    }

    /// A value, if it is text.
    pub(crate) fn of_value(node: &'a Node) -> Option<Self> {
        Some(Name { text: node.text()?, shown: node.shown()?, at: node.at })
    }

    fn refuse(&self, what: &str, advice: &str, path: &str, problems: &mut Problems) {
        problems.suggest(self.at, path, format!("the {what} '{}' is not allowed", self.shown), advice);
    }

    fn check_word(&self, bytes_max: usize, path: &str, problems: &mut Problems) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let name = self.text;
        if name.is_empty() || name.len() > bytes_max || !name.chars().all(allowed) {
            let advice = format!("1 to {bytes_max} of: letters, digits, '.', '_' and '-'");
            self.refuse("name", &advice, path, problems);
        }
    }

    /// Checks a name of a broker, store, module or pipeline.
    pub(crate) fn check(&self, path: &str, problems: &mut Problems) {
        self.check_word(NAME_BYTES_MAX, path, problems);
    }

    /// Checks an id of a step or sink.
    pub(crate) fn check_id(&self, path: &str, problems: &mut Problems) {
        self.check_word(ID_BYTES_MAX, path, problems);
    }

    /// Checks the name of a topic by Kafka's rules.
    pub(crate) fn check_topic(&self, path: &str, problems: &mut Problems) {
        self.check_word(TOPIC_BYTES_MAX, path, problems);
        if matches!(self.text, "." | "..") {
            self.refuse("name", "'.' and '..' are no topics", path, problems);
        }
    }

    /// Checks the name of an index by Elasticsearch's rules.
    pub(crate) fn check_index(&self, path: &str, problems: &mut Problems) {
        let name = self.text;
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if !starts_well || !name.chars().all(allowed) || name.len() > INDEX_BYTES_MAX {
            let advice = format!(
                "1 to {INDEX_BYTES_MAX} of: lowercase letters, digits, '-', '_' and '.', a letter or digit first"
            );
            self.refuse("index name", &advice, path, problems);
        }
    }

    /// Checks the name of a field of an index.
    pub(crate) fn check_index_field(&self, path: &str, problems: &mut Problems) {
        let name = self.text;
        let own = name.strip_prefix(OWN_FIELD).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if own || name.starts_with('_') || name.split('.').any(str::is_empty) {
            let advice = "'_…' and 'millrace' are taken; '.' stands between the parts of a nested field";
            self.refuse("field name", advice, path, problems);
        }
    }

    /// Checks the name of the field that a lookup adds.
    pub(crate) fn check_field(&self, path: &str, problems: &mut Problems) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if self.text.len() > NAME_BYTES_MAX || !self.text.chars().all(allowed) {
            let advice = "letters, digits and '_': it is a top-level field, so no '.'";
            self.refuse("field name", advice, path, problems);
        }
    }
}

/// Reports a value that names something unknown.
pub(crate) fn unknown<'a>(
    node: &Node,
    what: &str,
    path: &str,
    known: impl Iterator<Item = &'a str> + Clone,
    problems: &mut Problems,
) {
    let Some(shown) = node.shown() else { return };
    let name = if node.is_expanded() { "" } else { node.text().unwrap_or_default() };
    problems.suggest(node.at, path, format!("unknown {what} '{shown}'"), advice(name, what, known));
}

/// What to do about an unknown name.
pub(crate) fn advice<'a>(name: &str, what: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    if let Some(advice) = did_you_mean(name, known.clone()) {
        return advice;
    }
    let listed: Vec<&str> = known.clone().take(12).collect();
    match (listed.len(), known.count()) {
        (0, _) => format!("there is no {what}"),
        (shown, all) if all > shown => format!("known: {}, …", listed.join(", ")),
        _ => format!("known: {}", listed.join(", ")),
    }
}

/// At most 80 characters, for messages.
fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(name: &str, check: impl Fn(&Name<'_>, &mut Problems)) -> bool {
        let key = Key { at: Location { line: 1, column: 1 }, text: name.into() };
        let mut problems = Problems::default();
        check(&Name::of_key(&key), &mut problems);
        problems.is_empty()
    }

    #[test]
    fn topics_follow_kafkas_rules() {
        for name in ["content-events", "order.order.created.v1", "A_1", &"x".repeat(249)] {
            assert!(ok(name, |name, p| name.check_topic("", p)), "{name}");
        }
        for name in ["", ".", "..", "a b", "ü", "a/b", &"x".repeat(250)] {
            assert!(!ok(name, |name, p| name.check_topic("", p)), "{name}");
        }
    }

    #[test]
    fn indexes_follow_elasticsearchs_rules() {
        for name in ["posts", "7-posts_v1.a"] {
            assert!(ok(name, |name, p| name.check_index("", p)), "{name}");
        }
        let wrong = ["", "Posts", "_a", "-a", "+a", ".", "..", ".a", "a*", "a,b", "a#b", "a:b", "a b"];
        for name in wrong.into_iter().chain([&*"x".repeat(201)]) {
            assert!(!ok(name, |name, p| name.check_index("", p)), "{name}");
        }
    }

    #[test]
    fn stores_keep_some_field_names_for_themselves() {
        for name in ["status", "shipTo.city", "millrace_x"] {
            assert!(ok(name, |name, p| name.check_index_field("", p)), "{name}");
        }
        for name in ["", "_id", "millrace", "millrace.deleted", "a..b", ".a", "a."] {
            assert!(!ok(name, |name, p| name.check_index_field("", p)), "{name}");
        }
    }

    #[test]
    fn ids_are_shorter_than_names() {
        assert!(ok(&"x".repeat(64), |name, p| name.check_id("", p)));
        assert!(!ok(&"x".repeat(65), |name, p| name.check_id("", p)));
        assert!(ok(&"x".repeat(100), |name, p| name.check("", p)));
        assert!(!ok(&"x".repeat(101), |name, p| name.check("", p)));
    }
}
