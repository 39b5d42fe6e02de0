//! `millrace topic produce`: the lines of files as records.

use std::{
    io::{IsTerminal, Write, stderr, stdout},
    path::Path,
};

use indicatif::{ProgressBar, ProgressStyle};
use millrace_core::{Class, Error, NewRecord, Producer};
use millrace_runtime::{Backoff, RetryPolicy};
use serde_json::json;
use tokio::{sync::mpsc, task::spawn_blocking, time::Duration};
use tokio_util::sync::CancellationToken;

use super::broker_of;
use crate::{
    args::TopicProduceArgs,
    assemble::Systems,
    plan,
    registry::{KeyPath, LineOptions, Lines, LinesProgress},
    report::{Failure, counted, say},
    signals::Signals,
};

/// Records handed to the producer at once.
const BATCH_RECORDS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Tries while the broker is away; with the waits between them about a minute.
const TRIES_MAX: u32 = 10;
/// What a record may hold besides its line: key and framing.
const OVERHEAD_BYTES: usize = 1_024;

/// What happened, over all files.
#[derive(Default)]
struct Tally {
    produced: u64,
    without_key: u64,
    skipped: u64,
}

/// A batch of lines of one file, with the line numbers.
struct Chunk {
    records: Vec<NewRecord>,
    numbers: Vec<u64>,
}

pub async fn run(args: &TopicProduceArgs) -> Result<(), Failure> {
    let plan = plan::load(&args.at)?;
    let broker = broker_of(&plan, &args.topic)?;
    let key = args.key.as_deref().map(|path| {
        KeyPath::parse(path)
            .ok_or_else(|| Failure::input(format!("--key {path}: a name is empty; try 'payload.user_id'")))
    });
    let key = key.transpose()?;
    let record_bytes_max = plan.topics.get(&args.topic).map_or(1 << 20, |topic| topic.spec.record_bytes_max);
    let mut systems = Systems::new()?;
    let broker = systems.broker(&plan, &broker)?;
    if broker.admin().topic(&args.topic).await?.is_none() {
        let advice = "create it with 'millrace topic create --all'";
        return Err(Failure::environment(format!("topic {} does not exist; {advice}", args.topic)));
    }
    let producer = broker.producer().await?;
    let signals = Signals::listen()?;
    let shutdown = CancellationToken::new();
    let mut tally = Tally::default();
    let work = async {
        for file in &args.files {
            let options =
                LineOptions { line_bytes_max: record_bytes_max.saturating_sub(OVERHEAD_BYTES).max(1) };
            // Opening looks at the first bytes, and standard input may have none for long.
            let path = file.clone();
            let opening = spawn_blocking(move || Lines::open(&path, options));
            let lines = tokio::select! {
                () = shutdown.cancelled() => break,
                lines = opening => lines.map_err(|error| Failure::run(error.to_string()))??,
            };
            produce(&*producer, &args.topic, file, lines, key.clone(), &mut tally, &shutdown).await?;
        }
        Ok::<(), Failure>(())
    };
    signals.guard(&shutdown, work).await??;
    conclude(args, &tally, shutdown.is_cancelled())
}

async fn produce(
    producer: &dyn Producer,
    topic: &str,
    file: &Path,
    lines: Lines,
    key: Option<KeyPath>,
    tally: &mut Tally,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let bar = bar(file, &lines.progress());
    let progress = lines.progress();
    let (sender, mut chunks) = mpsc::channel(4);
    // Reading blocks; sending does not.
    let reading = spawn_blocking(move || read(lines, key.as_ref(), &sender));
    loop {
        let chunk = tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                bar.finish_and_clear();
                // The reader ends with its next chunk; nobody knows when that comes.
                return Ok(());
            }
            chunk = chunks.recv() => chunk,
        };
        let Some(chunk) = chunk else { break };
        send(producer, topic, file, chunk, tally).await?;
        bar.set_position(progress.read_bytes());
        bar.set_message(counted(tally.produced, "record"));
    }
    let read = reading.await.map_err(|error| Failure::run(error.to_string()))?;
    bar.finish_and_clear();
    let (without_key, too_long) = read?;
    tally.without_key += without_key;
    tally.skipped += too_long;
    Ok(())
}

