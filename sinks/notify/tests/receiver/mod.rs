//! A receiver of webhooks that answers as a test wants, and a ledger in memory whose time a test moves.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, Response},
};
use futures::StreamExt;
use millrace_core::{Claim, EffectIdentity, Error, Ledger, Result};
use tokio::{
    sync::{Notify, Semaphore},
    time::Duration,
};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What the receiver does with it.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    /// Status, and a body.
    Status(u16),
    /// A redirect to `/elsewhere`.
    Redirect(u16),
    /// 200, and a body that never ends.
    Endless,
    /// 200, once the test opens the gate.
    Gate,
    /// No answer at all.
    Hang,
}

pub struct Receiver {
    pub port: u16,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    seen: Mutex<Vec<Seen>>,
    arrived: Semaphore,
    gate: Semaphore,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

impl Receiver {
    /// Serves until the test ends.
    pub async fn start(respond: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            seen: Mutex::default(),
            arrived: Semaphore::new(0),
            gate: Semaphore::new(0),
            in_flight: AtomicUsize::new(0),
            in_flight_max: AtomicUsize::new(0),
        });
        let (respond, shared) = (Arc::new(respond), state.clone());
        let app = Router::new().fallback(move |request: Request| {
            let (respond, state) = (respond.clone(), shared.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 16 << 20).await.unwrap();
                let seen = Seen { path: parts.uri.to_string(), headers: parts.headers, body };
                let reply = respond(&seen);
                state.seen.lock().unwrap().push(seen);
                let in_flight = state.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
                state.in_flight_max.fetch_max(in_flight, Ordering::SeqCst);
                state.arrived.add_permits(1);
                let answer = answer(reply, &state.gate).await;
                state.in_flight.fetch_sub(1, Ordering::SeqCst);
                answer
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Receiver { port, state }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Until a request has arrived that was not waited for yet.
    pub async fn arrival(&self) {
        self.state.arrived.acquire().await.unwrap().forget();
    }

    /// Lets this many requests through the gate.
    pub fn open_gate(&self, requests: usize) {
        self.state.gate.add_permits(requests);
    }

    /// The most requests that were being answered at one time.
    pub fn in_flight_max(&self) -> usize {
        self.state.in_flight_max.load(Ordering::SeqCst)
    }
}

async fn answer(reply: Reply, gate: &Semaphore) -> Response<Body> {
    match reply {
        Reply::Status(status) => Response::builder().status(status).body(Body::from("{}")).unwrap(),
        Reply::Redirect(status) => {
            Response::builder().status(status).header("location", "/elsewhere").body(Body::empty()).unwrap()
        }
        Reply::Endless => {
            let chunk = Bytes::from(vec![b'x'; 16 * 1024]);
            let endless = futures::stream::repeat(chunk).map(Ok::<_, std::io::Error>);
            Response::new(Body::from_stream(endless))
        }
        Reply::Gate => {
            gate.acquire().await.unwrap().forget();
            Response::new(Body::empty())
        }
        Reply::Hang => std::future::pending().await,
    }
}

/// A ledger in memory. Its clock stands until a test moves it.
#[derive(Default)]
pub struct MemoryLedger {
    entries: Mutex<HashMap<String, Entry>>,
    now_ms: AtomicU64,
    /// Whether `done` fails.
    pub forgets: AtomicBool,
    done: Notify,
}

#[derive(Clone, Copy, PartialEq)]
enum Entry {
    HeldUntil(u64),
    Done,
}

impl MemoryLedger {
    pub fn advance(&self, by: Duration) {
        self.now_ms.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Until something was marked as done that was not waited for yet.
    pub async fn marked(&self) {
        self.done.notified().await;
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn claim(&self, identities: &[EffectIdentity], hold: Duration) -> Result<Vec<Claim>> {
        let now_ms = self.now_ms.load(Ordering::SeqCst);
        let until_ms = now_ms + u64::try_from(hold.as_millis()).unwrap();
        let mut entries = self.entries.lock().unwrap();
        let claims = identities.iter().map(|identity| match entries.get(identity.as_str()) {
            Some(Entry::Done) => Claim::Done,
            Some(Entry::HeldUntil(until_ms)) if *until_ms > now_ms => Claim::Held,
            _ => {
                entries.insert(identity.as_str().to_owned(), Entry::HeldUntil(until_ms));
                Claim::Granted
            }
        });
        Ok(claims.collect())
    }

    async fn done(&self, identities: &[EffectIdentity]) -> Result<()> {
        if self.forgets.load(Ordering::SeqCst) {
            return Err(Error::retry("ledger", "is away"));
        }
        let mut entries = self.entries.lock().unwrap();
        entries.extend(identities.iter().map(|identity| (identity.as_str().to_owned(), Entry::Done)));
        drop(entries);
        self.done.notify_one();
        Ok(())
    }

    async fn release(&self, identities: &[EffectIdentity]) -> Result<()> {
        let mut entries = self.entries.lock().unwrap();
        for identity in identities {
            entries.remove(identity.as_str());
        }
        Ok(())
    }
}
