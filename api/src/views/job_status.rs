//! Job status (002): a job of `suggestions`, polled or streamed.
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use leasehold::{Job, JobId, Json, State as JobState};
use serde::Serialize;

use super::record::{Clock, Record, Words, json, number};
use super::view::{Asked, View, answer};
use crate::error::{Code, Problem};
use crate::extract::body::JsonText;
use crate::extract::from::From;
use crate::fields::Reader;
use crate::routes::Answer;
use crate::routes::events::{Shown, follow};
use crate::state::Api;

pub const VIEW: View = View { kind: "suggestions", is_batch: false };
const WORDS: Words = ["queued", "running", "completed", "failed", "cancelled"];

#[derive(Serialize)]
struct Text {
    text: String,
}

#[derive(Serialize)]
struct Submitted<'a> {
    job_id: &'a JobId,
    status: &'static str,
}

#[derive(Serialize)]
struct Status<'a> {
    job_id: &'a JobId,
    status: &'static str,
    created_at: Json,
    updated_at: Option<Json>,
    progress: Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
}

#[derive(Serialize)]
struct Gone<'a> {
    job_id: &'a JobId,
}

/// `POST /api/suggestions`
pub async fn submit(State(api): State<Api>, headers: HeaderMap, body: JsonText) -> Answer {
    let mut reader = Reader::open_lenient(body.as_str())?;
    let text: Option<String> = reader.required("text");
    reader.finish()?;
    let payload = json(&Text { text: text.unwrap_or_default() });
    let (_, job) = VIEW.submit(&api, &headers, payload, None).await?;
    let status = Record::new(&job, &WORDS, false).status;
    Ok(answer(StatusCode::ACCEPTED, &Submitted { job_id: &job.id, status }))
}

/// `GET /api/job-status/{job_id}`
pub async fn get(State(api): State<Api>, asked: Asked) -> Answer {
    check(&asked)?;
    let found = VIEW.find(&api.store().await?, &asked).await;
    let job = found.inspect_err(|problem| tell(problem, &asked))?;
    Ok(answer(StatusCode::OK, &status(&job)))
}

/// `GET /api/job-status/{job_id}/stream`: an event stream with the status record.
pub async fn stream(State(api): State<Api>, from: From, asked: Asked) -> Answer {
    let id = check(&asked)?;
    let shown =
        Shown { fits: |job| VIEW.has(job), data: |job| json(&status(job)), gone: |id| json(&Gone { job_id: id }) };
    follow(&api, from, id, shown).await.inspect_err(|problem| tell(problem, &asked))
}

/// Validates an id: this system's ids are UUIDs, imported ones too.
fn check(asked: &Asked) -> Result<JobId, Problem> {
    let id = uuid::Uuid::parse_str(&asked.0).ok().and_then(|_| JobId::parse(&asked.0).ok());
    id.ok_or_else(|| {
        let shown: String = asked.0.chars().take(80).collect();
        tracing::warn!(job_id = ?shown, "job id is not a UUID (400)");
        Problem::new(Code::InvalidRequest, "Invalid job_id format (must be UUID)")
    })
}

/// Logs an unknown job at info: it is ordinary for clients that poll.
fn tell(problem: &Problem, asked: &Asked) {
    if problem.code() == Code::NoJob {
        tracing::info!(job_id = asked.0, "job not found (404)");
    }
}

fn status(job: &Job) -> Status<'_> {
    let record = Record::new(job, &WORDS, false);
    let made = job.result.clone().filter(|_| job.state == JobState::Completed);
    Status {
        job_id: &job.id,
        status: record.status,
        created_at: record.made_at("created_at", Clock::Seconds),
        updated_at: record.past_time("updated_at", Clock::Seconds, Some(job.updated_at)),
        progress: record.past_number("progress").unwrap_or_else(|| number(record.percent())),
        result: record.past("result").or(made),
        error_message: record.failure("error_message"),
    }
}
