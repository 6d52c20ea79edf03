//! Liveness, readiness and metrics of the process.
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use leasehold::Error;
use leasehold::files::FileStore;
use leasehold::metrics::CONTENT_TYPE as METRICS_TYPE;
use leasehold::store::Standing;
use serde_json::json;

use super::Answer;
use crate::error::{Code, Problem};
use crate::state::Api;

/// How long a probe waits for Redis.
const PATIENCE: Duration = Duration::from_secs(5);

/// `GET /livez`: the process runs.
pub async fn live() -> impl IntoResponse {
    Json(json!({ "status": "live" }))
}

/// `GET /readyz`: Redis answers and accepts new jobs, and this process is not shutting down.
pub async fn ready(State(api): State<Api>) -> Answer {
    if api.stopping().is_cancelled() {
        return Err(Problem::new(Code::ShuttingDown, "this replica is shutting down; use another"));
    }
    let store = api.store_now()?;
    let late = || Error::Unavailable(format!("no answer within {} s", PATIENCE.as_secs()));
    let looks = async { Ok((store.standing().await?, store.emptied_at().await?)) };
    let looked = tokio::time::timeout(PATIENCE, looks).await.unwrap_or_else(|_| Err(late()));
    let (standing, emptied_at) = looked.map_err(|e| Problem::new(Code::Unavailable, e.to_string()))?;
    // Settings that have changed, or a master that took over, while this process ran: a start would be refused.
    let faults = store.fatal_faults();
    if !faults.is_empty() {
        return Err(Problem::new(Code::Unavailable, format!("no new jobs are accepted: {}", faults.join("; "))));
    }
    match standing {
        Standing::Ready => {
            let mut answer = json!({ "status": "ready", "redis": store.address(), "durability": store.durability() });
            // Redis was emptied, so jobs were lost. Reported until an operator acknowledges it with `leasehold doctor
            // --repair`.
            if let Some(at) = emptied_at {
                answer["emptied_at"] = at.to_string().into();
            }
            // Jobs without files are taken nevertheless.
            if let Some(fault) = store.files().and_then(FileStore::fault) {
                answer["files_fault"] = fault.into();
            }
            let differences = api.differences();
            if !differences.kinds.is_empty() {
                answer["kinds_differ"] = json!(differences.kinds);
            }
            if let Some(lease_ms) = differences.lease_ms {
                answer["lease_ms_differs"] = json!({"own": api.config().lease_ms, "workers": lease_ms});
            }
            Ok(Json(answer).into_response())
        }
        Standing::Full => Err(Problem::reading(Error::Full("used_memory has reached maxmemory".into()))),
    }
}

/// `GET /metrics`: the metrics of this process, in Prometheus's text format.
pub async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], api.metrics_text().await)
}
