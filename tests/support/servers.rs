//! What a reader of the results sees, asked without any of Millrace's code: Redis and Elasticsearch by their
//! protocols, the embedded views by SQL.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;

/// The end state as readers see it.
pub trait World {
    /// Post and score, newest first, at most 800.
    fn feed(&mut self, user: &str) -> Vec<(String, i64)>;
    /// The summary of a post.
    fn post(&mut self, id: &str) -> Option<Value>;
    /// The unread counter.
    fn unread(&mut self, user: &str) -> Option<i64>;
    /// Every document that the readers of an index see, by id.
    fn index(&mut self, index: &str) -> BTreeMap<String, Value>;
}

/// An address that the tests need; they fail without it and never skip.
pub fn required(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run scripts/test, or: eval \"$(scripts/services env)\"")
    })
}

/// Redis and Elasticsearch.
pub struct Servers {
    redis: redis::Connection,
    elasticsearch: String,
    prefix: String,
}

impl Servers {
    /// `prefix` is what the test's indexes begin with.
    pub fn connect(redis_url: &str, elasticsearch: &str, prefix: &str) -> Self {
        let redis =
            redis::Client::open(redis_url).and_then(|client| client.get_connection()).expect("redis answers");
        Servers { redis, elasticsearch: elasticsearch.to_owned(), prefix: prefix.to_owned() }
    }

    /// An empty database.
    pub fn flush(&mut self) {
        redis::cmd("FLUSHDB").exec(&mut self.redis).expect("redis answers");
    }
}

impl World for Servers {
    fn feed(&mut self, user: &str) -> Vec<(String, i64)> {
        let mut command = redis::cmd("ZREVRANGE");
        command.arg(format!("feed:{user}")).arg(0).arg(799).arg("WITHSCORES");
        let entries: Vec<(String, f64)> = command.query(&mut self.redis).expect("a sorted set");
        entries.into_iter().map(|(post, score)| (post, score as i64)).collect()
    }

    fn post(&mut self, id: &str) -> Option<Value> {
        let text: Option<String> =
            redis::cmd("GET").arg(format!("post:{id}")).query(&mut self.redis).expect("a string");
        text.map(|text| serde_json::from_str(&text).expect("JSON"))
    }

    fn unread(&mut self, user: &str) -> Option<i64> {
        redis::cmd("GET").arg(format!("unread:{user}")).query(&mut self.redis).expect("a number")
    }

    fn index(&mut self, index: &str) -> BTreeMap<String, Value> {
        let index = format!("{}{index}", self.prefix);
        http(&self.elasticsearch, "POST", &format!("/{index}/_refresh"));
        let mut found = BTreeMap::new();
        let mut page =
            http(&self.elasticsearch, "POST", &format!("/{index}/_search?size=5000&scroll=1m&sort=_doc"));
        loop {
            let hits = page["hits"]["hits"]
                .as_array()
                .unwrap_or_else(|| panic!("no hits: {}", page["error"]["reason"]));
            if hits.is_empty() {
                return found;
            }
            found.extend(
                hits.iter()
                    .map(|hit| (hit["_id"].as_str().expect("an id").to_owned(), hit["_source"].clone())),
            );
            let next = page["_scroll_id"].as_str().expect("a scroll").to_owned();
            page = http(&self.elasticsearch, "POST", &format!("/_search/scroll?scroll=1m&scroll_id={next}"));
        }
    }
}

/// One HTTP request, answered with JSON.
pub fn http(base: &str, method: &str, path: &str) -> Value {
    let body = http_text(base, method, path).expect("the server answers");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// One HTTP request, answered with text, whatever the status.
pub fn http_text(base: &str, method: &str, path: &str) -> io::Result<String> {
    http_with(base, method, path, "")
}

/// One HTTP request with JSON, answered with text, whatever the status.
pub fn http_with(base: &str, method: &str, path: &str, json: &str) -> io::Result<String> {
    let host = base.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
        json.len()
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let (head, body) = (String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase(), &answer[end + 4..]);
    let body = if head.contains("transfer-encoding: chunked") { unchunked(body) } else { body.to_vec() };
    String::from_utf8(body).map_err(io::Error::other)
}

/// A body without its chunks' sizes.
fn unchunked(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunks.windows(2).position(|two| two == b"\r\n") {
        let size = String::from_utf8_lossy(&chunks[..end]);
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
        if size == 0 {
            break;
        }
        body.extend_from_slice(&chunks[end + 2..end + 2 + size]);
        chunks = &chunks[end + 2 + size + 2..];
    }
    body
}

/// The embedded views of a folder.
pub struct Embedded {
    views: rusqlite::Connection,
}

impl Embedded {
    pub fn open(folder: &Path) -> Self {
        Embedded { views: rusqlite::Connection::open(folder.join("views.db")).expect("the views") }
    }

    fn one<T: rusqlite::types::FromSql>(&self, sql: &str, key: &str) -> Option<T> {
        use rusqlite::OptionalExtension;
        self.views.query_row(sql, [key], |row| row.get(0)).optional().expect("a query")
    }
}

impl World for Embedded {
    fn feed(&mut self, user: &str) -> Vec<(String, i64)> {
        let sql =
            "SELECT member, score FROM timelines WHERE key = ?1 ORDER BY score DESC, member DESC LIMIT 800";
        let mut statement = self.views.prepare(sql).expect("a query");
        let rows = statement.query_map([format!("feed:{user}")], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, f64>(1)? as i64))
        });
        rows.expect("rows").map(|row| row.expect("a row")).collect()
    }

    fn post(&mut self, id: &str) -> Option<Value> {
        let json: Option<Option<String>> =
            self.one("SELECT json FROM documents WHERE key = ?1 AND NOT deleted", &format!("post:{id}"));
        json.flatten().map(|json| serde_json::from_str(&json).expect("JSON"))
    }

    fn unread(&mut self, user: &str) -> Option<i64> {
        self.one("SELECT value FROM counters WHERE key = ?1", &format!("unread:{user}"))
    }

    fn index(&mut self, index: &str) -> BTreeMap<String, Value> {
        let mut statement =
            self.views.prepare(&format!("SELECT id, json FROM \"{index}\"")).expect("the view");
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
        rows.expect("rows")
            .map(|row| row.expect("a row"))
            .map(|(id, json)| (id, serde_json::from_str(&json).expect("JSON")))
            .collect()
    }
}
