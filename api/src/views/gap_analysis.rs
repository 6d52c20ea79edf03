//! Gap analysis (000): a job of `gap-analysis`, its phases as progress messages, its result a file.
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::IntoResponse;
use leasehold::{Job, JobId, Json, State as JobState, Store};
use serde::{Deserialize, Serialize};

use super::record::{Clock, Record, Words, json};
use super::url::WebUrl;
use super::view::{Asked, View, answer};
use crate::error::{Code, Problem};
use crate::extract::body::JsonText;
use crate::fields::Reader;
use crate::routes::files::send;
use crate::routes::{Answer, only};
use crate::state::Api;
use crate::stream::{JSON, document, stream};

pub const VIEW: View = View { kind: "gap-analysis", is_batch: false };
const WORDS: Words = ["pending", "running", "completed", "failed", "cancelled"];
/// The progress message of a job that has not reported one.
const QUEUED: &str = "Job queued for processing";
/// Defaults of a request.
const PAPERS_USUAL: u64 = 10;
const THRESHOLD_USUAL: u64 = 2;
/// Maximum of both; the handler has its own limits.
const ASKED_MAX: u64 = 1_000_000;

#[derive(Serialize)]
struct Request {
    url: WebUrl,
    max_papers: u64,
    validation_threshold: u64,
}

/// The result of the handler.
#[derive(Deserialize)]
struct Made {
    result_file: String,
}

#[derive(Serialize)]
struct Analysis<'a> {
    job_id: &'a JobId,
    request: Json,
    status: &'static str,
    created_at: Json,
    progress_message: String,
    result_file: Option<String>,
    started_at: Option<Json>,
    completed_at: Option<Json>,
    error_message: Option<String>,
}

/// `POST /api/v1/gap-analysis/jobs`
pub async fn submit(State(api): State<Api>, headers: HeaderMap, body: JsonText) -> Answer {
    let mut reader = Reader::open_lenient(body.as_str())?;
    let url: Option<WebUrl> = reader.required("url");
    let max_papers = reader.whole("max_papers", 1, ASKED_MAX).unwrap_or(PAPERS_USUAL);
    let validation_threshold = reader.whole("validation_threshold", 1, ASKED_MAX).unwrap_or(THRESHOLD_USUAL);
    reader.finish()?;
    let request = Request { url: url.unwrap_or_default(), max_papers, validation_threshold };
    let (_, job) = VIEW.submit(&api, &headers, json(&request), None).await?;
    Ok(answer(StatusCode::ACCEPTED, &analysis(&job)))
}

/// `GET /api/v1/gap-analysis/jobs`: all jobs, newest first.
pub async fn list(State(api): State<Api>) -> Answer {
    let store = api.store().await?;
    let write = |job: &Job| Some(json(&analysis(job)).as_str().to_owned());
    let tail = |total| format!("],\"total\":{total}}}");
    stream(JSON, document("{\"jobs\":[".into(), ",", VIEW.all(&store), write, tail)).await
}

/// `GET /api/v1/gap-analysis/jobs/{job_id}`
pub async fn get(State(api): State<Api>, asked: Asked) -> Answer {
    let job = VIEW.find(&api.store().await?, &asked).await?;
    Ok(answer(StatusCode::OK, &analysis(&job)))
}

/// `GET /api/v1/gap-analysis/jobs/{job_id}/result`: the result file of a completed job.
pub async fn result(State(api): State<Api>, asked: Asked, method: Method) -> Answer {
    let store = api.store().await?;
    let job = VIEW.find(&store, &asked).await?;
    let Some(name) = analysis(&job).result_file else {
        let detail = format!("job {} is {}: only a completed one has a result", job.id, job.state);
        return Err(Problem::new(Code::WrongState, detail));
    };
    // Always the whole file, whatever part or version the client has.
    let mut response = send(&store, &job.id, name, None, &method, &HeaderMap::new()).await?;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    Ok(response)
}

/// `POST /api/v1/gap-analysis/jobs/{job_id}/cancel`: a running job is asked to stop, and is cancelled once it has
/// stopped.
pub async fn cancel(State(api): State<Api>, asked: Asked) -> Answer {
    let (store, job) = the(&api, &asked).await?;
    only(store.cancel(std::slice::from_ref(&job.id)).await)?;
    let now = store.get(&job.id).await.map_err(Problem::after_a_change)?;
    Ok(answer(StatusCode::OK, &analysis(&now.unwrap_or(job))))
}

/// `DELETE /api/v1/gap-analysis/jobs/{job_id}`
pub async fn remove(State(api): State<Api>, asked: Asked) -> Answer {
    let (store, job) = the(&api, &asked).await?;
    only(store.remove(&[job.id]).await)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn the(api: &Api, asked: &Asked) -> Result<(Store, Job), Problem> {
    let store = api.store().await?;
    let job = VIEW.find(&store, asked).await?;
    Ok((store, job))
}

fn analysis(job: &Job) -> Analysis<'_> {
    let record = Record::new(job, &WORDS, false);
    let told = || job.progress.as_ref().and_then(|progress| progress.message.clone());
    let made = || job.result.as_ref().and_then(|result| Some(result.to::<Made>().ok()?.result_file));
    let result_file = record.past("result_file").or_else(made);
    Analysis {
        job_id: &job.id,
        request: record.old("request").unwrap_or_else(|| job.payload.clone()),
        status: record.status,
        created_at: record.made_at("created_at", Clock::Seconds),
        progress_message: record.past("progress_message").or_else(told).unwrap_or_else(|| QUEUED.to_owned()),
        result_file: result_file.filter(|_| job.state == JobState::Completed),
        started_at: record.past_time("started_at", Clock::Seconds, job.started_at),
        completed_at: record.past_time("completed_at", Clock::Seconds, job.finished_at),
        error_message: record.failure("error_message"),
    }
}
