//! The routes of the five systems that Leasehold replaces, so that their clients move over by changing a base URL.
//!
//! Each view translates names, status words, times and numbers over the one job model; none has its
//! own state or logic. Here are their routes, served where the kinds file names their kind, and how they refuse.
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
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{delete, get, post};
use leasehold::{Json, Kinds};
use serde::Serialize;

use crate::error::{Code, Problem};
use crate::routes::no_route;
use crate::state::Api;
use record::{Clock, json};
use view::View;

/// One of the old systems.
struct System {
    /// The jobs it shows; their kind in the kinds file turns its routes on.
    view: &'static View,
    /// Its routes.
    routes: fn() -> Router<Api>,
    /// The first parts of its paths.
    roots: &'static [&'static str],
    /// How it writes the time of an error.
    clock: Clock,
}

const SYSTEMS: [System; 5] = [
    System {
        view: &gap_analysis::VIEW,
        routes: of_gap_analysis,
        roots: &["/api/v1/gap-analysis"],
        clock: Clock::Seconds,
    },
    System {
        view: &file_batches::VIEW,
        routes: of_file_batches,
        roots: &["/jobs", "/job_results"],
        clock: Clock::Micros,
    },
    System {
        view: &job_status::VIEW,
        routes: of_job_status,
        roots: &["/api/job-status", "/api/suggestions"],
        clock: Clock::Seconds,
    },
    // Its records count seconds since 1970, but the time of an error is a text in every view.
    System { view: &screenshots::VIEW, routes: of_screenshots, roots: &["/batch"], clock: Clock::Seconds },
    System {
        view: &audio::VIEW,
        routes: of_audio,
        roots: &["/api/analyze", "/api/status", "/api/jobs"],
        clock: Clock::Seconds,
    },
];

/// The routes of all systems; [`hide`] keeps to those that are served.
pub fn routes() -> Router<Api> {
    SYSTEMS.iter().fold(of_all(), |router, system| router.merge((system.routes)()))
}

/// The systems whose kind the kinds file names. The file may change while the API runs.
fn served(kinds: &Kinds) -> impl Iterator<Item = &'static System> {
    SYSTEMS.iter().filter(|system| kinds.contains(&system.view.kind()))
}

/// Answers for a system that is not served as if its routes did not exist, and redirects a path that ends in a slash,
/// as the frameworks of the old systems did.
pub async fn hide(State(api): State<Api>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if clock_in(path, SYSTEMS.iter()).is_some() && clock_of(path, &api.kinds()).is_none() {
        return no_route().await.into_response();
    }
    if let Some(without) = path.strip_suffix('/')
        && clock_of(without, &api.kinds()).is_some()
    {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        return Redirect::temporary(&format!("{without}{query}")).into_response();
    }
    next.run(request).await
}

fn of_gap_analysis() -> Router<Api> {
    Router::new()
        .route("/api/v1/gap-analysis/jobs", get(gap_analysis::list).post(gap_analysis::submit))
        .route("/api/v1/gap-analysis/jobs/{job_id}", get(gap_analysis::get).delete(gap_analysis::remove))
        .route("/api/v1/gap-analysis/jobs/{job_id}/result", get(gap_analysis::result))
        .route("/api/v1/gap-analysis/jobs/{job_id}/cancel", post(gap_analysis::cancel))
}

fn of_file_batches() -> Router<Api> {
    Router::new()
        .route("/jobs", get(file_batches::list).post(file_batches::submit))
        .route("/job_results/{job_id}", get(file_batches::results))
        .route("/job_results/{job_id}/download", get(file_batches::download))
}

fn of_job_status() -> Router<Api> {
    Router::new()
        .route("/api/job-status/{job_id}", get(job_status::get))
        .route("/api/job-status/{job_id}/stream", get(job_status::stream))
        .route("/api/suggestions", post(job_status::submit))
}

fn of_screenshots() -> Router<Api> {
    Router::new()
        .route("/batch/screenshots", post(screenshots::submit))
        .route("/batch/screenshots/{job_id}", get(screenshots::get))
        .route("/batch/screenshots/{job_id}/results", get(screenshots::results))
        .route("/batch/results/{job_id}", get(screenshots::results))
}

fn of_audio() -> Router<Api> {
    Router::new()
        .route("/api/analyze", post(audio::submit))
        .route("/api/status/{job_id}", get(audio::get))
        .route("/api/jobs", get(audio::list))
        .route("/api/jobs/{job_id}", delete(audio::remove))
        .route("/api/jobs/cleanup", delete(audio::cleanup))
}

fn of_all() -> Router<Api> {
    Router::new().route("/health", get(health::health))
}

/// How an error on `path` writes its time; `None` when no system that is served has the path.
fn clock_of(path: &str, kinds: &Kinds) -> Option<Clock> {
    clock_in(path, served(kinds))
}

/// The same for any systems.
fn clock_in(path: &str, mut systems: impl Iterator<Item = &'static System>) -> Option<Clock> {
    let is_below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if is_below("/health") {
        return systems.next().map(|_| Clock::Seconds);
    }
    systems.find(|system| system.roots.iter().any(|root| is_below(root))).map(|system| system.clock)
}

/// An error in the format of the old systems.
#[derive(Serialize)]
struct Refused<'a> {
    error: &'a str,
    timestamp: Json,
    path: &'a str,
}

/// Rewrites every problem on a view's path, from whatever layer, in the format of the old systems; status and headers
/// stay.
pub async fn refuse(State(api): State<Api>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let Some(clock) = clock_of(&path, &api.kinds()) else { return next.run(request).await };
    let mut response = next.run(request).await;
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let error = if problem.code() == Code::NoJob { "Job not found" } else { problem.detail() };
    let refused = json(&Refused { error, timestamp: clock.now(), path: &path });
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = Body::from(refused.as_str().to_owned());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_views_where_its_kind_is_configured() {
        let kinds = Kinds::parse("[kinds.suggestions]\n[kinds.process-files]\n", "/".into()).unwrap();
        for (path, clock) in [
            ("/jobs", Some(Clock::Micros)),
            ("/job_results/x", Some(Clock::Micros)),
            ("/api/suggestions", Some(Clock::Seconds)),
            ("/api/job-status/x/stream", Some(Clock::Seconds)),
            ("/health", Some(Clock::Seconds)),
            ("/jobsx", None),
            ("/batch/screenshots", None),
            ("/api/analyze", None),
            ("/api/v1/gap-analysis/jobs", None),
        ] {
            assert_eq!(clock_of(path, &kinds), clock, "{path}");
        }
        for path in ["/jobs", "/api/suggestions", "/health"] {
            assert_eq!(clock_of(path, &Kinds::default()), None, "{path}");
        }
    }
}
