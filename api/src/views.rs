//! The routes of the five systems that Leasehold replaces, so that their clients move over by changing a base URL.
//!
//! Each view translates names, status words, times and numbers over the one job model; none has state or logic of its
//! own. Here are their routes, and how they refuse.
mod audio;
mod file_batches;
mod gap_analysis;
mod health;
mod job_status;
mod record;
mod screenshots;
mod url;
mod view;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{delete, get, post};
use leasehold::Json;
use serde::Serialize;

use crate::error::{Code, Problem};
use crate::state::Api;
use record::{Clock, json};

/// Every route of the views on one screen.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/gap-analysis/jobs", get(gap_analysis::list).post(gap_analysis::submit))
        .route("/api/v1/gap-analysis/jobs/{job_id}", get(gap_analysis::get).delete(gap_analysis::remove))
        .route("/api/v1/gap-analysis/jobs/{job_id}/result", get(gap_analysis::result))
        .route("/api/v1/gap-analysis/jobs/{job_id}/cancel", post(gap_analysis::cancel))
        .route("/jobs", get(file_batches::list).post(file_batches::submit))
        .route("/job_results/{job_id}", get(file_batches::results))
        .route("/job_results/{job_id}/download", get(file_batches::download))
        .route("/api/job-status/{job_id}", get(job_status::get))
        .route("/api/job-status/{job_id}/stream", get(job_status::stream))
        .route("/api/suggestions", post(job_status::submit))
        .route("/batch/screenshots", post(screenshots::submit))
        .route("/batch/screenshots/{job_id}", get(screenshots::get))
        .route("/batch/screenshots/{job_id}/results", get(screenshots::results))
        .route("/batch/results/{job_id}", get(screenshots::results))
        .route("/api/analyze", post(audio::submit))
        .route("/api/status/{job_id}", get(audio::get))
        .route("/api/jobs", get(audio::list))
        .route("/api/jobs/{job_id}", delete(audio::remove))
        .route("/api/jobs/cleanup", delete(audio::cleanup))
        .route("/health", get(health::health))
}

/// The first parts of the views' paths, and how each writes the time of an error.
const PATHS: [(&str, Clock); 10] = [
    ("/api/v1/gap-analysis", Clock::Seconds),
    ("/jobs", Clock::Micros),
    ("/job_results", Clock::Micros),
    ("/api/job-status", Clock::Seconds),
    ("/api/suggestions", Clock::Seconds),
    // Its records count seconds since 1970; an error's time is a text in every view.
    ("/batch", Clock::Seconds),
    ("/api/analyze", Clock::Seconds),
    ("/api/status", Clock::Seconds),
    ("/api/jobs", Clock::Seconds),
    ("/health", Clock::Seconds),
];

/// An error as the views say it.
#[derive(Serialize)]
struct Refused<'a> {
    error: &'a str,
    timestamp: Json,
    path: &'a str,
}

/// Says every problem on a view's path as the old systems did, whoever found it; its status and headers stay.
pub async fn refuse(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let Some((_, clock)) = PATHS.iter().find(|(root, _)| is_below(root)) else { return next.run(request).await };
    let path = path.to_owned();
    let mut response = next.run(request).await;
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let error = if problem.code() == Code::NoJob { "Job not found" } else { problem.detail() };
    let refused = json(&Refused { error, timestamp: clock.now(), path: &path });
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = Body::from(refused.as_str().to_owned());
    response
}
