//! Which versions of modules the records of each partition were for, as it stands on the board of their broker.

use std::sync::Arc;

use async_trait::async_trait;
use millrace_control::{BegunEntry, Board, VersionEntry, version_key};
use millrace_core::Result;
use millrace_runtime::{Begun, History, StepPlace, VersionLog};
use serde_json::json;

use super::{Station, open};

/// The board, when a lane is about to begin. Where it may not be used, nothing is remembered, which was said then.
pub(super) struct BoardLog(pub(super) Arc<Station>);

impl BoardLog {
    async fn board(&self) -> Result<Option<&Arc<Board>>> {
        Ok(self.0.board.get_or_try_init(|| open(&self.0)).await?.as_ref())
    }
}

#[async_trait]
impl VersionLog for BoardLog {
    async fn history(&self, place: &StepPlace) -> Result<History> {
        let Some(board) = self.board().await? else { return Ok(History::default()) };
        board.synced(&*self.0.broker).await?;
        let Some(entry) = board.get(&key(place)) else { return Ok(History::default()) };
        let VersionEntry { begun, reached } = entry.read()?;
        let begun =
            begun.into_iter().map(|begun| Begun { offset: begun.offset, digest: begun.digest.into() });
        Ok(History { begun: begun.collect(), reached })
    }

    async fn remember(&self, place: &StepPlace, history: &History) -> Result<()> {
        let Some(board) = self.board().await? else { return Ok(()) };
        let begun = history.begun.iter();
        let begun = begun.map(|begun| BegunEntry { offset: begun.offset, digest: begun.digest.to_string() });
        let entry = VersionEntry { begun: begun.collect(), reached: history.reached };
        board.put(&[(key(place), Some(json!(entry)))]).await
    }
}

fn key(StepPlace { lane, step, partition }: &StepPlace) -> String {
    version_key(lane, step, *partition)
}
