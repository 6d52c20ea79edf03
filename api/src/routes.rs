//! The handlers, a file per resource: each reads its arguments, calls the Store once or twice, and responds.
pub mod events;
pub mod files;
pub mod health;
pub mod items;
pub mod jobs;
pub mod landing;
pub mod queues;
pub mod schedules;
pub mod submit;
pub mod workers;

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use leasehold::{Error, JobId, Refusal, Store};
use serde::Serialize;

use crate::budget::{self, Share};
use crate::error::{Code, Problem};
use crate::state::Api;
use crate::stream::JSON;

/// The result of a handler.
pub type Answer = Result<Response, Problem>;

/// The response to any path that is not a route.
pub async fn no_route() -> Problem {
    Problem::new(
        Code::NoRoute,
        "the routes begin with /api/v1 and then jobs, queues, schedules or workers; /openapi.json lists them all",
    )
}

/// The response to a method that the route does not support.
pub async fn no_method() -> Problem {
    Problem::new(Code::MethodNotAllowed, "the header Allow names the methods of this route")
}

/// A JSON object with one member. Not built with `json!`, which would change the digits of numbers in payloads.
fn object<T: Serialize>(name: &'static str, value: T) -> Response {
    Json(BTreeMap::from([(name, value)])).into_response()
}

/// The same, with the memory that it may occupy until the client has received it.
fn held_object<T: Serialize>(name: &'static str, value: T, share: Option<Share>) -> Response {
    let body = serde_json::to_vec(&BTreeMap::from([(name, value)])).expect("it is plain JSON");
    ([(CONTENT_TYPE, JSON)], Body::from(budget::held(body, share))).into_response()
}

/// The job, or a 404.
fn found<T>(job: Option<T>, id: &JobId) -> Result<T, Problem> {
    job.ok_or_else(|| Problem::refused(Refusal::NotFound(id.clone())))
}

/// The response to a completed change: the job as it is now.
async fn changed(api: &Api, store: &Store, status: StatusCode, id: &JobId) -> Answer {
    let mut job = found(store.get(id).await.map_err(Problem::after_a_change)?, id)?;
    api.say_served(store, [&mut job]).await;
    Ok((status, Json(job)).into_response())
}

/// The result of a call with one id.
pub fn only<T>(answers: Result<Vec<Result<T, Refusal>>, Error>) -> Result<T, Problem> {
    let answer = answers.map_err(Problem::changing)?.pop().expect("one id, one answer");
    answer.map_err(Problem::refused)
}
