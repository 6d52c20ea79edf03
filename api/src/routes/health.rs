//! Whether the process lives, and whether it can do its work.
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use leasehold::Error;
use leasehold::metrics::CONTENT_TYPE as METRICS_TYPE;
use leasehold::store::Standing;
use serde_json::json;

use super::Answer;
use crate::error::{Code, Problem};
use crate::state::Api;

/// How long Redis may take to say that it is there: a probe's usual patience is short.
const PATIENCE: Duration = Duration::from_secs(5);

/// `GET /livez`: the process turns.
pub async fn live() -> impl IntoResponse {
    Json(json!({ "status": "live" }))
}

/// `GET /readyz`: Redis answers and takes new jobs, and this process is not about to end.
pub async fn ready(State(api): State<Api>) -> Answer {
    if api.stopping().is_cancelled() {
        return Err(Problem::new(Code::ShuttingDown, "another replica answers; this one ends"));
    }
    let store = api.store_now()?;
    let late = || Error::Unavailable(format!("no answer within {} s", PATIENCE.as_secs()));
    let looks = async { Ok((store.standing().await?, store.emptied_at().await?)) };
    let looked = tokio::time::timeout(PATIENCE, looks).await.unwrap_or_else(|_| Err(late()));
    let (standing, emptied_at) = looked.map_err(|e| Problem::new(Code::Unavailable, e.to_string()))?;
    match standing {
        Standing::Ready => {
            let mut answer = json!({ "status": "ready", "redis": store.address() });
            // It can work on, and jobs are lost: an operator must hear of it, and says so with `leasehold doctor --repair`.
            if let Some(at) = emptied_at {
                answer["emptied_at"] = at.to_string().into();
            }
            let differing = api.differing_kinds();
            if !differing.is_empty() {
                answer["kinds_differ"] = json!(differing);
            }
            Ok(Json(answer).into_response())
        }
        Standing::Full => Err(Problem::reading(Error::Full("used_memory has reached maxmemory".into()))),
    }
}

/// `GET /metrics`: what this process counts, in Prometheus's text format.
pub async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], api.metrics_text().await)
}
