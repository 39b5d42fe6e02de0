//! `/metrics`, `/healthz` and `/readyz`.

use std::net::SocketAddr;

use axum::{
    Router, extract::State, http::StatusCode, http::header::CONTENT_TYPE, response::IntoResponse,
    routing::get,
};
use millrace_runtime::{Health, Metrics, PipelineState};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::report::Failure;

#[derive(Clone)]
struct Observed {
    metrics: Metrics,
    health: Health,
}

/// Serves until `shutdown`. Returns when the address is bound, with the address.
pub async fn serve(
    listen: &str,
    metrics: Metrics,
    health: Health,
    shutdown: CancellationToken,
) -> Result<SocketAddr, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::environment(format!("cannot listen on {listen}: {error}; choose another --listen, or 'off'"))
    };
    let listener = TcpListener::bind(listen).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let router = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(Observed { metrics, health });
    let serving = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned());
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the metrics server ended");
        }
    });
    Ok(address)
}

async fn metrics_text(State(observed): State<Observed>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], observed.metrics.render())
}

/// 200 when every pipeline runs, else 503; the states are in the body either way.
async fn ready(State(observed): State<Observed>) -> impl IntoResponse {
    let status = if observed.health.ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(CONTENT_TYPE, "application/json")], states(&observed.health).to_string())
}

/// The state of every pipeline as JSON.
fn states(health: &Health) -> Value {
    let mut pipelines = Map::new();
    for (name, state) in health.states() {
        let mut about = json!({ "state": state.name(), "reason": state.reason() });
        if let PipelineState::Paused(pause) = &state {
            about["by"] = pause.by.name().into();
            about["since_ms"] = pause.since_ms.into();
        }
        pipelines.insert(name.to_string(), about);
    }
    json!({ "pipelines": pipelines })
}
