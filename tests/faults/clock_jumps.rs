//! The time of day jumps by hours, both ways, while the embedded form works: nothing waits for it, and every effect is
//! there once. libfaketime changes what a process is told; time that passes it leaves alone, as a clock that is set does.
//! It does not reach the waits of Kafka's client, whose processes' clocks jump in the simulation.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use serde_json::Value;

use crate::{
    clock,
    laboratory::Laboratory,
    likes,
    processes::Process,
    say,
    support::{
        millrace::Millrace,
        servers::{Embedded, World},
    },
};

const PATIENCE: Duration = Duration::from_secs(60);
/// What the clock is ahead, one after the other.
const JUMPS: [&str; 5] = ["+5h", "-7h", "+20h", "-1h", "+0"];
/// Likes that must have been counted under each of them.
const LIKES_PER_JUMP: u64 = 200;

/// The clocks of processes.
struct Clocks {
    file: PathBuf,
}

impl Clocks {
    /// Millrace with clocks that can be set; they are right at first.
    fn of(millrace: Millrace) -> (Self, Millrace) {
        let clocks = Clocks { file: millrace.path().join("clock") };
        clocks.set("+0");
        let millrace = millrace
            .env("LD_PRELOAD", library().to_str().expect("a path"))
            .env("FAKETIME_TIMESTAMP_FILE", clocks.file.to_str().expect("a path"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        (clocks, millrace)
    }

    fn set(&self, ahead: &str) {
        // Whole, whoever reads it meanwhile.
        let next = self.file.with_extension("next");
        fs::write(&next, ahead).expect("a file");
        fs::rename(next, &self.file).expect("a file");
    }
}

/// As Debian installs it, in a folder named by the machine's kind.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("a folder").map_while(Result::ok);
    let mut places = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    places.find(|path| path.exists()).expect("libfaketime is installed: scripts/laboratory start")
}

/// When the process has last committed, by its own clock, in seconds since 1970.
fn last_commit(process: &Process) -> Option<f64> {
    let metrics = process.metrics()?;
    let commits = metrics.of("millrace_last_commit_timestamp_seconds").map(|(_, at)| at);
    commits.reduce(f64::max)
}

/// Likes by author, as counted.
fn counts(millrace: &Millrace) -> BTreeMap<String, i64> {
    let mut views = Embedded::open(&millrace.path().join(".millrace"));
    likes::authors().map(|author| (author.clone(), views.unread(&author).unwrap_or_default())).collect()
}

fn counted(millrace: &Millrace) -> u64 {
    counts(millrace).values().sum::<i64>().cast_unsigned()
}

/// Likes 0 to `count` are counted once, and copied once in the order of their author.
fn check(millrace: &Millrace, count: u64) {
    let mut due: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for number in 0..count {
        due.entry(likes::author(number)).or_default().push(number);
    }
    let must: BTreeMap<String, i64> =
        due.iter().map(|(author, numbers)| (author.clone(), numbers.len() as i64)).collect();
    assert_eq!(counts(millrace), must);
    let tail =
        ["topic", "tail", "clocks-copies", "--from", "beginning", "--until-end", "--json", "--embedded"];
    let mut copies: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in millrace.ok(&tail).stdout.lines() {
        let record: Value = serde_json::from_str(line).expect("a record");
        let value = &record["value"];
        let event =
            value.as_str().map_or_else(|| value.clone(), |text| serde_json::from_str(text).expect("JSON"));
        let author = event["payload"]["author_id"].as_str().expect("an author").to_owned();
        copies.entry(author).or_default().push(event["payload"]["number"].as_u64().expect("a number"));
    }
    assert!(copies == due, "copies are missing, repeated or out of order");
}

#[test]
fn clocks_may_jump_while_a_process_works() {
    // Installs what is needed, too.
    let _alone = Laboratory::enter();
    let (clocks, millrace) = Clocks::of(Millrace::new());
    millrace.write("pipelines.yaml", likes::pipelines("clocks-", 3));
    millrace.ok(&["topic", "create", "--all", "--embedded"]);
    let (enough, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let arguments =
        ["topic", "produce", "clocks-likes", "--key", "payload.author_id", "--file", "-", "--embedded"];
    let mut producer = millrace.command(&arguments);
    let mut producer =
        producer.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program starts");
    let mut input = producer.stdin.take().expect("a pipe");
    let process = Process::start(&millrace, "run", &["--embedded"]).ready();
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                for _ in 0..10 {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    writeln!(input, "{}", likes::line(number)).expect("the producer reads");
                }
                clock::pause(Duration::from_millis(20));
            }
            drop(input);
        });
        for ahead in JUMPS {
            clocks.set(ahead);
            let enough_by_then = sent.load(Ordering::Relaxed) + LIKES_PER_JUMP;
            let done = clock::within(PATIENCE, || (counted(&millrace) >= enough_by_then).then_some(()));
            if done.is_none() {
                enough.store(true, Ordering::Relaxed);
                panic!("nothing is done with a clock that is {ahead}:\n{}", process.last_words());
            }
            seen.push(last_commit(&process).expect("it commits"));
        }
        enough.store(true, Ordering::Relaxed);
        writing.join().expect("everything was read");
    });
    // The clocks have jumped, or this has shown nothing.
    let hours: Vec<f64> = seen.windows(2).map(|two| (two[1] - two[0]) / 3_600.0).collect();
    let has = |jump: f64| hours.iter().any(|hours| (hours - jump).abs() < 1.0);
    assert!(has(-12.0) && has(27.0), "{hours:?}");
    assert!(producer.wait().expect("a process").success());
    let sent = sent.load(Ordering::Relaxed);
    clock::until(
        PATIENCE,
        || format!("{} of {sent} are counted:\n{}", counted(&millrace), process.last_words()),
        || (counted(&millrace) >= sent).then_some(()),
    );
    let (status, log) = process.stop();
    assert!(status.success(), "{log}");
    check(&millrace, sent);
    say(&format!(
        "{sent} likes under clocks that jumped by {hours:.1?} hours, each is there once and in order"
    ));
}
