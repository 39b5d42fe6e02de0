//! The time of day of running processes jumps, by hours and both ways, while they work: nothing waits for it, and every
//! effect is there once. libfaketime changes what a process is told; time that passes it leaves alone, as a clock that
//! is set does.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use crate::{clock, input::Event, likes, processes::Process, say, stage::Stage, support::millrace::Millrace};

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

fn event(number: u64) -> Event {
    Event { topic: likes::TOPIC, key: likes::author(number), line: likes::line(number) }
}

/// When the process has last committed, by its own clock, in seconds since 1970.
fn last_commit(process: &Process) -> Option<f64> {
    let metrics = process.metrics()?;
    let commits = metrics.of("millrace_last_commit_timestamp_seconds").map(|(_, at)| at);
    commits.fold(None, |last, at| Some(last.unwrap_or(0.0_f64).max(at)))
}

#[test]
fn clocks_may_jump_while_processes_work() {
    let mut stage = Stage::with("clocks", |prefix| likes::pipelines(prefix, 6));
    let (clocks, millrace) = Clocks::of(stage.millrace);
    stage.millrace = millrace;
    let (enough, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut processes: Vec<Process> =
        ["run-1", "run-2"].map(|name| Process::start(&stage.millrace, name, &[])).into();
    processes = processes.into_iter().map(Process::ready).collect();
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        let input = scope.spawn(|| {
            let mut appender = stage.appender();
            while !enough.load(Ordering::Relaxed) {
                for _ in 0..10 {
                    appender.append(&event(sent.fetch_add(1, Ordering::Relaxed)));
                }
                clock::pause(Duration::from_millis(20));
            }
            appender.flush();
        });
        for ahead in JUMPS {
            clocks.set(ahead);
            let before = sent.load(Ordering::Relaxed);
            let done =
                clock::within(PATIENCE, || (likes::counted(&stage) >= before + LIKES_PER_JUMP).then_some(()));
            if done.is_none() {
                enough.store(true, Ordering::Relaxed);
                let words: Vec<String> = processes.iter().map(Process::last_words).collect();
                panic!("nothing is done with a clock that is {ahead}:\n{}", words.join("\n"));
            }
            seen.push(last_commit(&processes[0]).or_else(|| last_commit(&processes[1])));
        }
        enough.store(true, Ordering::Relaxed);
        input.join().expect("everything is appended");
    });
    // The clocks have jumped, or this has shown nothing.
    let hours: Vec<f64> = seen.windows(2).map(|two| (two[1].unwrap() - two[0].unwrap()) / 3_600.0).collect();
    let jumped = |from: f64, to: f64| hours.iter().any(|hours| (from..to).contains(hours));
    assert!(jumped(-13.0, -11.0) && jumped(26.0, 28.0), "{hours:?}");
    stage.drained(&[(likes::TOPIC, likes::PIPELINE)], || processes[0].last_words());
    for process in processes {
        let (status, log) = process.stop();
        assert!(status.success(), "{log}");
    }
    let sent = sent.load(Ordering::Relaxed);
    likes::check(&stage, sent);
    say(&format!(
        "{sent} likes under clocks that jumped by {hours:.1?} hours, each is there once and in order"
    ));
}
