//! A small cache with a life span, owned by one worker: no locks, bounded in entries and bytes.

use std::{collections::HashMap, sync::Arc};

use tokio::time::{Duration, Instant};

/// What an answer takes besides its text, about.
const MEMBER_BYTES: usize = size_of::<String>();

/// Whole sets and documents by key. Sets that need more than one page are not kept.
pub(crate) struct Cache {
    ttl: Duration,
    entries_max: usize,
    bytes_max: usize,
    bytes: usize,
    entries: HashMap<String, Entry>,
}

struct Entry {
    until: Instant,
    bytes: usize,
    members: Arc<[String]>,
}

impl Cache {
    pub(crate) fn new(ttl: Duration, entries_max: usize, bytes_max: usize) -> Self {
        Cache { ttl, entries_max, bytes_max, bytes: 0, entries: HashMap::new() }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<[String]>> {
        self.entries.get(key).filter(|entry| entry.until > Instant::now()).map(|entry| entry.members.clone())
    }

    pub(crate) fn put(&mut self, key: String, members: Arc<[String]>) {
        let bytes = key.len() + members.iter().map(|member| member.len() + MEMBER_BYTES).sum::<usize>();
        if self.ttl.is_zero() || bytes > self.bytes_max / 2 {
            return;
        }
        if self.entries.len() >= self.entries_max || self.bytes + bytes > self.bytes_max {
            self.shrink();
        }
        self.bytes += bytes;
        let entry = Entry { until: Instant::now() + self.ttl, bytes, members };
        if let Some(old) = self.entries.insert(key, entry) {
            self.bytes -= old.bytes;
        }
    }

    /// Drops what has run out; drops everything where that is not enough.
    fn shrink(&mut self) {
        let now = Instant::now();
        self.entries.retain(|_, entry| entry.until > now);
        self.bytes = self.entries.values().map(|entry| entry.bytes).sum();
        if self.entries.len() * 2 > self.entries_max || self.bytes * 2 > self.bytes_max {
            self.entries.clear();
            self.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(n: usize) -> Arc<[String]> {
        (0..n).map(|i| i.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn forgets_by_time_and_by_size() {
        let mut cache = Cache::new(Duration::from_secs(5), 3, 5_000);
        cache.put("a".into(), set(2));
        assert_eq!(cache.get("a").map(|m| m.len()), Some(2));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(cache.get("a"), None);
        for key in ["b", "c", "d", "e", "f"] {
            cache.put(key.into(), set(40));
            assert!(cache.bytes <= 5_000 && cache.entries.len() <= 3);
            assert_eq!(cache.bytes, cache.entries.values().map(|entry| entry.bytes).sum::<usize>());
        }
        cache.put("f".into(), set(1));
        assert_eq!(cache.get("f").map(|m| m.len()), Some(1));
        assert_eq!(cache.bytes, cache.entries.values().map(|entry| entry.bytes).sum::<usize>());
        cache.put("many".into(), set(200));
        cache.put("large".into(), Arc::new(["x".repeat(3_000)]));
        assert_eq!((cache.get("many"), cache.get("large")), (None, None));
    }
}
