//! What a reader of the results sees, asked without any of Millrace's code: Redis and Elasticsearch by their
//! protocols, the embedded views by SQL.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
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
        let found = http(&self.elasticsearch, "GET", &format!("/{index}/_search?size=10000"));
        let hits = found["hits"]["hits"]
            .as_array()
            .unwrap_or_else(|| panic!("no hits: {}", found["error"]["reason"]));
        assert!(hits.len() < 10_000, "the test reads one page");
        hits.iter()
            .map(|hit| (hit["_id"].as_str().expect("an id").to_owned(), hit["_source"].clone()))
            .collect()
    }
}

/// One HTTP request, answered with JSON.
pub fn http(base: &str, method: &str, path: &str) -> Value {
    let host = base.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(host).expect("the server answers");
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    .expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a header");
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunked(body) } else { body.to_owned() };
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// A body without its chunks' sizes.
fn unchunked(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
        if size == 0 {
            break;
        }
        body.push_str(&rest[..size]);
        chunks = rest[size..].trim_start_matches("\r\n");
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
