//! A small HTTP server that answers as a test wants, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, Response},
};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

/// What the server does with it.
pub enum Reply {
    /// Status and body.
    Json(u16, String),
    /// An answer that announces this many bytes and never sends them.
    Endless(u64),
    /// No answer at all.
    Hang,
}

pub struct Fake {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Seen {
    pub fn is_bulk(&self) -> bool {
        self.path.contains("/_bulk")
    }

    /// Ids asked for in a read.
    pub fn ids(&self) -> Vec<String> {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        body["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    /// Items of a bulk request.
    pub fn items(&self) -> usize {
        self.body.lines().count() / 2
    }
}

impl Fake {
    /// Serves until the test ends.
    pub async fn start(respond: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (respond, memory) = (Arc::new(respond), seen.clone());
        let app = Router::new().fallback(move |request: Request| {
            let (respond, memory) = (respond.clone(), memory.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
                let seen = Seen {
                    path: parts.uri.to_string(),
                    headers: parts.headers,
                    body: String::from_utf8_lossy(&body).into_owned(),
                };
                memory.lock().unwrap().push(seen.clone());
                answer(respond(&seen)).await
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Fake { url, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(reply: Reply) -> Response<Body> {
    let json = |status: u16| Response::builder().status(status).header("content-type", "application/json");
    match reply {
        Reply::Json(status, body) => json(status).body(Body::from(body)).unwrap(),
        Reply::Endless(bytes) => {
            let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
            json(200).header("content-length", bytes).body(Body::from_stream(never)).unwrap()
        }
        Reply::Hang => std::future::pending().await,
    }
}

/// A bulk answer with these statuses.
pub fn items(statuses: impl IntoIterator<Item = u16>) -> Reply {
    let items: Vec<String> = statuses
        .into_iter()
        .map(|status| match status {
            200..300 => format!(r#"{{"index":{{"status":{status}}}}}"#),
            _ => format!(
                r#"{{"create":{{"status":{status},"error":{{"type":"some_exception","reason":"why"}}}}}}"#
            ),
        })
        .collect();
    Reply::Json(200, format!(r#"{{"items":[{}]}}"#, items.join(",")))
}

/// A read that finds nothing.
pub fn absent(seen: &Seen) -> Reply {
    let docs: Vec<String> =
        seen.ids().iter().map(|id| format!(r#"{{"_id":"{id}","found":false}}"#)).collect();
    Reply::Json(200, format!(r#"{{"docs":[{}]}}"#, docs.join(",")))
}