/// Reads to the end, or until nobody takes the chunks any more. Returns the lines without a key and the lines
/// that were too long.
fn read(lines: Lines, key: Option<&KeyPath>, chunks: &mpsc::Sender<Chunk>) -> Result<(u64, u64), Error> {
    let (mut without_key, mut too_long) = (0, 0);
    let mut chunk = Chunk::new();
    let mut bytes = 0;
    for line in lines {
        let line = match line? {
            Ok(line) => line,
            Err(problem) => {
                too_long += 1;
                say(&problem.to_string());
                continue;
            }
        };
        let key = match key.map(|key| key.key_of(&line.value)) {
            None => None,
            Some(Ok(key)) => Some(key),
            Some(Err(_)) => {
                without_key += 1;
                None
            }
        };
        bytes += line.value.len();
        chunk.numbers.push(line.number);
        chunk.records.push(NewRecord { key, value: Some(line.value), ..NewRecord::default() });
        if chunk.records.len() >= BATCH_RECORDS_MAX || bytes >= BATCH_BYTES_MAX {
            bytes = 0;
            if chunks.blocking_send(std::mem::replace(&mut chunk, Chunk::new())).is_err() {
                return Ok((without_key, too_long));
            }
        }
    }
    if !chunk.records.is_empty() {
        // Nobody takes it only when the run has ended already.
        let _ = chunks.blocking_send(chunk);
    }
    Ok((without_key, too_long))
}

/// Appends a chunk, trying again what the broker could not take; a refused record is named by its line.
async fn send(
    producer: &dyn Producer,
    topic: &str,
    file: &Path,
    mut chunk: Chunk,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let (initial, max) = (Duration::from_millis(200), Duration::from_secs(10));
    let policy = RetryPolicy { initial, max, ..RetryPolicy::default() };
    let mut backoff = Backoff::new(policy, 0);
    loop {
        let mut again = Chunk::new();
        let mut away = None;
        let answers = producer.send(topic, chunk.records.clone()).await;
        for ((record, number), answer) in chunk.records.into_iter().zip(chunk.numbers).zip(answers) {
            match answer {
                Ok(_) => tally.produced += 1,
                Err(error) if error.class() == Class::Reject => {
                    tally.skipped += 1;
                    say(&format!("{}:{number}: {}; skipped", file.display(), error.chain()));
                }
                Err(error) if error.class() == Class::Retry && backoff.tries() < TRIES_MAX => {
                    again.records.push(record);
                    again.numbers.push(number);
                    away = Some(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let Some(error) = away else { return Ok(()) };
        let wait = backoff.next_wait();
        say(&format!("millrace: {}; trying again in {} ms", error.chain(), wait.as_millis()));
        tokio::time::sleep(wait).await;
        chunk = again;
    }
}

impl Chunk {
    fn new() -> Self {
        Chunk { records: Vec::new(), numbers: Vec::new() }
    }
}

fn bar(file: &Path, progress: &LinesProgress) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match progress.total_bytes {
        Some(total) => (ProgressBar::new(total), "{prefix} [{bar:30}] {percent:>3} % {msg} {eta} left"),
        None => (ProgressBar::new_spinner(), "{prefix} {spinner} {msg}"),
    };
    let style = ProgressStyle::with_template(template).expect("invariant: the template is valid");
    bar.with_style(style).with_prefix(file.display().to_string())
}

fn conclude(args: &TopicProduceArgs, tally: &Tally, stopped: bool) -> Result<(), Failure> {
    if args.at.json {
        let line = json!({
            "topic": args.topic, "produced": tally.produced, "without_key": tally.without_key, "skipped": tally.skipped,
        });
        writeln!(stdout().lock(), "{line}")?;
    } else {
        let mut line = format!("millrace: {} produced to {}", counted(tally.produced, "record"), args.topic);
        if tally.without_key > 0 {
            line.push_str(&format!(", {} of them without a key", tally.without_key));
        }
        say(&line);
    }
    if tally.skipped > 0 {
        return Err(Failure::run(format!("{} skipped", counted(tally.skipped, "line"))));
    }
    if stopped {
        return Err(Failure::run("stopped before the end of the input"));
    }
    Ok(())
}
