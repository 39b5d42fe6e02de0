//! The servers of the laboratory: whoever is in it has them alone.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{clock, processes::send};

/// A server of the laboratory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    Kafka,
    Redis,
    Elasticsearch,
}

impl Server {
    pub fn name(self) -> &'static str {
        match self {
            Server::Kafka => "kafka",
            Server::Redis => "redis",
            Server::Elasticsearch => "elasticsearch",
        }
    }
}

/// Running servers, until it is dropped: then they may be another test's.
pub struct Laboratory {
    folder: PathBuf,
    pub kafka: String,
    pub redis: String,
    pub elasticsearch: String,
    _alone: File,
}

impl Laboratory {
    /// Waits for other tests to leave, and starts the servers that do not run.
    pub fn enter() -> Self {
        let said = script(&["env"]);
        let env: BTreeMap<&str, &str> =
            said.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('=')).collect();
        let folder = PathBuf::from(env["MILLRACE_LABORATORY"]);
        fs::create_dir_all(&folder).expect("a folder");
        let alone = File::create(folder.join("lock")).expect("a lock");
        alone.lock().expect("a lock");
        script(&["start"]);
        let url = |name: &str| env[name].to_owned();
        Laboratory {
            folder,
            kafka: url("KAFKA_BROKERS"),
            redis: url("REDIS_URL"),
            elasticsearch: url("ES_URL"),
            _alone: alone,
        }
    }

    fn pid(&self, server: Server) -> Option<Pid> {
        let file = self.folder.join(server.name()).join(format!("{}.pid", server.name()));
        let text = fs::read_to_string(file).ok()?;
        Pid::from_raw(text.split_whitespace().next()?.parse().ok()?)
    }

    /// Sends a signal to a server, at once.
    fn signal(&self, server: Server, signal: Signal) {
        let sent = self.pid(server).is_some_and(|pid| kill_process(pid, signal).is_ok());
        assert!(sent, "{} runs", server.name());
    }

    /// Starts a server that is down, and returns when it answers.
    pub fn start(&self, server: Server) {
        script(&["start", server.name()]);
    }

    /// Kills a server with -9, leaves it away for a while, and returns when it answers again.
    pub fn kill(&self, server: Server, away: Duration) {
        self.take_away(server);
        clock::pause(away);
        self.start(server);
    }

    /// Kills a server with -9; it is away until it is started.
    pub fn take_away(&self, server: Server) {
        let pid = self.pid(server).expect("a pid");
        self.signal(server, Signal::KILL);
        // A large process takes its time to die.
        clock::until(
            Duration::from_secs(30),
            || format!("{} lives", server.name()),
            || is_dead(pid).then_some(()),
        );
    }

    /// Stops a server for a while: its connections stay, and nothing answers.
    pub fn freeze(&self, server: Server, time: Duration) {
        self.signal(server, Signal::STOP);
        clock::pause(time);
        self.signal(server, Signal::CONT);
    }
}

impl Drop for Laboratory {
    /// A test that failed leaves no server stopped.
    fn drop(&mut self) {
        for server in [Server::Kafka, Server::Redis, Server::Elasticsearch] {
            if let Some(pid) = self.pid(server) {
                send(pid, Signal::CONT);
            }
        }
    }
}

/// Gone, or dead with all its threads and waiting for its parent to notice.
fn is_dead(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(") ").map_or_else(Vec::new, |(_, rest)| rest.split(' ').collect());
    let (state, threads) = (fields.first(), fields.get(17));
    state.is_none_or(|state| *state == "Z" && threads.is_some_and(|count| ["0", "1"].contains(count)))
}

/// What one of Kafka's own tools, a class and its arguments, says of the laboratory's Kafka.
pub fn kafka_tool(args: &[&str]) -> String {
    script(&[&["kafka"], args].concat())
}

fn script(args: &[&str]) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/laboratory");
    let output = Command::new(path).args(args).output().expect("scripts/laboratory runs");
    assert!(
        output.status.success(),
        "scripts/laboratory {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}
