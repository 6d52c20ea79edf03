//! Audio analysis (004): a job of `analyze-audio` with one uploaded file.
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use leasehold::store::{Cancelled, PruneQuery};
use leasehold::{Job, JobId, Json, State as JobState, Store};
use serde::{Deserialize, Serialize};

use super::record::{Clock, Record, Words, json};
use super::view::{Asked, View, answer};
use crate::deadline::Clock as Deadline;
use crate::error::{Code, Problem};
use crate::extract::headers::idempotency_key;
use crate::extract::query::Query;
use crate::extract::upload::{Announced, Form};
use crate::routes::jobs::a_number;
use crate::routes::submit::take_upload;
use crate::routes::{Answer, only};
use crate::state::Api;
use crate::stream::{JSON, document, stream};
use crate::submission::{self, Work};

pub const VIEW: View = View { kind: "analyze-audio", is_batch: false };
const WORDS: Words = ["pending", "processing", "completed", "failed", "cancelled"];
/// How long a delete waits for a running job to stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);
const DAY_MS: u64 = 86_400_000;

/// A job's payload.
#[derive(Serialize, Deserialize)]
struct Recording {
    filename: String,
}

#[derive(Serialize)]
struct Submitted<'a> {
    job_id: &'a JobId,
    status: &'static str,
}

#[derive(Serialize)]
struct Analysis<'a> {
    job_id: &'a JobId,
    status: &'static str,
    progress: Json,
    created_at: Json,
    updated_at: Option<Json>,
    filename: String,
    result: Option<Json>,
    error: Option<String>,
}

#[derive(Serialize)]
struct Deleted {
    deleted: u64,
}

/// `POST /api/analyze`
pub async fn submit(State(api): State<Api>, headers: HeaderMap, Announced(upload): Announced) -> Answer {
    let key = idempotency_key(&headers)?;
    let no_file = || Problem::new(Code::InvalidRequest, "no file; send multipart/form-data with it in the part `file`");
    let upload = upload.ok_or_else(no_file)?;
    let limits = api.clone();
    let job = move |filename: &str| {
        let payload = json(&Recording { filename: filename.to_owned() });
        submission::of_kind(Work { kind: VIEW.kind(), payload, items: None }, key.clone(), &limits.rules())
    };
    let (job, _) = take_upload(&api, upload, Form::One { part: "file", job: Box::new(job) }).await?;
    let status = Record::new(&job, &WORDS, false).status;
    Ok(answer(StatusCode::OK, &Submitted { job_id: &job.id, status }))
}

/// `GET /api/status/{job_id}`
pub async fn get(State(api): State<Api>, asked: Asked) -> Answer {
    let job = VIEW.find(&api.store().await?, &asked).await?;
    Ok(answer(StatusCode::OK, &analysis(&job)))
}

/// `GET /api/jobs`: all jobs, newest first.
pub async fn list(State(api): State<Api>) -> Answer {
    let store = api.store().await?;
    let write = |job: &Job| Some(json(&analysis(job)).as_str().to_owned());
    let tail = |total| format!("],\"total\":{total}}}");
    stream(JSON, document("{\"jobs\":[".into(), ",", VIEW.all(&store), write, tail)).await
}

/// `DELETE /api/jobs/{job_id}`: a job that has not ended is cancelled first, since these clients cannot cancel it
/// otherwise.
pub async fn remove(State(api): State<Api>, asked: Asked, deadline: Deadline) -> Answer {
    let (store, watcher) = api.watcher().await?;
    let job = VIEW.find(&store, &asked).await?;
    if !job.state.is_final() && stop(&store, &job).await? == Cancelled::Requested {
        deadline.stop();
        let ended = watcher.wait_for_end(&job.id, STOP_WITHIN).await;
        deadline.start();
        if ended.map_err(Problem::after_a_change)?.is_some_and(|job| !job.state.is_final()) {
            let detail = format!("job {} is still running and has been asked to stop; repeat the request", job.id);
            return Err(Problem::new(Code::WrongState, detail));
        }
    }
    only(store.remove(&[job.id]).await)?;
    Ok(answer(StatusCode::OK, &Deleted { deleted: 1 }))
}

/// Cancels a job; one that has just ended counts as cancelled.
async fn stop(store: &Store, job: &Job) -> Result<Cancelled, Problem> {
    match only(store.cancel(std::slice::from_ref(&job.id)).await) {
        Err(problem) if problem.code() == Code::WrongState => Ok(Cancelled::Done),
        answer => answer,
    }
}

/// `DELETE /api/jobs/cleanup`: removes jobs that ended more than `days` days ago, for at most half of
/// `limits.request_ms`.
pub async fn cleanup(State(api): State<Api>, mut query: Query) -> Answer {
    let days = query.read("days", a_number);
    query.ignore_rest();
    if days.is_none() && !query.is_faulty() {
        query.fault("days", "required: a whole number of days since the job ended");
    }
    query.finish()?;
    let wanted = PruneQuery {
        kind: Some(VIEW.kind()),
        older_than_ms: Some(days.unwrap_or(u64::MAX).saturating_mul(DAY_MS)),
        within: Some(Duration::from_millis(api.limits().request_ms / 2)),
        ..PruneQuery::default()
    };
    let pruned = api.store().await?.prune(&wanted).await.map_err(Problem::changing)?;
    Ok(answer(StatusCode::OK, &Deleted { deleted: pruned.deleted }))
}

fn analysis(job: &Job) -> Analysis<'_> {
    let record = Record::new(job, &WORDS, false);
    let made = job.result.clone().filter(|_| job.state == JobState::Completed);
    let recording: Option<Recording> = job.payload.to().ok();
    Analysis {
        job_id: &job.id,
        status: record.status,
        progress: record.past_number("progress").unwrap_or_else(|| json(&(record.percent() / 100.0))),
        created_at: record.made_at("created_at", Clock::Seconds),
        updated_at: record.past_time("updated_at", Clock::Seconds, Some(job.updated_at)),
        filename: record.old("filename").or(recording.map(|it| it.filename)).unwrap_or_default(),
        result: made.or_else(|| record.past("result")),
        error: record.failure("error"),
    }
}
