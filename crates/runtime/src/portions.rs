//! How many messages a step is given at once. What it makes of them lies in memory until it is handed on, and only the
//! step knows how much that will be: so it is given what would have fitted, by what it made of the last ones.

/// The first portion of a step that has shown nothing yet.
const FIRST: usize = 64;

/// How much larger than the last portion the next one may be: what was made of few says little of many.
const GROWTH_MAX: usize = 8;

/// What a step may be given.
#[derive(Debug)]
pub(crate) struct Portions {
    messages_max: usize,
}

impl Default for Portions {
    fn default() -> Self {
        Portions { messages_max: FIRST }
    }
}

impl Portions {
    /// The most messages of the next portion, at least one.
    pub(crate) fn messages_max(&self) -> usize {
        self.messages_max
    }

    /// Learns that so many messages have become so many bytes, of which `bytes_max` should be there at once.
    pub(crate) fn learn(&mut self, messages: usize, bytes: usize, bytes_max: usize) {
        let each_bytes = bytes.div_ceil(messages.max(1)).max(1);
        let shown = self.messages_max.max(messages.saturating_mul(GROWTH_MAX));
        self.messages_max = (bytes_max / each_bytes).clamp(1, shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_makes_little_is_soon_given_all() {
        let mut portions = Portions::default();
        portions.learn(64, 64 * 100, 1 << 20);
        assert_eq!(portions.messages_max(), 512);
        portions.learn(512, 0, 1 << 20);
        assert_eq!(portions.messages_max(), 4_096);
    }

    #[test]
    fn a_step_that_makes_much_is_given_what_fits() {
        let mut portions = Portions::default();
        portions.learn(64, 64 * 100_000, 1_000_000);
        assert_eq!(portions.messages_max(), 10);
        portions.learn(10, 10 * 5_000_000, 1_000_000);
        assert_eq!(portions.messages_max(), 1);
        portions.learn(1, 100, 1_000_000);
        assert_eq!(portions.messages_max(), 8, "one small record says little of the next ones");
    }

    #[test]
    fn few_messages_do_not_show_what_many_become() {
        let mut portions = Portions::default();
        portions.learn(2, 10, 1 << 20);
        assert_eq!(portions.messages_max(), FIRST);
        portions.learn(0, 0, 0);
        assert_eq!(portions.messages_max(), 1);
    }
}
