//! The cap on dead letters: when something is wrong with everything, a topic must not be emptied into its dead
//! letters before somebody has looked.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::{Duration, Instant};

use crate::dead_letter::DeadLetter;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// The dead letters of the last minute, counted by the second.
#[derive(Default)]
pub(crate) struct LetterCap {
    seconds: VecDeque<(Instant, usize)>,
}

impl LetterCap {
    /// Counts these, if they and those of the last minute are not more than `max`.
    pub(crate) fn take(&mut self, letters: usize, max: usize) -> bool {
        let now = Instant::now();
        while self.seconds.front().is_some_and(|(at, _)| now - *at >= MINUTE) {
            self.seconds.pop_front();
        }
        let before: usize = self.seconds.iter().map(|(_, count)| count).sum();
        if before + letters > max {
            return false;
        }
        match self.seconds.back_mut() {
            Some((at, count)) if now - *at < SECOND => *count += letters,
            _ => self.seconds.push_back((now, letters)),
        }
        true
    }

    /// Forgets what was, and counts these: somebody has looked.
    pub(crate) fn begin_again(&mut self, letters: usize) {
        self.seconds = VecDeque::from([(Instant::now(), letters)]);
    }
}

/// Where and why most of these were rejected. What a module says may quote the record and is left out.
pub(crate) fn commonest(letters: &[DeadLetter]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for letter in letters {
        let reason = if letter.module.is_none() { format!(": {}", letter.reason) } else { String::new() };
        *counts.entry(format!("{}{reason}", letter.place)).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or_else(String::new, |(what, count)| format!("{count} of {} by {what}", letters.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_minute_slides() {
        let mut cap = LetterCap::default();
        assert!(cap.take(6, 10));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(cap.take(4, 10));
        assert!(!cap.take(1, 10));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(cap.take(6, 10), "the first ones are a minute old");
        assert!(!cap.take(1, 10));
        cap.begin_again(100);
        assert!(!cap.take(1, 10), "a batch that is more than the cap alone is counted as it is");
        tokio::time::advance(MINUTE).await;
        assert!(cap.take(10, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn it_stays_small() {
        let mut cap = LetterCap::default();
        for _ in 0..10_000 {
            assert!(cap.take(1, 1_000_000));
            tokio::time::advance(Duration::from_millis(50)).await;
        }
        assert!(cap.seconds.len() <= 61, "{}", cap.seconds.len());
    }
}
