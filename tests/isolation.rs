//! An isolated sink that is away: the other sinks of its pipeline go on, and it misses nothing. The real program,
//! embedded, with a receiver of webhooks that comes late.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::support::millrace::Millrace;

const EVENTS: usize = 300;
const PATIENCE: Duration = Duration::from_secs(60);

fn pipelines(port: u16) -> String {
    format!(
        r#"version: 1
brokers: {{ main: {{ kafka: {{ bootstrap: "localhost:9092" }} }} }}
stores: {{ views: {{ redis: {{ url: "redis://localhost:6379" }} }} }}
topics: {{ events: {{ broker: main, partitions: 2 }} }}
pipelines:
  p:
    from: {{ topic: events }}
    to:
      shown: {{ stdout: {{}} }}
      count: {{ counter: {{ store: views, key: "all" }} }}
      hook:
        webhook: {{ url: "http://127.0.0.1:{port}/", allow_http: true, allow_private: [127.0.0.1], secret: s, ledger: views }}
        isolated: true
        retry: {{ max: 200ms }}
        breaker: {{ open_for: 100ms, open_for_max: 200ms }}
"#
    )
}

fn id_of(json: &str) -> String {
    let event: serde_json::Value = serde_json::from_str(json).unwrap();
    event["eventId"].as_str().unwrap().to_owned()
}

/// Answers every request with 200 and tells its body.
fn receive(listener: &TcpListener, bodies: &mpsc::SyncSender<String>) {
    for stream in listener.incoming() {
        let (stream, bodies) = (stream.unwrap(), bodies.clone());
        thread::spawn(move || answer(&stream, &bodies));
    }
}

fn answer(mut stream: &TcpStream, bodies: &mpsc::SyncSender<String>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let lower = line.to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        bodies.send(String::from_utf8(body).unwrap()).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    }
}

#[test]
fn a_dead_receiver_stops_no_other_sink_and_misses_nothing() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let millrace = Millrace::new();
    millrace.write("pipelines.yaml", pipelines(port));
    let event = |n| format!(r#"{{"eventId":"e{n}","eventType":"a.b.c.v1","payload":{{"n":"{n}"}}}}"#);
    millrace.write("events.ndjson", (0..EVENTS).map(event).collect::<Vec<_>>().join("\n"));
    millrace.ok(&["topic", "create", "--all", "--embedded"]);
    millrace.ok(&["topic", "produce", "events", "--key", "eventId", "--file", "events.ndjson", "--embedded"]);
    let all: BTreeSet<String> = (0..EVENTS).map(|n| format!("e{n}")).collect();

    let run = ["run", "--embedded", "--listen", "off"];
    let mut child = millrace.command(&run).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (lines_in, lines) = mpsc::sync_channel(2 * EVENTS);
    let stdout = BufReader::new(child.stdout.take().unwrap());
    thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| lines_in.send(line)));
    let shown: BTreeSet<String> =
        (0..EVENTS).map(|_| id_of(&lines.recv_timeout(PATIENCE).expect("the other sinks go on"))).collect();
    assert_eq!(shown, all);
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    let (bodies_in, bodies) = mpsc::sync_channel(2 * EVENTS);
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    thread::spawn(move || receive(&listener, &bodies_in));
    let ran = millrace.ok(&["run", "--until-end", "--embedded", "--listen", "off"]);
    assert_eq!(ran.stdout, "", "the main lane was done");
    assert!(ran.stderr.contains("p/hook: 300 records"), "{ran:#?}");
    let sent: Vec<String> = bodies.try_iter().map(|body| id_of(&body)).collect();
    assert_eq!((sent.len(), sent.into_iter().collect::<BTreeSet<_>>()), (EVENTS, all), "each once");
}
