//! The selected letters of a topic, one after the other, in bounded memory and with a progress bar.

use std::{
    collections::VecDeque,
    io::{IsTerminal, stderr},
};

use indicatif::{ProgressBar, ProgressStyle};
use millrace_config::Plan;
use millrace_core::{Class, Record};
use millrace_runtime::{Entry, Letter, LetterLog, Outcome, Resolution, Scan};
use tokio_util::sync::CancellationToken;

use super::select::{Chosen, Filter};
use crate::{
    assemble::Systems,
    report::{Failure, say},
};

/// What is read of a topic.
pub struct Letters<'a> {
    log: &'a LetterLog,
    chosen: &'a Chosen,
    filter: &'a Filter,
    shutdown: &'a CancellationToken,
    scan: Scan,
    waiting: VecDeque<Record>,
    bar: ProgressBar,
    /// Resolved letters are given as well.
    resolved_too: bool,
    /// Letters that were left out because they are resolved.
    pub hidden: u64,
    /// Resolutions of letters that were asked for by their id.
    pub resolutions: Vec<Resolution>,
}

/// Opens a topic and reads which of its letters are resolved. None when nothing has ever failed into it.
pub async fn open(
    systems: &mut Systems,
    plan: &Plan,
    chosen: &Chosen,
    shutdown: &CancellationToken,
) -> Result<Option<LetterLog>, Failure> {
    let broker = systems.broker(plan, &chosen.broker)?;
    let log = LetterLog::open(broker, &chosen.topic).await?;
    for id in chosen.ids.iter().flatten() {
        if !log.as_ref().is_some_and(|log| log.holds(*id)) {
            return Err(Failure::input(format!("there is no dead letter {}/{id}", chosen.topic)));
        }
    }
    let Some(mut log) = log else { return Ok(None) };
    let bar = bar(&chosen.topic);
    let folding = log.fold(chosen.ids.as_deref(), |read, total| {
        bar.set_length(total);
        bar.set_position(read);
    });
    tokio::select! {
        () = shutdown.cancelled() => return Err(stopped()),
        folded = folding => folded?,
    }
    bar.finish_and_clear();
    Ok(Some(log))
}

impl<'a> Letters<'a> {
    /// From the start of the topic.
    pub async fn of(
        log: &'a LetterLog,
        chosen: &'a Chosen,
        filter: &'a Filter,
        resolved_too: bool,
        shutdown: &'a CancellationToken,
    ) -> Result<Self, Failure> {
        let scan = log.scan(chosen.ids.as_deref()).await?;
        Ok(Letters {
            log,
            chosen,
            filter,
            shutdown,
            scan,
            waiting: VecDeque::new(),
            bar: bar(&chosen.topic),
            resolved_too,
            hidden: 0,
            resolutions: Vec::new(),
        })
    }

    /// The next letter that is meant, with what became of it; none at the end. What is damaged is named on
    /// standard error.
    pub async fn next(&mut self) -> Result<Option<(Letter, Option<Outcome>)>, Failure> {
        loop {
            while let Some(record) = self.waiting.pop_front() {
                match Entry::read(&record) {
                    Ok(Entry::Letter(letter)) => {
                        if let Some(found) = self.admit(*letter) {
                            return Ok(Some(found));
                        }
                    }
                    Ok(Entry::Resolution(resolution)) => {
                        if self.chosen.ids.as_ref().is_some_and(|ids| ids.contains(&resolution.id)) {
                            self.resolutions.push(resolution);
                        }
                    }
                    Ok(Entry::Foreign) => {}
                    Err(error) if error.class() == Class::Reject => {
                        say(&format!("millrace: {error}; left out"));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            let batch = tokio::select! {
                () = self.shutdown.cancelled() => return Err(stopped()),
                batch = self.scan.next() => batch?,
            };
            let (read, total) = self.scan.progress();
            self.bar.set_length(total);
            self.bar.set_position(read);
            match batch {
                Some(records) => self.waiting = records.into(),
                None => {
                    self.bar.finish_and_clear();
                    return Ok(None);
                }
            }
        }
    }

    fn admit(&mut self, letter: Letter) -> Option<(Letter, Option<Outcome>)> {
        let meant = self.chosen.ids.as_ref().is_none_or(|ids| ids.contains(&letter.id));
        if !meant || !self.filter.matches(&letter) {
            return None;
        }
        let outcome = self.log.outcome(letter.id);
        if outcome.is_some() && !self.resolved_too {
            self.hidden += 1;
            return None;
        }
        Some((letter, outcome))
    }
}

fn bar(topic: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{prefix} [{bar:30}] {percent:>3} % {human_pos} of {human_len}";
    let style = ProgressStyle::with_template(template).expect("invariant: the template is valid");
    ProgressBar::new(0).with_style(style).with_prefix(topic.to_owned())
}

pub fn stopped() -> Failure {
    Failure::run("stopped before the end")
}
