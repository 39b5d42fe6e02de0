//! `millrace dlq discard`: letters given up.

use std::io::{Write, stdout};

use millrace_runtime::{LetterId, LetterLog, Outcome, Resolution};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    form,
    letters::{self, Letters},
    now_ms,
    select::{self, Filter},
    user,
};
use crate::{
    args::DlqDiscardArgs,
    assemble::Systems,
    plan,
    report::{Failure, counted, grouped, say},
};

/// Letters settled by one append.
const BATCH_LETTERS: usize = 500;

pub async fn run(args: &DlqDiscardArgs, shutdown: &CancellationToken) -> Result<(), Failure> {
    select::require(select::narrows(&args.select), args.all, "discard")?;
    let plan = plan::load(&args.at)?;
    let filter = Filter::of(&plan, &args.select, now_ms())?;
    let mut systems = Systems::new()?;
    let (mut discarded, mut hidden) = (0, 0);
    for chosen in select::topics(&plan, &args.select)? {
        let Some(log) = letters::open(&mut systems, &plan, &chosen, shutdown).await? else { continue };
        let mut letters = Letters::of(&log, &chosen, &filter, false, shutdown).await?;
        let mut batch = Vec::new();
        while let Some((letter, _)) = letters.next().await? {
            if args.dry_run {
                form::print(&mut stdout().lock(), args.at.json, log.topic(), &letter, None)?;
                discarded += 1;
                continue;
            }
            batch.push(letter.id);
            if batch.len() == BATCH_LETTERS {
                discarded += resolve(&log, std::mem::take(&mut batch), Outcome::Discarded).await?;
            }
        }
        discarded += resolve(&log, batch, Outcome::Discarded).await?;
        hidden += letters.hidden;
    }
    if args.at.json {
        let line = json!({ "discarded": discarded, "already_resolved": hidden, "dry_run": args.dry_run });
        writeln!(stdout().lock(), "{line}")?;
        return Ok(());
    }
    let would = if args.dry_run { "would be " } else { "" };
    let mut line = format!("millrace: {} {would}discarded", counted(discarded, "dead letter"));
    if hidden > 0 {
        line.push_str(&format!(", {} were resolved already", grouped(hidden)));
    }
    say(&line);
    Ok(())
}

/// Settles letters, and says how many.
pub async fn resolve(log: &LetterLog, ids: Vec<LetterId>, outcome: Outcome) -> Result<u64, Failure> {
    let (at_ms, by) = (now_ms(), user());
    let resolution = |id: &LetterId| Resolution { id: *id, outcome, by: by.clone(), at_ms };
    let resolutions: Vec<Resolution> = ids.iter().map(resolution).collect();
    log.resolve(&resolutions).await?;
    Ok(ids.len() as u64)
}
