//! `millrace run` processes under test: started, killed, asked how they are.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    clock,
    support::{millrace::Millrace, servers::http_text},
};

/// How long a process may take to start or to end; machines may be slow.
const PATIENCE: Duration = Duration::from_secs(90);

/// One running process.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// `millrace run` and these arguments, with its metrics on a free port and its log in a file of this name.
    pub fn start(millrace: &Millrace, name: &str, args: &[&str]) -> Self {
        let args = [&["run", "--listen", "127.0.0.1:0", "--log", "info"], args].concat();
        Self::spawn(millrace.command(&args), millrace.path().join(format!("{name}.log")))
    }

    /// Any command, with its standard error in a file.
    pub fn spawn(mut command: Command, log: PathBuf) -> Self {
        let file = File::create(&log).expect("a log");
        let child = command.stdout(Stdio::null()).stderr(file).spawn().expect("the program starts");
        Process { child, log }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn kill(mut self) {
        self.child.kill().expect("a process");
        self.child.wait().expect("a process");
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a process")
    }

    /// Waits for its end.
    fn end(mut self) -> (ExitStatus, String) {
        let log = self.log.clone();
        let status = clock::until(
            PATIENCE,
            || format!("no end of\n{}", tail(&log)),
            || self.child.try_wait().unwrap(),
        );
        (status, self.said())
    }

    /// What it has logged.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines it has logged.
    pub fn last_words(&self) -> String {
        tail(&self.log)
    }

    /// The text of `/metrics`; None while it is starting, stopped or dead.
    pub fn metrics(&self) -> Option<Metrics> {
        self.get("/metrics").map(Metrics)
    }

    /// The answer of a path of its HTTP server.
    pub fn get(&self, path: &str) -> Option<String> {
        let said = self.said();
        let address = said.split_once("metrics on ")?.1.split_once("/metrics")?.0;
        http_text(address, "GET", path).ok()
    }

    /// Waits until it serves its metrics.
    pub fn ready(self) -> Self {
        clock::until(
            PATIENCE,
            || format!("not ready:\n{}", self.last_words()),
            || self.get("/readyz").filter(|states| !states.contains("starting")),
        );
        self
    }

    /// Asks it to end, as an operator does: once it is up, because before that a signal simply ends it.
    pub fn stop(self) -> (ExitStatus, String) {
        let up = || self.get("/healthz");
        clock::until(PATIENCE, || format!("not up:\n{}", self.last_words()), up);
        send(self.pid(), Signal::TERM);
        self.end()
    }

    /// The greatest resident memory it ever had.
    pub fn memory_peak_bytes(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a living process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }
}

impl Drop for Process {
    /// A test that failed leaves no process behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process.
pub fn send(pid: Pid, signal: Signal) {
    // It may have ended by itself; then that is what the test finds.
    let _ = kill_process(pid, signal);
}

fn tail(log: &PathBuf) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Metrics of one process at one time.
pub struct Metrics(String);

impl Metrics {
    /// The values of a metric, with the labels as they stand.
    pub fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.split_once("} ")?;
            Some((labels, value.parse().ok()?))
        })
    }
}
