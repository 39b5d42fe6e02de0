//! `millrace dlq replay`: the records of dead letters once more through the pipelines they failed in.

mod ready;

use std::{
    collections::BTreeMap,
    io::{Write, stdout},
    path::Path,
};

use millrace_config::Plan;
use millrace_runtime::{Letter, LetterLog, Outcome};
use serde_json::json;
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use self::ready::{Ready, Rules};
use super::{
    discard::resolve,
    export::complete,
    form,
    letters::{self, Letters, stopped},
    now_ms,
    select::{self, Chosen, Filter},
};
use crate::{
    args::{DlqReplayArgs, SelectArgs},
    assemble::Systems,
    plan,
    registry::{LineOptions, Lines},
    report::{Failure, counted, grouped, say},
};

/// Letters that are run together: sorted by where they come from, and settled together.
const WINDOW_LETTERS: usize = 10_000;
const WINDOW_BYTES: usize = 16 << 20;

/// The longest line of a file of letters.
const LINE_BYTES_MAX: usize = 256 << 20;

/// Letters that failed again are named up to this many.
const NAMED_MAX: u64 = 20;

pub async fn run(args: &DlqReplayArgs, shutdown: &CancellationToken) -> Result<(), Failure> {
    let narrowed = select::narrows(&args.select) || args.from.is_some();
    select::require(narrowed, args.all, "replay")?;
    let plan = plan::load(&args.at)?;
    let filter = Filter::of(&plan, &args.select, now_ms())?;
    let mut work = Work {
        args,
        shutdown,
        ready: Ready::new(Rules::of(args), shutdown.clone()),
        systems: Systems::new()?,
        plan,
        tally: Tally::default(),
    };
    match &args.from {
        None => work.topics(&filter).await?,
        Some(file) => work.file(file, &filter).await?,
    }
    work.tally.conclude(args)
}

/// A replay under way.
struct Work<'a> {
    args: &'a DlqReplayArgs,
    shutdown: &'a CancellationToken,
    plan: Plan,
    systems: Systems,
    ready: Ready,
    tally: Tally,
}

/// What happened.
#[derive(Default)]
struct Tally {
    replayed: u64,
    skipped: u64,
    again: u64,
    already: u64,
    /// Lines of a file that could not be read.
    unreadable: u64,
    /// Why letters were left as they are, and how many.
    left: BTreeMap<String, u64>,
}

/// Letters of one topic, up to a bound.
#[derive(Default)]
struct Window {
    letters: Vec<Letter>,
    bytes: usize,
}

impl Work<'_> {
    /// Letters from their topics.
    async fn topics(&mut self, filter: &Filter) -> Result<(), Failure> {
        for chosen in select::topics(&self.plan, &self.args.select)? {
            let opened = letters::open(&mut self.systems, &self.plan, &chosen, self.shutdown).await?;
            let Some(log) = opened else { continue };
            let mut letters = Letters::of(&log, &chosen, filter, false, self.shutdown).await?;
            let mut window = Window::default();
            while let Some((letter, _)) = letters.next().await? {
                let Some(letter) = self.admit(&log, letter).await? else { continue };
                window.push(letter);
                if window.is_full() {
                    self.window(&log, std::mem::take(&mut window)).await?;
                }
            }
            self.window(&log, window).await?;
            self.tally.already += letters.hidden;
        }
        Ok(())
    }

    /// Letters from a file, which may be of several topics.
    async fn file(&mut self, file: &Path, filter: &Filter) -> Result<(), Failure> {
        let all = select::topics(&self.plan, &SelectArgs::default())?;
        let mut logs: BTreeMap<String, LetterLog> = BTreeMap::new();
        let mut windows: BTreeMap<String, Window> = BTreeMap::new();
        let mut lines = lines(file);
        loop {
            let line = tokio::select! {
                () = self.shutdown.cancelled() => return Err(stopped()),
                line = lines.recv() => line,
            };
            let Some(line) = line else { break };
            let (number, line) = line?;
            let read = form::read(&line).and_then(|(topic, letter)| {
                let chosen = all.iter().find(|chosen| chosen.topic == topic);
                let unknown = || format!("'{topic}' takes no dead letters of these pipelines");
                Ok((chosen.ok_or_else(unknown)?, letter))
            });
            let (chosen, letter) = match read {
                Ok(read) => read,
                Err(why) => {
                    say(&format!("{}:{number}: {why}; skipped", file.display()));
                    self.tally.unreadable += 1;
                    continue;
                }
            };
            let topic = &chosen.topic;
            if !filter.matches(&letter) || !select::names(&self.args.select, topic, letter.id) {
                continue;
            }
            if !logs.contains_key(topic) {
                logs.insert(topic.clone(), self.log(chosen).await?);
            }
            let log = &logs[topic];
            if log.outcome(letter.id).is_some() && !self.args.force {
                self.tally.already += 1;
                continue;
            }
            let Some(letter) = self.admit(log, letter).await? else { continue };
            let window = windows.entry(topic.clone()).or_default();
            window.push(letter);
            if window.is_full() {
                let window = std::mem::take(window);
                self.window(log, window).await?;
            }
        }
        for (topic, window) in windows {
            self.window(&logs[&topic], window).await?;
        }
        Ok(())
    }

    async fn log(&mut self, chosen: &Chosen) -> Result<LetterLog, Failure> {
        let opened = letters::open(&mut self.systems, &self.plan, chosen, self.shutdown).await?;
        opened.ok_or_else(|| Failure::environment(format!("topic {} does not exist", chosen.topic)))
    }

    /// The letter whole, unless it is to be left as it is.
    async fn admit(&mut self, log: &LetterLog, mut letter: Letter) -> Result<Option<Letter>, Failure> {
        let why = match self.ready.refusal(&self.plan, &mut self.systems, &letter).await? {
            Some(why) => why,
            None if complete(&**log.broker(), &mut letter).await? => return Ok(Some(letter)),
            None => "the value was left out, and the record is gone from where it came from".to_owned(),
        };
        *self.tally.left.entry(why).or_default() += 1;
        Ok(None)
    }

    /// Runs letters, each pipeline's by themselves, and settles what was run.
    async fn window(&mut self, log: &LetterLog, window: Window) -> Result<(), Failure> {
        let mut by_pipeline: BTreeMap<String, Vec<Letter>> = BTreeMap::new();
        for letter in window.letters {
            by_pipeline.entry(letter.pipeline.clone()).or_default().push(letter);
        }
        for (pipeline, letters) in by_pipeline {
            if self.args.dry_run {
                for letter in &letters {
                    form::print(&mut stdout().lock(), self.args.at.json, log.topic(), letter, None)?;
                }
                self.tally.replayed += letters.len() as u64;
                continue;
            }
            let replay = self.ready.pipeline(&self.plan, &mut self.systems, &pipeline).await?;
            let replayed = replay.run(letters).await?;
            let again = replayed.again.iter().map(|(id, _)| *id).collect();
            self.tally.replayed += resolve(log, replayed.done, Outcome::Replayed).await?;
            self.tally.skipped += replayed.skipped;
            for (id, reason) in &replayed.again {
                self.tally.again += 1;
                if self.tally.again <= NAMED_MAX {
                    let reason = form::printable(reason);
                    say(&format!("millrace: {}/{id} failed again: {reason}", log.topic()));
                }
            }
            resolve(log, again, Outcome::Replaced).await?;
        }
        Ok(())
    }
}

