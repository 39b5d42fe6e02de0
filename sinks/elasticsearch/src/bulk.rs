//! Bulk requests: bounded in bytes and items, cut smaller when the server asks for it, and an answer for each
//! item.

use std::ops::Range;

use bytes::Bytes;
use millrace_core::{Class, Error};
use serde::Deserialize;

use crate::{
    client::{Client, Reply},
    failure::{Cause, Shared, Trouble},
};

/// One request holds at most this many items.
pub(crate) const ITEMS_MAX: usize = 1_000;

/// One item: the line that says what to do, and the document. Neither holds a line end.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) action: String,
    pub(crate) source: Vec<u8>,
}

/// What became of an item.
#[derive(Debug)]
pub(crate) enum Written {
    /// It is durable.
    Yes,
    /// The index holds another version than the item asks for.
    Conflict,
    /// By the class of the error.
    Failed(Error),
}

/// Writes items into the index behind one alias.
pub(crate) struct Bulk<'a> {
    pub(crate) client: &'a Client,
    /// Who fails, in errors about items.
    pub(crate) who: &'a str,
    pub(crate) alias: &'a str,
    pub(crate) bytes_max: usize,
}

#[derive(Deserialize)]
struct BulkReply {
    items: Vec<ItemReply>,
}

#[derive(Deserialize)]
struct ItemReply {
    #[serde(alias = "create")]
    index: ItemOutcome,
}

#[derive(Deserialize)]
struct ItemOutcome {
    status: u16,
    error: Option<Cause>,
}

impl Item {
    fn size_bytes(&self) -> usize {
        self.action.len() + self.source.len() + 2
    }
}

impl Bulk<'_> {
    /// Writes all items and answers for each, in their order. After a request that failed as a whole the rest is
    /// not tried, and fails with the same class.
    pub(crate) async fn write(&self, items: &[Item]) -> Vec<Written> {
        let mut written: Vec<Option<Written>> = items.iter().map(|_| None).collect();
        let mut waiting = cuts(items, self.bytes_max);
        while let Some(range) = waiting.pop() {
            match self.request(&items[range.clone()]).await {
                Ok(answers) => {
                    for (place, answer) in range.zip(answers) {
                        written[place] = Some(answer);
                    }
                }
                Err(Trouble::Failed(error)) => return Self::stopped(written, &range, error),
                Err(trouble) if range.len() == 1 => {
                    let error = trouble.into_error(self.who, Class::Reject);
                    written[range.start] = Some(Written::Failed(error));
                }
                Err(Trouble::TooLarge | Trouble::Refused(_)) => {
                    let middle = range.start + range.len() / 2;
                    waiting.push(middle..range.end);
                    waiting.push(range.start..middle);
                }
            }
        }
        let unanswered = || Written::Failed(Error::retry(self.who, "was not answered"));
        written.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
    }

    /// Keeps what is known; the request at fault fails with its error, what comes after it was not tried.
    fn stopped(written: Vec<Option<Written>>, at: &Range<usize>, error: Error) -> Vec<Written> {
        let mut error = Shared::of(error);
        let answers = written.into_iter().enumerate().map(|(place, answer)| {
            answer.unwrap_or_else(|| {
                Written::Failed(if at.contains(&place) { error.next() } else { error.not_tried() })
            })
        });
        answers.collect()
    }

    async fn request(&self, items: &[Item]) -> Result<Vec<Written>, Trouble> {
        let mut lines = Vec::with_capacity(items.iter().map(Item::size_bytes).sum());
        for item in items {
            lines.extend_from_slice(item.action.as_bytes());
            lines.push(b'\n');
            lines.extend_from_slice(&item.source);
            lines.push(b'\n');
        }
        // require_alias: when somebody deletes the index, none with a guessed mapping may take its place.
        let path = format!(
            "{}/_bulk?require_alias=true&filter_path=items.*.status,items.*.error.type,items.*.error.reason",
            self.alias
        );
        let reply = self.client.post_lines(&path, Bytes::from(lines)).await?;
        self.answers(items.len(), &reply)
    }

    fn answers(&self, asked: usize, reply: &Reply) -> Result<Vec<Written>, Trouble> {
        let BulkReply { items } = reply.json(self.client.who())?;
        if items.len() != asked {
            let why = format!("answers for {} of {asked} items", items.len());
            return Err(Trouble::Failed(Error::retry(self.client.who(), why)));
        }
        let answers = items.into_iter().map(|item| {
            let ItemOutcome { status, error } = item.index;
            match status {
                200..300 => Written::Yes,
                409 => Written::Conflict,
                _ => Written::Failed(error.unwrap_or_default().item_error(self.who, status)),
            }
        });
        Ok(answers.collect())
    }
}

/// Cuts items into requests, the first one last: the caller takes them from the end.
fn cuts(items: &[Item], bytes_max: usize) -> Vec<Range<usize>> {
    let mut cuts = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (place, item) in items.iter().enumerate() {
        let full = place - start == ITEMS_MAX || bytes + item.size_bytes() > bytes_max;
        if full && place > start {
            cuts.push(start..place);
            (start, bytes) = (place, 0);
        }
        bytes += item.size_bytes();
    }
    if start < items.len() {
        cuts.push(start..items.len());
    }
    cuts.reverse();
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(sizes: &[usize]) -> Vec<Item> {
        sizes.iter().map(|bytes| Item { action: String::new(), source: vec![b' '; bytes - 2] }).collect()
    }

    #[test]
    fn requests_are_bounded_in_bytes_and_items() {
        assert_eq!(cuts(&items(&[40, 40, 40, 200, 10]), 100), [4..5, 3..4, 2..3, 0..2]);
        assert_eq!(cuts(&items(&[2; 2_001]), 1 << 20), [2_000..2_001, 1_000..2_000, 0..1_000]);
        assert_eq!(cuts(&[], 100), []);
    }
}
