//! A proxy before Elasticsearch that answers as an overloaded one does: it refuses with 429, takes half of a bulk, or
//! does what it was asked and loses the answer.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use serde_json::{Value, json};

/// What it does with writes. Everything else passes.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Mood {
    Fair,
    /// 429 for every request.
    Refuses,
    /// 429 for every other item of a bulk; the others are written.
    TakesHalf,
    /// The bulk is written and the connection closed without an answer.
    LosesAnswers,
}

/// Running until its process ends.
#[derive(Clone)]
pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    server: String,
    mood: AtomicU8,
    /// Requests that did not pass as they were.
    spoiled: AtomicU64,
}

struct Request {
    /// The first line and the headers that matter.
    head: String,
    body: Vec<u8>,
}

impl Proxy {
    /// Listens on a free port, before the server of this URL.
    pub fn before(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let shared = Arc::new(Shared {
            server: url.trim_start_matches("http://").to_owned(),
            mood: AtomicU8::new(Mood::Fair as u8),
            spoiled: AtomicU64::new(0),
        });
        let proxy = Proxy {
            url: format!("http://{}", listener.local_addr().expect("an address")),
            shared: shared.clone(),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                // A client that goes away ends its thread.
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        proxy
    }

    pub fn set(&self, mood: Mood) {
        self.shared.mood.store(mood as u8, Ordering::Relaxed);
    }

    pub fn spoiled(&self) -> u64 {
        self.shared.spoiled.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        while let Some(request) = Request::read(&mut reader)? {
            let mood = self.mood.load(Ordering::Relaxed);
            let bulk = request.head.lines().next().is_some_and(|line| line.contains("/_bulk"));
            let spoil = mood == Mood::Refuses as u8 || (bulk && mood != Mood::Fair as u8);
            self.spoiled.fetch_add(u64::from(spoil), Ordering::Relaxed);
            let answer = if !spoil {
                self.pass(&request)?
            } else if mood == Mood::Refuses as u8 {
                answer(429, &json!({ "error": rejected(), "status": 429 }))
            } else if mood == Mood::TakesHalf as u8 {
                self.half(&request)?
            } else {
                self.pass(&request)?;
                return Ok(());
            };
            (&mut &*stream).write_all(&answer)?;
        }
        Ok(())
    }

    /// The server's whole answer.
    fn pass(&self, request: &Request) -> io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(&self.server)?;
        write!(
            server,
            "{}Host: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            request.head,
            self.server,
            request.body.len()
        )?;
        server.write_all(&request.body)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        // The server closes its connection; ours to the client stays.
        let end = head_end(&answer)?;
        let head = String::from_utf8_lossy(&answer[..end])
            .replace("Connection: close\r\n", "")
            .replace("connection: close\r\n", "");
        Ok([head.as_bytes(), &answer[end..]].concat())
    }

    /// Every other item is written.
    fn half(&self, request: &Request) -> io::Result<Vec<u8>> {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        let mut lines = text.lines();
        let (mut kept, mut actions) = (String::new(), Vec::new());
        while let Some(action) = lines.next() {
            let parsed: Value = serde_json::from_str(action).map_err(io::Error::other)?;
            let document = if parsed.get("delete").is_some() { "" } else { lines.next().unwrap_or_default() };
            if actions.len() % 2 == 0 {
                kept.push_str(action);
                kept.push('\n');
                if !document.is_empty() {
                    kept.push_str(document);
                    kept.push('\n');
                }
            }
            actions.push(parsed);
        }
        let passed = self.pass(&Request { head: request.head.clone(), body: kept.into_bytes() })?;
        let body = &passed[head_end(&passed)?..];
        let mut whole: Value = serde_json::from_slice(body).map_err(io::Error::other)?;
        let mut written = whole["items"].as_array().cloned().unwrap_or_default().into_iter();
        let items = actions.iter().enumerate().map(|(index, action)| {
            if index % 2 == 0 {
                return written.next().unwrap_or_default();
            }
            let (verb, what) = action.as_object().and_then(|action| action.iter().next()).expect("an action");
            let refused =
                json!({ "_index": what["_index"], "_id": what["_id"], "status": 429, "error": rejected() });
            json!({ verb.as_str(): refused })
        });
        whole["items"] = items.collect();
        whole["errors"] = json!(true);
        Ok(answer(200, &whole))
    }
}

impl Request {
    /// The next request of a connection; None at its end.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let lower = line.to_ascii_lowercase();
            match lower.split_once(':').map(|(name, value)| (name, value.trim())) {
                Some(("content-length", value)) => length = value.parse().map_err(io::Error::other)?,
                Some(("host" | "connection" | "accept-encoding", _)) => {}
                _ if line == "\r\n" => break,
                _ => head.push_str(&line),
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Some(Request { head, body }))
    }
}

fn head_end(answer: &[u8]) -> io::Result<usize> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    end.map(|end| end + 4).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn rejected() -> Value {
    json!({ "type": "es_rejected_execution_exception", "reason": "rejected execution of coordinating operation" })
}

fn answer(status: u16, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status} Answer\r\nContent-Type: application/json\r\nX-elastic-product: Elasticsearch\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