impl Window {
    fn push(&mut self, letter: Letter) {
        self.bytes += letter.record.size_bytes();
        self.letters.push(letter);
    }

    fn is_full(&self) -> bool {
        self.letters.len() >= WINDOW_LETTERS || self.bytes >= WINDOW_BYTES
    }
}

impl Tally {
    fn conclude(&self, args: &DlqReplayArgs) -> Result<(), Failure> {
        let left: u64 = self.left.values().sum();
        if args.at.json {
            let line = json!({
                "replayed": self.replayed, "skipped": self.skipped, "failed_again": self.again, "left": left,
                "already_resolved": self.already, "dry_run": args.dry_run,
            });
            writeln!(stdout().lock(), "{line}")?;
        } else {
            let would = if args.dry_run { "would be " } else { "" };
            let mut line = format!("millrace: {} {would}replayed", counted(self.replayed, "dead letter"));
            let parts = [
                (self.skipped, "of them of other event types"),
                (self.again, "failed again"),
                (self.already, "were resolved already"),
            ];
            for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
                line.push_str(&format!(", {} {what}", grouped(count)));
            }
            say(&line);
        }
        for (why, count) in &self.left {
            say(&format!("millrace: {} left: {why}", counted(*count, "letter")));
        }
        let bad = [
            (self.again, "letter", "failed again and became dead letters anew"),
            (left, "letter", "left"),
            (self.unreadable, "line", "skipped"),
        ];
        let bad: Vec<String> = bad
            .into_iter()
            .filter(|(count, _, _)| *count > 0)
            .map(|(count, noun, what)| format!("{} {what}", counted(count, noun)))
            .collect();
        if bad.is_empty() { Ok(()) } else { Err(Failure::run(bad.join(", "))) }
    }
}

/// A line's number and its bytes, or why there are no more.
type Line = Result<(u64, bytes::Bytes), Failure>;

/// The lines of a file, read on a thread of its own: standard input may have none for long.
fn lines(file: &Path) -> mpsc::Receiver<Line> {
    let (lines, receiver) = mpsc::channel(16);
    let file = file.to_owned();
    spawn_blocking(move || {
        let options = LineOptions { line_bytes_max: LINE_BYTES_MAX };
        let opened = match Lines::open(&file, options) {
            Ok(opened) => opened,
            Err(error) => {
                // Nobody takes it only when the run has ended already.
                let _ = lines.blocking_send(Err(error.into()));
                return;
            }
        };
        for line in opened {
            let line = match line {
                Ok(Ok(line)) => Ok((line.number, line.value)),
                Ok(Err(too_long)) => Err(Failure::run(too_long.to_string())),
                Err(error) => Err(error.into()),
            };
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
