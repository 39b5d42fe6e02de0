//! `millrace topic produce`: the lines of files as records, by way of a spool while the broker is away.

mod input;
mod outbox;

use std::{
    io::{IsTerminal, Write, stderr, stdout},
    path::Path,
    sync::Arc,
};

use indicatif::{ProgressBar, ProgressStyle};
use millrace_core::{Admin, Class, Error, Producer};
use millrace_spool::{Options, Spool};
use serde_json::json;
use tokio::{
    task::spawn_blocking,
    time::{Duration, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    input::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Input, Read},
    outbox::{Outbox, Progress},
};
use super::broker_of;
use crate::{
    args::TopicProduceArgs,
    assemble::Systems,
    plan,
    registry::{KeyPath, LineOptions, Lines, LinesProgress},
    report::{Failure, counted, say},
    signals::Signals,
};

/// What a record may hold besides its line: key and framing.
const OVERHEAD_BYTES: usize = 1_024;
/// How long the broker may take to acknowledge when nobody says: with a spool, and without.
const SPOOLED_TIMEOUT: Duration = Duration::from_secs(5);
const DIRECT_TIMEOUT: Duration = Duration::from_secs(60);

pub async fn run(args: &TopicProduceArgs) -> Result<(), Failure> {
    let plan = plan::load(&args.at)?;
    let broker = broker_of(&plan, &args.topic)?;
    let key = args.key.as_deref().map(|path| {
        KeyPath::parse(path)
            .ok_or_else(|| Failure::input(format!("--key {path}: a name is empty; try 'payload.user_id'")))
    });
    let key = key.transpose()?;
    let record_bytes_max = plan.topics.get(&args.topic).map_or(1 << 20, |topic| topic.spec.record_bytes_max);
    let spool = open_spool(args, record_bytes_max)?;
    let usual = if spool.is_some() { SPOOLED_TIMEOUT } else { DIRECT_TIMEOUT };
    let append_timeout = args.append_timeout.unwrap_or(usual);
    let mut systems = Systems::new()?;
    let broker = systems.broker(&plan, &broker)?;
    let signals = Signals::listen()?;
    let shutdown = CancellationToken::new();
    let work = async {
        let away = look(&*broker.admin(), &args.topic, append_timeout).await?;
        if let Some(error) = away.as_ref().filter(|_| spool.is_none()) {
            return Err(Failure::environment(error.chain()));
        }
        let producer: Arc<dyn Producer> = broker.producer().await?;
        let mut outbox = Outbox::new(&args.topic, producer, spool, append_timeout, away.as_ref());
        let mut read = Read::default();
        let sent = send_all(args, record_bytes_max, key, &mut outbox, &mut read, &shutdown).await;
        conclude(args, &outbox, read, sent, shutdown.is_cancelled())
    };
    signals.guard(&shutdown, work).await?
}

/// The spool, if one is wanted. It holds a batch at least, so that a batch goes there as a whole.
fn open_spool(args: &TopicProduceArgs, record_bytes_max: usize) -> Result<Option<Spool>, Failure> {
    let Some(folder) = &args.spool else { return Ok(None) };
    let least = 2 * (BATCH_BYTES_MAX + record_bytes_max) + BATCH_RECORDS_MAX * OVERHEAD_BYTES;
    if args.spool_bytes_max < least as u64 {
        return Err(Failure::input(format!("--spool-bytes-max: must be at least {least} for this topic")));
    }
    let options = Options {
        folder: folder.clone(),
        subject: format!("topic {}", args.topic),
        bytes_max: args.spool_bytes_max,
    };
    Spool::open(options).map(Some).map_err(|error| match error.class() {
        Class::Reject => Failure::input(error.chain()),
        _ => Failure::from(error),
    })
}

