//! Several processes on one folder: all of them append and read, one runs, and a dead one's lock is free.
//! This program is its own second process: with arguments it plays that part.
#![allow(clippy::print_stdout, reason = "a test program without the harness")]

use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
};

use millrace_core::{
    Broker, CreateOutcome, NewRecord, PartitionSpan, SourceEvent, Start, Subscription, TopicSpec,
};
use millrace_embedded::{AlreadyRunning, EmbeddedBroker, EmbeddedSettings};
use tokio::time::{Duration, timeout};

const PATIENCE: Duration = Duration::from_secs(60);
const RECORDS: i64 = 2_000;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--peer", "produce", folder, who] => produce(Path::new(folder), who).await,
        ["--peer", "endless", folder] => endless(Path::new(folder)).await,
        ["--peer", "hold", folder] => hold(Path::new(folder)),
        _ => {
            processes_append_side_by_side().await;
            println!("test processes_append_side_by_side ... ok");
            a_kill_loses_nothing_that_was_acknowledged().await;
            println!("test a_kill_loses_nothing_that_was_acknowledged ... ok");
            one_process_runs();
            println!("test one_process_runs ... ok");
        }
    }
}

fn broker(folder: &Path) -> EmbeddedBroker {
    EmbeddedBroker::new(EmbeddedSettings { dir: folder.to_owned() })
}

fn peer(arguments: &[&str]) -> Child {
    Command::new(env::current_exe().expect("this program"))
        .arg("--peer")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a second process")
}

/// Three processes append to one partition; a reader in this one sees all of it while it happens.
async fn processes_append_side_by_side() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().to_str().expect("a name");
    let mut peers: Vec<Child> = ["a", "b", "c"].iter().map(|who| peer(&["produce", dir, who])).collect();
    let broker = broker(folder.path());
    create(&broker).await;
    let subscription = Subscription {
        topic: "t".into(),
        group: None,
        partitions: None,
        start: Start::Beginning,
        prefetch_bytes_max: 1 << 20,
        batch_records_max: 100,
    };
    let mut source = broker.subscribe(subscription).await.expect("a source");
    let mut values: Vec<String> = Vec::new();
    let all = async {
        while i64::try_from(values.len()).expect("few") < 3 * RECORDS {
            if let Some(SourceEvent::Batch(batch)) = source.next().await.expect("an event") {
                for record in batch.records {
                    assert_eq!(record.offset, i64::try_from(values.len()).expect("few"), "no gap, no repeat");
                    values.push(String::from_utf8(record.value.expect("a value").to_vec()).expect("text"));
                }
            }
        }
    };
    timeout(PATIENCE, all).await.expect("all records come without a hint from their writers");
    for peer in &mut peers {
        assert!(peer.wait().expect("an end").success());
    }
    for who in ["a", "b", "c"] {
        let of: Vec<&String> = values.iter().filter(|value| value.starts_with(who)).collect();
        let expected: Vec<String> = (0..RECORDS).map(|n| format!("{who}{n}")).collect();
        assert_eq!(of, expected.iter().collect::<Vec<_>>(), "each process's order is kept");
    }
    let info = broker.admin().topic("t").await.expect("a look").expect("the topic");
    assert_eq!(info.partitions[&0], PartitionSpan { start: 0, end: 3 * RECORDS });
}

async fn create(broker: &EmbeddedBroker) {
    let spec = TopicSpec {
        name: "t".into(),
        partitions: 1,
        retention_ms: None,
        retention_bytes: None,
        record_bytes_max: 1 << 20,
        replication: None,
        compact: false,
    };
    let outcome = broker.admin().create_topic(&spec).await.expect("created, by whoever was first");
    assert!(matches!(outcome, CreateOutcome::Created | CreateOutcome::Exists { partitions: 1 }));
}

async fn produce(folder: &Path, who: &str) {
    let broker = broker(folder);
    create(&broker).await;
    let producer = broker.producer().await.expect("a producer");
    for start in (0..RECORDS).step_by(20) {
        let records = (start..start + 20)
            .map(|n| NewRecord { value: Some(format!("{who}{n}").into()), ..NewRecord::default() });
        for answer in producer.send("t", records.collect()).await {
            answer.expect("appended beside the others");
        }
    }
}

/// A process is killed in the middle of appending: what it had been told is there, without a gap.
async fn a_kill_loses_nothing_that_was_acknowledged() {
    const KILLED_AFTER: usize = 200;
    let folder = tempfile::tempdir().expect("a folder");
    let mut peer = peer(&["endless", folder.path().to_str().expect("a name")]);
    let mut told: i64 = 0;
    for line in BufReader::new(peer.stdout.take().expect("a pipe")).lines().take(KILLED_AFTER) {
        told = line.expect("a line").parse().expect("a number");
    }
    peer.kill().expect("killed");
    peer.wait().expect("dead");
    let broker = broker(folder.path());
    let info = broker.admin().topic("t").await.expect("a look").expect("the topic");
    let end = info.partitions[&0].end;
    assert!(end >= told, "{told} were acknowledged, {end} are there");
    let subscription = Subscription {
        topic: "t".into(),
        group: None,
        partitions: None,
        start: Start::Beginning,
        prefetch_bytes_max: 1 << 20,
        batch_records_max: 1_000,
    };
    let mut source = broker.subscribe(subscription).await.expect("a source");
    let mut next = 0;
    let all = async {
        while next < end {
            if let Some(SourceEvent::Batch(batch)) = source.next().await.expect("an event") {
                for record in batch.records {
                    let value = record.value.expect("a value");
                    assert_eq!((record.offset, &*value), (next, next.to_string().as_bytes()));
                    next += 1;
                }
            }
        }
    };
    timeout(PATIENCE, all).await.expect("all that is there can be read");
    let producer = broker.producer().await.expect("a producer");
    let answer = producer.send("t", vec![NewRecord::default()]).await.remove(0).expect("appended");
    assert_eq!(answer.offset, end, "appending goes on where it ended");
}

async fn endless(folder: &Path) {
    let broker = broker(folder);
    create(&broker).await;
    let producer = broker.producer().await.expect("a producer");
    let mut next = 0_i64;
    loop {
        let records =
            (next..next + 7).map(|n| NewRecord { value: Some(n.to_string().into()), ..NewRecord::default() });
        for answer in producer.send("t", records.collect()).await {
            next = answer.expect("appended").offset + 1;
        }
        println!("{next}");
    }
}

/// The second process is told the first one's pid; when the first is killed, the lock is free.
fn one_process_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = peer(&["hold", folder.path().to_str().expect("a name")]);
    let mut line = String::new();
    BufReader::new(first.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("a line");
    assert_eq!(line, "held\n");
    let broker = broker(folder.path());
    let error = broker.run_lock().expect_err("the first one holds it");
    assert!(error.to_string().contains(&format!("process {} runs", first.id())), "{error}");
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<AlreadyRunning>());
    assert_eq!(source, Some(&AlreadyRunning { pid: Some(first.id()) }));
    first.kill().expect("killed");
    first.wait().expect("dead");
    broker.run_lock().expect("a dead process holds nothing");
}

fn hold(folder: &Path) {
    let _lock = broker(folder).run_lock().expect("the lock is free");
    println!("held");
    // Until killed, or until the parent is gone.
    let _ = std::io::stdin().read(&mut [0]);
}
