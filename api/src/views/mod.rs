//! The routes of the five systems that Leasehold replaces, so that their clients move over by changing a base URL.
//!
//! Each view translates names, status words, times and numbers over the one job model; none has state or logic of its
//! own. Here is what they share: their routes, how they refuse, and how they submit, find and list jobs of one kind.
mod audio;
mod files;
mod gap_analysis;
mod health;
mod job_status;
mod record;
mod screenshots;
mod url;

use std::collections::HashSet;
use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use futures_util::stream::{Stream, try_unfold};
use leasehold::store::ListQuery;
use leasehold::{Error, Job, JobId, Json, Kind, Refusal, State, Store};
use serde::Serialize;

use crate::error::{Code, Problem};
use crate::headers::idempotency_key;
use crate::routes::submit::take;
use crate::state::Api;
use crate::submission::{self, Work};
use record::{Clock, json};

/// Jobs of a list that are read at once.
const PAGE: usize = 200;
/// Items of a batch, its first, that are looked at to tell whether any has started.
const FIRST_ITEMS: u64 = 8;

/// Every route of the views on one screen.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/gap-analysis/jobs", get(gap_analysis::list).post(gap_analysis::submit))
        .route("/api/v1/gap-analysis/jobs/{job_id}", get(gap_analysis::get).delete(gap_analysis::remove))
        .route("/api/v1/gap-analysis/jobs/{job_id}/result", get(gap_analysis::result))
        .route("/api/v1/gap-analysis/jobs/{job_id}/cancel", post(gap_analysis::cancel))
        .route("/jobs", get(files::list).post(files::submit))
        .route("/job_results/{job_id}", get(files::results))
        .route("/job_results/{job_id}/download", get(files::download))
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

/// The job that the path names, as it stands there.
struct Asked(String);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let parameters = RawPathParams::from_request_parts(parts, state).await;
        let first = parameters.ok().and_then(|all| all.iter().next().map(|(_, text)| text.to_owned()));
        Ok(Self(first.unwrap_or_default()))
    }
}

/// Whose jobs a view shows.
struct View {
    kind: &'static str,
    is_batch: bool,
}

impl View {
    fn kind(&self) -> Kind {
        Kind::parse(self.kind).expect("a constant")
    }

    /// Another view's job is none of this one's, nor is an item.
    fn has(&self, job: &Job) -> bool {
        job.kind.as_str() == self.kind && job.items.is_some() == self.is_batch && job.parent.is_none()
    }

    fn unknown(id: &str) -> Problem {
        match JobId::parse(id) {
            Ok(id) => Problem::refused(Refusal::NotFound(id)),
            Err(e) => Problem::new(Code::NoJob, e.to_string()),
        }
    }

    /// The job of that id.
    async fn find(&self, store: &Store, asked: &Asked) -> Result<Job, Problem> {
        let id = JobId::parse(&asked.0).map_err(|_| Self::unknown(&asked.0))?;
        let job = store.get(&id).await.map_err(Problem::reading)?;
        job.filter(|job| self.has(job)).ok_or_else(|| Self::unknown(&asked.0))
    }

    /// All jobs, newest first, a page at a time.
    fn all(&'static self, store: &Store) -> impl Stream<Item = Result<Vec<Job>, Error>> + Send + use<> {
        let (store, kind) = (store.clone(), self.kind());
        let begin = ListQuery { kind: Some(kind), limit: PAGE, ..ListQuery::default() };
        try_unfold(Some(begin), move |next| {
            let store = store.clone();
            async move {
                let Some(query) = next else { return Ok(None) };
                let page = store.list(&query).await?;
                let next = page.next_cursor.and_then(|cursor| query.with_cursor(&cursor).ok());
                Ok(Some((page.jobs.into_iter().filter(|job| self.has(job)).collect(), next)))
            }
        })
    }

    /// Submits a job, or a batch with `items` and the name of their list in the request; what a submit may choose besides
    /// is its kind's. The same request with the same Idempotency-Key answers with the same job.
    async fn submit(
        &self,
        api: &Api,
        headers: &HeaderMap,
        payload: Json,
        items: Option<(&'static str, Vec<Json>)>,
    ) -> Result<(Store, Job), Problem> {
        let key = idempotency_key(headers)?;
        let job = submission::of_kind(Work { kind: self.kind(), payload, items }, key, &api.rules())?;
        let store = api.store().await?;
        let (job, _) = take(api, &store, job).await?;
        Ok((store, job))
    }
}

/// Which of these batches have begun: an item has started, or ended. Items start in their order, so the first ones tell.
async fn begun(store: &Store, jobs: &[Job]) -> Result<HashSet<JobId>, Error> {
    let (mut begun, mut looked, mut ids) = (HashSet::new(), Vec::new(), Vec::new());
    for (job, items) in jobs.iter().filter_map(|job| Some((job, job.items?))) {
        if items.succeeded + items.failed + items.skipped + items.cancelled > 0 {
            begun.insert(job.id.clone());
        } else if job.state == State::Waiting {
            let first = (0..items.total.min(FIRST_ITEMS)).map(|number| store.item_id(&job.id, number));
            ids.extend(first.inspect(|_| looked.push(&job.id)));
        }
    }
    let first = match store.get_many(&ids).await {
        // One that cannot be read hides no list; `doctor` reports it.
        Err(Error::Corrupt { .. }) => return Ok(begun),
        read => read?,
    };
    let started = |item: Option<&Job>| item.is_some_and(|item| item.token.is_some() || item.state == State::Running);
    begun.extend(looked.into_iter().zip(&first).filter(|(_, item)| started(item.as_ref())).map(|(id, _)| id.clone()));
    Ok(begun)
}

/// The same of one.
async fn has_begun(store: &Store, job: &Job) -> Result<bool, Problem> {
    let begun = begun(store, std::slice::from_ref(job)).await.map_err(Problem::reading)?;
    Ok(begun.contains(&job.id))
}

/// A record as an answer.
fn answer(status: StatusCode, record: &impl Serialize) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], json(record).as_str().to_owned()).into_response()
}

/// A record up to a last member, whose value is to follow.
fn opened(record: &impl Serialize, member: &str) -> String {
    let mut text = json(record).as_str().to_owned();
    text.pop();
    let comma = if text.len() > 1 { "," } else { "" };
    format!("{text}{comma}\"{member}\":")
}
