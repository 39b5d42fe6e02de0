//! Lines reach their topic once and in order, or wait in the spool, whatever broker, input, disk and process do;
//! and every command says so when the broker is away.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use crate::support::{millrace::Millrace, proxy::Proxy, servers::required};

/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:9";
const TAIL: [&str; 6] = ["topic", "tail", "lines", "--from", "beginning", "--until-end"];

/// A spool on the embedded log while that is held, and when all must arrive however slow the disk is.
const SOON: [&str; 5] = ["--embedded", "--spool", "waiting", "--append-timeout", "100ms"];
const PATIENT: [&str; 5] = ["--embedded", "--spool", "waiting", "--append-timeout", "1m"];

/// A broker that is waited for only a second, and a topic of one partition, so that there is an order to keep.
fn stage(bootstrap: &str, topic: &str) -> Millrace {
    let millrace = Millrace::new().env("MILLRACE_LOG", "off");
    let yaml = format!(
        "version: 1
brokers:
  main: {{ kafka: {{ bootstrap: \"{bootstrap}\", request_timeout: 1s }} }}
topics:
  {topic}: {{ broker: main, partitions: 1 }}
pipelines:
  echo:
    from: {{ topic: {topic}, format: bytes }}
    to: {{ out: {{ stdout: {{}} }} }}
"
    );
    millrace.write("pipelines.yaml", yaml);
    millrace
}

fn embedded() -> Millrace {
    let millrace = stage(NOWHERE, "lines");
    millrace.ok(&["topic", "create", "lines", "--embedded"]);
    millrace
}

fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| format!("line {number}\n")).collect()
}

fn tail(millrace: &Millrace) -> String {
    millrace.ok(&[&TAIL[..], &["--embedded"]].concat()).stdout
}

/// Holds the embedded log as a process that hangs inside a transaction would.
fn hold(millrace: &Millrace) -> rusqlite::Connection {
    let log = rusqlite::Connection::open(millrace.path().join(".millrace/log.db")).unwrap();
    log.execute_batch("BEGIN IMMEDIATE").unwrap();
    log
}

fn start(millrace: &Millrace, args: &[&str]) -> (Child, ChildStdin) {
    let mut command = millrace.command(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let input = child.stdin.take().unwrap();
    (child, input)
}

/// Reads what the process says up to the line with `words`.
fn wait_for(said: &mut impl BufRead, words: &str) {
    let mut all = String::new();
    while !all.contains(words) {
        assert!(said.read_line(&mut all).unwrap() > 0, "never said '{words}': {all}");
    }
}

/// How many records lie in the spool, seen from outside.
fn spooled(folder: &Path) -> usize {
    let count = || {
        let spool = rusqlite::Connection::open(folder.join("spool.db")).ok()?;
        spool.query_row("SELECT count(*) FROM records", (), |row| row.get::<_, u32>(0)).ok()
    };
    count().unwrap_or(0) as usize
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    assert!((0..1_000_000).any(|_| done()), "never: {what}");
}

#[test]
fn a_slow_input_is_produced_line_by_line() {
    let millrace = embedded();
    let (mut child, mut input) =
        start(&millrace, &["topic", "produce", "lines", "--embedded", "--file", "-"]);
    for number in 0..3 {
        input.write_all(lines(number..number + 1).as_bytes()).unwrap();
        until("the line is there while the input is open", || tail(&millrace) == lines(0..number + 1));
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn lines_wait_in_the_spool_while_the_embedded_log_is_held() {
    let millrace = embedded();
    let log = hold(&millrace);
    millrace.write("a.ndjson", lines(0..3));
    millrace.write("b.ndjson", lines(3..2_500));
    let produce =
        |file, spool: &[&'static str]| [&["topic", "produce", "lines", "--file", file], spool].concat();
    for (file, waiting) in [("a.ndjson", "3"), ("b.ndjson", "2,500")] {
        let ran = millrace.run(&produce(file, &SOON));
        assert_eq!(ran.code, Some(3), "{ran:#?}");
        let said = format!(
            "{waiting} records wait in waiting; 'millrace topic produce lines --spool waiting --drain'"
        );
        assert!(ran.stderr.contains(&said), "{ran:#?}");
    }
    drop(log);
    // What waits goes first.
    millrace.write("c.ndjson", lines(2_500..2_600));
    let ran = millrace.ok(&produce("c.ndjson", &PATIENT));
    assert!(ran.stderr.contains("2,600 records produced to lines"), "{ran:#?}");
    assert_eq!(tail(&millrace), lines(0..2_600));
    let drained = millrace.ok(&[&["topic", "produce", "lines", "--drain", "--json"], &PATIENT[..]].concat());
    assert!(
        drained.stdout.contains(r#""produced":0"#) && drained.stdout.contains(r#""waiting":0"#),
        "{drained:#?}"
    );
}

#[test]
fn a_killed_process_leaves_every_line_it_took() {
    let millrace = embedded();
    let log = hold(&millrace);
    let produce = [&["topic", "produce", "lines", "--file", "-"], &SOON[..]].concat();
    let (mut child, mut input) = start(&millrace, &produce);
    for number in 0..5 {
        input.write_all(lines(number..number + 1).as_bytes()).unwrap();
        until("the line is in the spool", || spooled(&millrace.path().join("waiting")) == number + 1);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(log);
    millrace.ok(&[&["topic", "produce", "lines", "--drain"], &PATIENT[..]].concat());
    let arrived = tail(&millrace);
    // The append that was under way when the process was killed may be there twice.
    let mut distinct: Vec<&str> = Vec::new();
    for line in arrived.lines() {
        if !distinct.contains(&line) {
            distinct.push(line);
        }
    }
    assert_eq!(distinct, lines(0..5).lines().collect::<Vec<_>>(), "{arrived}");
}

#[test]
fn a_full_spool_refuses_and_names_the_first_line_it_did_not_take() {
    let millrace = embedded();
    let log = hold(&millrace);
    let long = "x".repeat(10_000);
    let many: String = (0..1_000).map(|number| format!("{number} {long}\n")).collect();
    millrace.write("many.ndjson", &many);
    let spool = [&SOON[..], &["--spool-bytes-max", "6MiB"]].concat();
    let produce = [&["topic", "produce", "lines", "--file", "many.ndjson"], &spool[..]].concat();
    let ran = millrace.run(&produce);
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    assert!(ran.stderr.contains("the spool is full and the broker away"), "{ran:#?}");
    let kept = spooled(&millrace.path().join("waiting"));
    assert!((500..700).contains(&kept), "{kept}");
    let first = format!("many.ndjson:{} and what follows was not taken", kept + 1);
    assert!(ran.stderr.contains(&first), "{ran:#?}");
    drop(log);
    millrace.ok(&[&["topic", "produce", "lines", "--drain"], &PATIENT[..]].concat());
    assert_eq!(tail(&millrace), many.lines().take(kept).map(|line| format!("{line}\n")).collect::<String>());
}

#[test]
fn a_full_disk_ends_with_three_and_keeps_what_was_taken() {
    let millrace = embedded();
    let log = hold(&millrace);
    let long = "x".repeat(1_000);
    let many: String = (0..20_000).map(|number| format!("{number} {long}\n")).collect();
    millrace.write("many.ndjson", &many);
    let produce = [&["topic", "produce", "lines", "--file", "many.ndjson"], &SOON[..]].concat();
    let whole = millrace.command(&produce);
    // The largest file allowed is 4 MiB, and the signal that would end the process is ignored.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 8192; exec \"$0\" \"$@\""]);
    limited.arg(whole.get_program()).args(whole.get_args()).current_dir(millrace.path()).stdin(Stdio::null());
    let output = limited.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("spool waiting: the disk "), "{stderr}");
    let kept = spooled(&millrace.path().join("waiting"));
    assert!(
        kept > 0 && stderr.contains(&format!("many.ndjson:{} and what follows was not taken", kept + 1)),
        "{stderr}"
    );
    drop(log);
    millrace.ok(&[&["topic", "produce", "lines", "--drain"], &PATIENT[..]].concat());
    assert_eq!(tail(&millrace), many.lines().take(kept).map(|line| format!("{line}\n")).collect::<String>());
}

#[test]
fn a_record_that_the_broker_refuses_is_kept_beside_the_spool() {
    let millrace = embedded();
    let log = hold(&millrace);
    // Longer than the topic allows, which the file claims to be larger than it is.
    let yaml = std::fs::read_to_string(millrace.path().join("pipelines.yaml")).unwrap();
    millrace.write("pipelines.yaml", yaml.replace("partitions: 1", "partitions: 1, max_record_bytes: 4MiB"));
    let long = "x".repeat(2 << 20);
    millrace.write("a.ndjson", format!("line 0\n{long}\nline 1\n"));
    let ran = millrace.run(&[&["topic", "produce", "lines", "--file", "a.ndjson"], &SOON[..]].concat());
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    drop(log);
    let ran = millrace.run(&[&["topic", "produce", "lines", "--drain"], &PATIENT[..]].concat());
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(
        ran.stderr.contains("a.ndjson:2: ") && ran.stderr.contains("kept in waiting/refused.ndjson"),
        "{ran:#?}"
    );
    assert_eq!(
        std::fs::read_to_string(millrace.path().join("waiting/refused.ndjson")).unwrap(),
        format!("{long}\n")
    );
    assert_eq!(tail(&millrace), lines(0..2));
}

#[test]
fn a_spool_is_for_one_topic_and_one_process() {
    let millrace = stage(NOWHERE, "lines");
    millrace.write("a.ndjson", lines(0..1));
    let spool = ["--spool", "waiting", "--append-timeout", "100ms"];
    let ran = millrace.run(&[&["topic", "produce", "lines", "--file", "a.ndjson"], &spool[..]].concat());
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    assert!(ran.stderr.contains("the broker is away, 1 record waits in the spool"), "{ran:#?}");
    let other = [&["topic", "produce", "lines.dlq", "--drain"], &spool[..]].concat();
    let ran = millrace.run(&other);
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(ran.stderr.contains("records wait in it for topic lines"), "{ran:#?}");
    let small = [&other[..], &["--spool-bytes-max", "1MiB"]].concat();
    assert_eq!(millrace.run(&small).code, Some(2));
    let (mut child, input) =
        start(&millrace, &[&["topic", "produce", "lines", "--file", "-"], &spool[..]].concat());
    let mut said = BufReader::new(child.stderr.take().unwrap());
    wait_for(&mut said, "lines go to the spool, where 1 wait");
    let ran = millrace.run(&[&["topic", "produce", "lines", "--drain"], &spool[..]].concat());
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    assert!(ran.stderr.contains(&format!("process {} uses it", child.id())), "{ran:#?}");
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn lines_outlive_an_outage_of_kafka_in_order() {
    let kafka = required("KAFKA_BROKERS");
    let proxy = Proxy::start(&kafka);
    let topic = format!("outage-{}", std::process::id());
    let millrace = stage(proxy.address(), &topic);
    let direct = stage(&kafka, &topic);
    direct.ok(&["topic", "create", &topic]);
    let read = || direct.ok(&["topic", "tail", &topic, "--from", "beginning", "--until-end"]).stdout;
    let produce = ["topic", "produce", &topic, "--file", "-", "--spool", "waiting"];
    let (mut child, mut input) = start(&millrace, &produce);
    input.write_all(lines(0..10).as_bytes()).unwrap();
    until("the first lines arrive", || read().lines().count() == 10);
    proxy.go_away();
    input.write_all(lines(10..20).as_bytes()).unwrap();
    input.write_all(lines(20..3_000).as_bytes()).unwrap();
    let waiting = millrace.path().join("waiting");
    until("all lines are in the spool", || spooled(&waiting) >= 2_990);
    proxy.come_back();
    until("what waits is sent", || spooled(&waiting) == 0);
    input.write_all(lines(3_000..3_010).as_bytes()).unwrap();
    drop(input);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    for words in ["lines go to the spool", "the broker answers", "3,010 records produced"] {
        assert!(said.contains(words), "{said}");
    }
    let mut arrived: Vec<String> = read().lines().map(str::to_owned).collect();
    // A batch that was cut off may come again, as a whole and at once.
    let mut seen = std::collections::HashSet::new();
    arrived.retain(|line| seen.insert(line.clone()));
    assert_eq!(arrived.join("\n") + "\n", lines(0..3_010));
}

#[test]
fn commands_say_that_the_broker_is_away_and_end_with_three() {
    let millrace = stage(NOWHERE, "lines");
    millrace.write("a.ndjson", lines(0..1));
    let commands: [&[&str]; 6] = [
        &["topic", "create", "lines"],
        &["topic", "list"],
        &TAIL,
        &["topic", "produce", "lines", "--file", "a.ndjson"],
        &["topic", "produce", "lines", "--file", "a.ndjson", "--append-timeout", "100ms"],
        &["doctor", "--timeout-ms", "3000"],
    ];
    for command in commands {
        let ran = millrace.run(command);
        assert_eq!(ran.code, Some(3), "{ran:#?}");
        let all = format!("{}{}", ran.stdout, ran.stderr);
        let known = ["main: cannot ", "the broker does not answer within 100 ms"];
        assert!(known.iter().any(|words| all.contains(words)), "{ran:#?}");
    }
}

#[test]
fn run_waits_for_a_broker_that_is_away_and_says_so() {
    let millrace = stage(NOWHERE, "lines");
    let mut command = millrace.command(&["run", "--listen", "127.0.0.1:0"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let address = line.trim().rsplit("http://").next().unwrap().trim_end_matches("/metrics").to_owned();
    until("readyz says why", || {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.starts_with("HTTP/1.1 503") && answer.contains("retrying") && answer.contains("kafka main")
    });
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