/// Whether the topic is there: why it is not known, when the broker is away.
async fn look(admin: &dyn Admin, topic: &str, within: Duration) -> Result<Option<Error>, Failure> {
    match timeout(within, admin.topic(topic)).await {
        Ok(Ok(Some(_))) => Ok(None),
        Ok(Ok(None)) => {
            let advice = "create it with 'millrace topic create --all'";
            Err(Failure::environment(format!("topic {topic} does not exist; {advice}")))
        }
        Ok(Err(error)) if error.class() == Class::Retry => Ok(Some(error)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => {
            let why = format!("the broker does not answer within {} ms", within.as_millis());
            Ok(Some(Error::retry(format!("topic {topic}"), why)))
        }
    }
}

/// Sends the lines of all files, and what waits in the spool.
async fn send_all(
    args: &TopicProduceArgs,
    record_bytes_max: usize,
    key: Option<KeyPath>,
    outbox: &mut Outbox,
    read: &mut Read,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    for file in &args.files {
        let options = LineOptions { line_bytes_max: record_bytes_max.saturating_sub(OVERHEAD_BYTES).max(1) };
        // Opening looks at the first bytes, and standard input may have none for long.
        let path = file.clone();
        let opening = spawn_blocking(move || Lines::open(&path, options));
        let opened = until(shutdown, outbox, opening).await?;
        let Some(lines) = opened else { break };
        let lines = lines.map_err(|error| Failure::run(error.to_string()))??;
        let of_file = send_file(file, lines, key.clone(), outbox, shutdown).await?;
        read.without_key += of_file.without_key;
        read.too_long += of_file.too_long;
    }
    outbox.finish().await
}

/// Waits for `work` and sends meanwhile what waits; none when the shutdown came first.
async fn until<T>(
    shutdown: &CancellationToken,
    outbox: &mut Outbox,
    work: impl Future<Output = T>,
) -> Result<Option<T>, Failure> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(None),
            done = &mut work => return Ok(Some(done)),
            progress = outbox.step() => progress?,
        };
    }
}

async fn send_file(
    file: &Path,
    lines: Lines,
    key: Option<KeyPath>,
    outbox: &mut Outbox,
    shutdown: &CancellationToken,
) -> Result<Read, Failure> {
    let progress = lines.progress();
    let bar = bar(file, &progress);
    let mut input = Input::start(file, lines, key);
    loop {
        // In no fixed order: an input that never rests must not keep the spool from being sent.
        tokio::select! {
            // The reader ends with its next lines; nobody knows when they come.
            () = shutdown.cancelled() => {
                bar.finish_and_clear();
                return Ok(Read::default());
            }
            batch = input.batch(), if outbox.is_free() => match batch {
                Some(batch) => outbox.take(batch)?,
                None => break,
            },
            step = outbox.step() => {
                // A file can be read again, what comes through a pipe cannot: that waits for room.
                if step? == Progress::Away && outbox.is_full() && file != Path::new("-") {
                    return Err(Failure::environment("the spool is full and the broker away"));
                }
            }
        }
        bar.set_position(progress.read_bytes());
        bar.set_message(counted(outbox.produced, "record"));
    }
    bar.finish_and_clear();
    input.end().await
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

/// Says what was done, and how it ended.
fn conclude(
    args: &TopicProduceArgs,
    outbox: &Outbox,
    read: Read,
    sent: Result<(), Failure>,
    stopped: bool,
) -> Result<(), Failure> {
    let skipped = outbox.refused + read.too_long;
    let waiting = outbox.waiting();
    if args.at.json {
        let mut line = json!({
            "topic": args.topic, "produced": outbox.produced, "without_key": read.without_key, "skipped": skipped,
        });
        if args.spool.is_some() {
            line["waiting"] = waiting.into();
        }
        writeln!(stdout().lock(), "{line}")?;
    } else {
        let mut line = format!("millrace: {} produced to {}", counted(outbox.produced, "record"), args.topic);
        if read.without_key > 0 {
            line.push_str(&format!(", {} of them without a key", read.without_key));
        }
        say(&line);
    }
    if let Some(folder) = args.spool.as_ref().filter(|_| waiting > 0) {
        let folder = folder.display();
        let advice = format!("'millrace topic produce {} --spool {folder} --drain' sends them", args.topic);
        say(&format!("millrace: {} in {folder}; {advice}", counted_waiting(waiting)));
    }
    if let Some(line) = outbox.first_undone() {
        say(&format!("millrace: {line} and what follows was not taken"));
    }
    sent?;
    if skipped > 0 {
        return Err(Failure::run(format!("{} skipped", counted(skipped, "line"))));
    }
    if stopped {
        return Err(Failure::run("stopped before the end of the input"));
    }
    if waiting > 0 {
        return Err(Failure::environment(format!(
            "the broker is away, {} in the spool",
            counted_waiting(waiting)
        )));
    }
    Ok(())
}

/// `1 record waits`, `7 records wait`.
fn counted_waiting(count: u64) -> String {
    format!("{} wait{}", counted(count, "record"), if count == 1 { "s" } else { "" })
}
