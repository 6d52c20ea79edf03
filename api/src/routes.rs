//! The handlers, a file per resource: each reads what was asked, calls the Store once or twice, and answers.
pub mod events;
pub mod files;
pub mod health;
pub mod items;
pub mod jobs;
pub mod landing;
pub mod queues;
pub mod submit;
pub mod workers;

use std::collections::BTreeMap;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use leasehold::{Error, JobId, Refusal, Store};
use serde::Serialize;

use crate::error::{Code, Problem};
use crate::state::Api;

/// What a handler answers.
pub type Answer = Result<Response, Problem>;

/// Any path that is no route.
pub async fn no_route() -> Problem {
    Problem::new(
        Code::NoRoute,
        "the routes begin with /api/v1/jobs, /api/v1/queues and /api/v1/workers; /openapi.json lists them all",
    )
}

/// Any method that its route does not have.
pub async fn no_method() -> Problem {
    Problem::new(Code::MethodNotAllowed, "the header Allow names the methods of this route")
}

/// An answer with one member. Not by way of `json!`: payloads must stay as they came, to the digit.
fn object<T: Serialize>(name: &'static str, value: T) -> Response {
    Json(BTreeMap::from([(name, value)])).into_response()
}

/// The job, or that there is none.
fn found<T>(job: Option<T>, id: &JobId) -> Result<T, Problem> {
    job.ok_or_else(|| Problem::refused(Refusal::NotFound(id.clone())))
}

/// The answer to a change that is done: the job as it is now.
async fn changed(api: &Api, store: &Store, status: StatusCode, id: &JobId) -> Answer {
    let mut job = found(store.get(id).await.map_err(Problem::after_a_change)?, id)?;
    api.say_served(store, [&mut job]).await;
    Ok((status, Json(job)).into_response())
}

/// The one answer to a call with one id.
pub fn only<T>(answers: Result<Vec<Result<T, Refusal>>, Error>) -> Result<T, Problem> {
    let answer = answers.map_err(Problem::changing)?.pop().expect("one id, one answer");
    answer.map_err(Problem::refused)
}
