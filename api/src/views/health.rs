//! Health: one document for gap analysis (000) and audio analysis (004).
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use leasehold::store::{Counts, address};
use leasehold::{Kind, Kinds};
use serde::Serialize;

use super::view::answer;
use super::{audio, gap_analysis};
use crate::error::Problem;
use crate::routes::Answer;
use crate::state::Api;

/// How long a probe waits for Redis.
const PATIENCE: Duration = Duration::from_secs(5);
/// `Retry-After`, in seconds.
const AGAIN_S: u32 = 2;
const FEATURES: [&str; 6] = [
    "Async background processing",
    "Job status tracking",
    "Result persistence",
    "Persistent job status storage",
    "Distributed workers on leases",
    "Live progress by server-sent events",
];

/// The document; a count that could not be read is null.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    service: &'static str,
    version: &'static str,
    running_jobs: Option<u64>,
    max_concurrent_jobs: Option<u32>,
    total_jobs: Option<u64>,
    jobs_count: Option<u64>,
    database: String,
    jobs_directory: String,
    results_directory: Option<String>,
    features: [&'static str; 6],
}

/// `GET /health`: the number of running and of all jobs of gap analysis, and of all jobs of audio analysis.
pub async fn health(State(api): State<Api>) -> Answer {
    let limit = limit(&api.kinds());
    let counted = tokio::time::timeout(PATIENCE, count(&api, limit.is_some())).await.ok().and_then(Result::ok);
    let (analyses, recordings) = counted.unzip();
    let redis = address(api.config()).unwrap_or_default();
    let files = api.config().storage().ok().flatten();
    let health = Health {
        status: if counted.is_some() { "healthy" } else { "unhealthy" },
        service: "Leasehold",
        version: env!("CARGO_PKG_VERSION"),
        running_jobs: analyses.map(|counts| counts.running),
        max_concurrent_jobs: limit,
        total_jobs: analyses.map(|counts| counts.total),
        jobs_count: recordings.map(|counts| counts.total),
        database: redis.clone(),
        jobs_directory: redis,
        results_directory: files.map(|location| location.to_string()),
        features: FEATURES,
    };
    if counted.is_some() {
        return Ok(answer(StatusCode::OK, &health));
    }
    let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, &health);
    response.headers_mut().insert(RETRY_AFTER, AGAIN_S.into());
    Ok(response)
}

/// How many analyses may run at once; `None` when the kinds file sets no limit.
fn limit(kinds: &Kinds) -> Option<u32> {
    kinds.get(&gap_analysis::VIEW.kind()).max_running
}

async fn count(api: &Api, limited: bool) -> Result<(Counts, Counts), Problem> {
    let store = api.store().await?;
    let count = async |kind: Kind, limited| store.counts(&kind, limited).await.map_err(Problem::reading);
    Ok((count(gap_analysis::VIEW.kind(), limited).await?, count(audio::VIEW.kind(), false).await?))
}
