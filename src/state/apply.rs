//! Puts a file in force, in an order that may be cut off anywhere and begun again: what a pipeline needs first, then
//! the entry that says what is in force, then what is not needed any more.

use std::sync::Arc;

use millrace_control::{Applied, AppliedEntry, Board, applied_key, chain};
use millrace_core::{Broker, Error, Result, Sink, TopicSpec};
use serde_json::json;

/// The largest entry with its key, in bytes: topics are made for a mebibyte.
const ENTRY_BYTES_MAX: usize = 1_000_000;

/// What is to be done.
pub struct Work {
    /// Topics that are missing.
    pub topics: Vec<(Arc<dyn Broker>, TopicSpec)>,
    /// Indexes that lack something, by name.
    pub indexes: Vec<(String, Arc<dyn Sink>)>,
    /// The broker of the state, and its control topic.
    pub state: (Arc<dyn Broker>, String),
    /// What is to be in force; none: it is already.
    pub entry: Option<AppliedEntry>,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This is in force, by us or by somebody who applied the same.
    InForce {
        /// Where it stands in the history.
        generation: u64,
    },
    /// Somebody was faster.
    Lost {
        /// What is in force instead, and by whom.
        winner: Box<Applied>,
    },
    /// It was in force already.
    Unchanged,
}

/// Does it, and tells of each step that is done.
///
/// # Errors
/// The first there is; what was done before it stays done, and doing it again ends in the same state.
pub async fn carry_out(work: &Work, mut told: impl FnMut(String)) -> Result<Outcome> {
    for (broker, spec) in &work.topics {
        broker.admin().create_topic(spec).await?;
        told(format!("created topic {}", spec.name));
    }
    for (name, index) in &work.indexes {
        index.prepare().await?;
        told(format!("prepared index {name}"));
    }
    let (broker, topic) = &work.state;
    let Some(entry) = &work.entry else {
        tidy(&**broker, topic).await?;
        return Ok(Outcome::Unchanged);
    };
    let value = json!(entry);
    if value.to_string().len() > ENTRY_BYTES_MAX {
        let why = format!("is too large to be applied: with its bookkeeping at most {ENTRY_BYTES_MAX} bytes");
        return Err(Error::fatal("pipeline file", why));
    }
    let board = Board::open(&**broker, topic).await?;
    // A key of its own for each try: one that is written twice would move in the log.
    let key = applied_key(entry.generation, rand::random());
    board.put(&[(key.clone(), Some(value))]).await?;
    // Others may have written before; all that lies before our entry is read by this.
    let chain = chain(Board::look_in_order(&**broker, topic).await?);
    let in_force = chain.in_force()?.ok_or_else(|| Error::retry("applied state", "nothing is in force"))?;
    let ours = chain.history().iter().find(|applied| applied.key == key);
    let same = Some(in_force).filter(|applied| applied.entry.hash == entry.hash);
    let Some(taken) = ours.or(same) else {
        return Ok(Outcome::Lost { winner: Box::new(in_force.clone()) });
    };
    let generation = taken.entry.generation;
    tidy(&**broker, topic).await?;
    Ok(Outcome::InForce { generation })
}

/// Removes entries that nobody needs any more, those that lost before those that were in force.
async fn tidy(broker: &dyn Broker, topic: &str) -> Result<()> {
    let [lost, old] = chain(Board::look_in_order(broker, topic).await?).obsolete();
    if lost.is_empty() && old.is_empty() {
        return Ok(());
    }
    let board = Board::open(broker, topic).await?;
    for keys in [lost, old] {
        // One by one: a batch that is written in part could remove a winner and leave a loser.
        for key in keys {
            board.put(&[(key, None)]).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
